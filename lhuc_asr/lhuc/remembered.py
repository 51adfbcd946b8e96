"""What was computed of a model's contents, remembered until something of them changes.

SHA-256 over 94 million numbers takes a second or more, and every file that is read is compared with the model. So what
was computed is kept with the marks of the model's tensors: their places in memory, and torch's counts of changes in
place. These do not see a change through ``.data``. So the bits of vectors and other small tensors are kept too, and
those of larger ones are summed up in lines of 64 bytes: all lines in a model of up to 8 MB, evenly spread ones in a
larger one. An optimizer's step, an average of weights or a copied row changes some of them. A few numbers in the
matrices of a large model that are changed through ``.data`` may go unnoticed; otherwise they do not.

Packed weights of quantized layers are objects that are replaced, and whose biases alone can change. What other modules
save beside their tensors is read every time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import gcd
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from lhuc_asr.lhuc.contents import Contents

# Numbers of eight bytes in a line, and lines that are summed up of a model.
_LINE = 8
_LINES = 2**17
# Numbers in a tensor that is kept instead: such tensors are many, and a sum costs more than they have.
_SMALL = 4096
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class _Packed:
    """The packed weights of modules, and their biases, which share memory with what the model computes with."""

    objects: Sequence[torch.ScriptObject]
    biases: Sequence[Tensor]


@dataclass(frozen=True)
class _Known:
    """What was computed, and what the contents were then."""

    marks: Sequence[object]
    sums: Sequence[Tensor]
    packed: _Packed
    value: str


_KNOWN: WeakKeyDictionary[nn.Module, dict[tuple[str, ...], _Known]] = WeakKeyDictionary()


def remembered(model: nn.Module, key: tuple[str, ...], contents: Contents, compute: Callable[[], str]) -> str:
    """What ``compute`` returns of a model's contents, computed once, and again after any change of them.

    Args:
        model: The model.
        key: What is computed.
        contents: What it is computed of.
        compute: Computes it.
    """
    tensors = [tensor for _, tensor in contents.tensors]
    marks = [(name, *_mark(tensor)) for name, tensor in contents.tensors]
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    every = size // (8 * _LINE * _LINES) + 1
    sums = _bits([tensor for tensor in tensors if tensor.numel() <= _SMALL])
    sums += [_sums(tensor.detach(), _step(tensor, every)) for tensor in tensors if tensor.numel() > _SMALL]
    known = _KNOWN.setdefault(model, {}).get(key)
    packed = _packed(contents, known)
    sums += _bits(packed.biases)
    rest = Contents((), [(name, module) for name, module in contents.others if not _objects(module)])
    marks += [(name, _comparable(value)) for name, value in rest.saved()]
    unchanged = known is not None and known.marks == marks and known.packed is packed
    if known is None or not unchanged or not all(map(torch.equal, known.sums, sums)):
        known = _KNOWN[model][key] = _Known(marks, sums, packed, compute())
    return known.value


def _packed(contents: Contents, known: _Known | None) -> _Packed:
    """The packed weights; what is known of them if they are the same objects."""
    holders = [(name, module) for name, module in contents.others if _objects(module)]
    objects = [each for _, module in holders for each in _objects(module)]
    if known is not None and list(map(id, known.packed.objects)) == list(map(id, objects)):
        return known.packed
    saved = [value for _, value in Contents((), holders).saved()]
    return _Packed(objects, [value for value in saved if isinstance(value, Tensor) and value.dim() == 1])


def _objects(module: nn.Module) -> list[torch.ScriptObject]:
    return [value for value in vars(module).values() if isinstance(value, torch.ScriptObject)]


def _comparable(value: object) -> object:
    if isinstance(value, Tensor):
        return value.dtype, value.shape, value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).tolist()
    return value


def _mark(tensor: Tensor) -> tuple[object, ...]:
    version = -1 if tensor.is_inference() else tensor._version  # those of inference mode are not counted
    return tensor.dtype, tensor.shape, tensor.data_ptr(), version


def _bits(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The bits of small tensors, those of a type and a device one after the other."""
    alike: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        alike.setdefault((tensor.dtype, tensor.device), []).append(tensor.detach().reshape(-1))
    return [torch.cat(same).view(_INTEGERS[dtype.itemsize]) for (dtype, _), same in alike.items()]


def _sums(tensor: Tensor, every: int) -> Tensor:
    """Sums of the bits of a tensor's lines, or of one in so many, and of what is left over at its end."""
    flat = tensor.contiguous().reshape(-1)
    flat = flat.view(_INTEGERS[flat.element_size()])
    wide = 8 // flat.element_size()
    if flat.storage_offset() % wide:  # wider numbers would not begin at multiples of eight bytes
        wide = 1
    whole = len(flat) // (wide * _LINE) * wide * _LINE
    lines = (flat[:whole].view(torch.int64) if wide > 1 else flat[:whole]).reshape(-1, _LINE)
    sums = lines[::every].sum(1, dtype=torch.int64)
    return torch.cat([sums, flat[whole:].sum(dtype=torch.int64).reshape(1)]) if whole < len(flat) else sums


def _step(tensor: Tensor, every: int) -> int:
    """Which lines of a tensor are summed up: in a matrix not the same ones of each row, which would miss columns."""
    row = tensor[0].numel() * tensor.element_size() // (8 * _LINE) if tensor.dim() and len(tensor) else 0
    while row and gcd(every, row) > 1:
        every += 1
    return every
