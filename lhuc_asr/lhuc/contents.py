"""What of a model counts for its identity: what is saved with it, but for counters.

- Parameters, and the buffers that are in the state dict. The running mean and variance of batch normalisation count:
  the model computes with them. ``num_batches_tracked``, and ``n_averaged`` of ``AveragedModel``, do not: they only
  count batches.
- Not the buffers that are not in the state dict, such as caches of positions, masks and rotary frequencies: models make
  them from their configuration, and again when they run.
- What modules save beside tensors: the packed weights of quantized layers, and extra states.

So, like a state dict, this does not see a model's code and configuration.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lhuc_asr.base.errors import ModelMismatchError, SiteError
from lhuc_asr.lhuc.names import common_prefix, glob_matches, nearest_names, plain_name

_COUNTERS = ("num_batches_tracked", "n_averaged")


@dataclass(frozen=True)
class Contents:
    """What counts of a model.

    Attributes:
        tensors: Parameters and buffers by name, sorted; of tied ones the first.
        others: Modules that save something else too, by name.
    """

    tensors: Sequence[tuple[str, Tensor]]
    others: Sequence[tuple[str, nn.Module]]

    @classmethod
    def of(cls, model: nn.Module, parts: Sequence[str] = ()) -> Contents:
        """What counts of a model, or of those parts of it whose names match any of some globs.

        Raises:
            SiteError: A glob matches nothing.
        """
        tensors: dict[str, Tensor] = {}
        others: dict[str, nn.Module] = {}
        for path, module in model.named_modules(remove_duplicate=False):
            begin = f"{plain_name(path)}.".removeprefix(".")
            for name, tensor in (*module._parameters.items(), *module._buffers.items()):
                if tensor is not None and name not in (*module._non_persistent_buffers_set, *_COUNTERS):
                    tensors[begin + name] = tensor
            if _saves_more(type(module)):
                others[begin + "state"] = module
        names = _chosen(parts, [*tensors, *others]) if parts else {*tensors, *others}
        first = {id(tensor): name for name, tensor in reversed(tensors.items()) if name in names}
        return cls(
            [(name, tensors[name]) for name in sorted(first.values())],
            [(name, others[name]) for name in sorted(names & others.keys())],
        )

    @property
    def names(self) -> list[str]:
        """The names of all."""
        return [name for name, _ in (*self.tensors, *self.others)]

    def saved(self) -> Iterator[tuple[str, object]]:
        """What modules save beside parameters and buffers: tensors, numbers, texts and None, by name.

        Raises:
            ModelMismatchError: One saves something else, by which models cannot be compared.
        """
        for begin, module in self.others:
            stored: dict[str, object] = {}
            module._save_to_state_dict(stored, "", True)
            for key in sorted(stored.keys() - {*module._parameters, *module._buffers}):
                yield from _leaves(f"{begin}.{key}", stored[key])


def _leaves(name: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, torch.ScriptObject):  # packed weights
        value = value.__getstate__()
    if isinstance(value, Mapping):
        value = [[key, value[key]] for key in sorted(value, key=str)]
    if isinstance(value, tuple | list):
        for number, part in enumerate(value):
            yield from _leaves(f"{name}.{number}", part)
    elif value is None or isinstance(value, Tensor | str | bytes | int | float | torch.dtype):
        yield name, value
    else:
        raise ModelMismatchError(
            f"{name}: the module saves a {type(value).__name__}, by which models cannot be compared; name the parts of "
            'the model that are to be the same, without it: bank.parts = ["encoder.**"]'
        )


def _saves_more(kind: type[nn.Module]) -> bool:
    return (
        kind._save_to_state_dict is not nn.Module._save_to_state_dict
        or kind.get_extra_state is not nn.Module.get_extra_state
    )


def _chosen(parts: Sequence[str], names: Collection[str]) -> set[str]:
    """The names that match any of some globs, with or without what all names begin with."""
    begin = "".join(f"{part}." for part in common_prefix(names))
    chosen: set[str] = set()
    for part in parts:
        hits = {name for name in names if glob_matches(part, name) or glob_matches(part, name.removeprefix(begin))}
        if not hits:
            raise SiteError(
                f"no parameter or buffer of the model matches the part {part!r}; nearest names: "
                f"{nearest_names(part, names)}"
            )
        chosen |= hits
    return chosen
