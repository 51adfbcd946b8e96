"""A model and its bank as one module, for what takes modules: DDP, trainers, torch.export, checkpoints."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lhuc_asr.base.errors import ConfigError, SiteError, SpeakerError
from lhuc_asr.lhuc.bank import SpeakerBank
from lhuc_asr.lhuc.names import inner
from lhuc_asr.lhuc.processes import check_averaged
from lhuc_asr.lhuc.site import Selection


class AdaptedModel(nn.Module):
    """A model whose call says whose amplitudes count.

    Its parameters are the model's and the bank's, its state dict has both, and a deep copy is a model with a bank of
    its own. ``torch.export`` and ``torch.onnx.export`` make one program for all speakers, which takes ``speakers`` as
    rows, int64, shape (B,); a row that the bank does not have is an error there too. Where gradients are to be
    clipped, scaled or reduced over processes, make the bank's dense: ``bank.sparse_gradients = False``.

    Args:
        model: The model.
        bank: The bank that is attached to it.

    Attributes:
        model: The model.
        bank: The bank.

    Raises:
        SiteError: The bank belongs to another model, or is detached.

    Example:
        >>> import torch
        >>> from lhuc_asr.lhuc import attach
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> adapted = AdaptedModel(model, attach(model, nn.ReLU, ["alice", "bob"]))
        >>> adapted(torch.zeros(3, 4), speakers=["alice", "bob", "bob"]).shape
        torch.Size([3, 3])
    """

    def __init__(self, model: nn.Module, bank: SpeakerBank) -> None:
        super().__init__()
        if bank.model is not inner(model) or not bank.attached:
            raise SiteError("the bank is detached, or of another model; attach it to this one")
        self.model = model
        self.bank = bank

    def forward(self, *args: Any, speakers: str | Sequence[str] | Tensor | None = None, **kwargs: Any) -> Any:
        """The model's output.

        Args:
            *args: The model's.
            speakers: A name for the whole batch; names or rows for its elements, as ``bank.rows`` takes them; None for
                what is selected already, or row 0, which does not learn then.
            **kwargs: The model's.

        Raises:
            SpeakerError: The bank does not know a speaker, or a row is not finite; or torch.export is given names.
            ConfigError: The model is wrapped for several processes, but nothing averages the gradients of the rows.
        """
        if not torch.compiler.is_exporting():
            check_averaged(self, self.bank.tables[0])
        if speakers is None:
            return self.model(*args, **kwargs)
        with self._selected(speakers):
            return self.model(*args, **kwargs)

    def _selected(self, speakers: str | Sequence[str] | Tensor) -> AbstractContextManager[object]:
        if torch.compiler.is_exporting():
            return self._exported(speakers)
        return self.bank.speaker(speakers) if isinstance(speakers, str) else self.bank.rows(speakers)

    def _exported(self, rows: str | Sequence[str] | Tensor) -> AbstractContextManager[None]:
        """A context in which torch.export makes a program whose input the rows are."""
        if not isinstance(rows, Tensor) or rows.dtype != torch.int64 or rows.dim() != 1:
            raise SpeakerError(
                "torch.export: speakers= is not a tensor of rows, int64 of shape (B,); pass bank.rows_of(names), or "
                "export fold(bank, name) for one speaker"
            )
        tables = {site.name: table for site, table in zip(self.bank.sites, self.bank.tables, strict=True)}
        # In ONNX -1 would be the last row; one past the last is an error everywhere.
        rows = torch.where(rows < 0, self.bank.tables[0].shape[0], rows)
        elements = torch.arange(rows.shape[0], device=rows.device)
        return self.bank._selecting.exported(
            Selection(rows, elements), lambda site, wanted: functional.embedding(wanted, tables[site])
        )

    # Hugging Face's Trainer asks the model that it trains for these, by these names.

    @property
    def accepts_loss_kwargs(self) -> bool:
        """Whether the model's loss takes the number of items of all batches of a step, as the model itself says."""
        declared = getattr(self.model, "accepts_loss_kwargs", None)
        if declared is not None:
            return bool(declared)
        parameters = inspect.signature(self.model.forward).parameters.values()
        return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)

    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> None:
        """Turn on gradient checkpointing in a Hugging Face model, for the speakers of each call.

        Args:
            activation_checkpointing_kwargs: Options of ``torch.utils.checkpoint.checkpoint``.
            **options: The model's.

        Raises:
            ConfigError: The model has no such method.
        """
        self._enable("activation_checkpointing", activation_checkpointing_kwargs, options)

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> None:
        """The same, by its name in earlier versions of transformers.

        Args:
            gradient_checkpointing_kwargs: Options of ``torch.utils.checkpoint.checkpoint``.
            **options: The model's.

        Raises:
            ConfigError: The model has no such method.
        """
        self._enable("gradient_checkpointing", gradient_checkpointing_kwargs, options)

    def _enable(self, name: str, given: Mapping[str, Any] | None, options: Mapping[str, Any]) -> None:
        enable = getattr(self.model, f"{name}_enable", None)
        if enable is None:
            raise ConfigError(
                f"AdaptedModel: its model, a {type(self.model).__name__}, has no {name}_enable; call "
                "torch.utils.checkpoint in it, with use_reentrant=False and context_fn=bank.checkpointing"
            )
        contexts = {"use_reentrant": False, "context_fn": self.bank.checkpointing}
        enable(**{f"{name}_kwargs": {**contexts, **(given or {})}}, **options)
