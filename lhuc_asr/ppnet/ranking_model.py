"""The base of everything that ranks: a configuration, a schema, the sizes of the tables; from a batch to logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from lhuc_asr.base.config import StrictModel
from lhuc_asr.ppnet.batch import Batch
from lhuc_asr.ppnet.layer import LHUCLayer
from lhuc_asr.ppnet.schema import Schema


class RankingModel(nn.Module):
    """Base of the networks (``model.py``) and of the linear models (``linear.py``).

    Args:
        config: Configuration of the model.
        schema: Schema of the examples.
        rows: Number of rows of each table of categories, row 0 included, by the name of the field that owns it.
    """

    def __init__(self, config: StrictModel, schema: Schema, rows: Mapping[str, int]) -> None:
        super().__init__()
        self.config, self.schema, self.rows = config, schema, dict(rows)

    @property
    def kind(self) -> str:
        """Kind of the model, as a recipe names it."""
        return str(self.config.model_dump()["kind"])

    def description(self) -> dict[str, Any]:
        """The arguments that the model is built from, as JSON values."""
        return {
            "config": self.config.model_dump(mode="json"),
            "schema": self.schema.model_dump(mode="json"),
            "rows": self.rows,
        }

    def gates(self, batch: Batch) -> dict[str, Tensor]:
        """The amplitudes of a batch's examples, shape (B, units) each, by the name of the gate's module.

        Empty for models without gates, film included.
        """
        amplitudes: dict[str, Tensor] = {}

        def keep(name: str) -> Callable[[LHUCLayer, tuple[Tensor, ...]], None]:
            def hook(layer: LHUCLayer, arguments: tuple[Tensor, ...]) -> None:
                amplitudes[name] = layer.amplitudes(*arguments[1:])

            return hook

        layers = [(name, module) for name, module in self.named_modules() if isinstance(module, LHUCLayer)]
        hooks = [layer.register_forward_pre_hook(keep(name)) for name, layer in layers]
        try:
            self(batch)
        finally:
            for hook in hooks:
                hook.remove()
        return amplitudes
