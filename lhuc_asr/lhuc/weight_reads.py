"""Who reads the weights of a model's layers while it runs: the layers themselves, or something else too.

A weight that is also an embedding's table, or that a function takes beside its module (tied auto-encoders, attention
that computes its own output layer), means two things. Every call into torch that gets a weight and returns a tensor is
a read; asking for its shape or type is not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle


class WeightReads(TorchFunctionMode):
    """A context in which reads of some layers' weights are noted.

    Args:
        layers: Layers with a weight, by name.

    Attributes:
        run: Number of times that each layer has run.
        elsewhere: The call that read a layer's weight while the layer did not run, by the layer's name.
    """

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.run: Counter[str] = Counter()
        self.elsewhere: dict[str, str] = {}
        self._layers = layers
        self._owners = {id(layer.weight): name for name, layer in layers.items()}
        self._running: Counter[str] = Counter()
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> WeightReads:
        for name, layer in self._layers.items():
            self._handles += [
                layer.register_forward_pre_hook(lambda *_, name=name: self._running.update([name])),
                layer.register_forward_hook(lambda *_, name=name: self._has_run(name)),
            ]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        for handle in self._handles:
            handle.remove()

    def _has_run(self, name: str) -> None:
        self._running.subtract([name])
        self.run.update([name])

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        for value in tree_leaves((args, kwargs)):
            owner = self._owners.get(id(value))
            if owner is not None and not self._running[owner] and _has_tensors(output):
                self.elsewhere.setdefault(owner, getattr(func, "__name__", str(func)))
        return output


def _has_tensors(output: object) -> bool:
    return any(isinstance(value, Tensor) for value in tree_leaves(output))
