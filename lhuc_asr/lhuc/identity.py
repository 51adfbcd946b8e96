"""The hash of a model, which a speaker's file names: computed once, and again after any change of the model.

SHA-256 over 94 million numbers takes a second, and every file that is read is compared with the model. So a model's
hash is remembered, with the marks of its tensors: their places in memory, and torch's counts of changes in place. These
do not see a change through ``.data``. So the bits of lines of 64 bytes are summed up too: of all lines in a model of up
to 16 MB, of evenly spread ones in a larger one. An optimizer's step, an average of weights or a copied row changes some
of them. A few numbers of a large model that are changed through ``.data`` may go unnoticed; otherwise they do not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from lhuc_asr.base.errors import ModelMismatchError
from lhuc_asr.lhuc.processes import is_sharded

# Numbers of eight bytes in a line, and lines that are summed up of a model.
_LINE = 8
_LINES = 2**18
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class _Known:
    """A hash, and what the model was when it was computed."""

    marks: Sequence[tuple[object, ...]]
    sums: Sequence[Tensor]
    hash: str


_KNOWN: WeakKeyDictionary[nn.Module, _Known] = WeakKeyDictionary()


def model_hash(model: nn.Module) -> str:
    """SHA-256 over the names, types, shapes and bytes of a model's parameters and buffers, as 64 hex digits.

    Attached amplitudes are not part of the model and do not change the hash. The second call for the same model takes
    milliseconds, unless something has changed.

    Raises:
        ModelMismatchError: The model's weights are sharded over processes.
    """
    if is_sharded(model):
        raise ModelMismatchError(
            "the model's weights are sharded over processes, so that its hash is not known; load speakers before "
            "fully_shard, keep bank.state_dict(), and bank.save(folder) where the model is whole"
        )
    tensors = sorted([*model.named_parameters(), *model.named_buffers()], key=lambda item: item[0])
    marks = [(name, tensor.dtype, tensor.shape, tensor.data_ptr(), _version(tensor)) for name, tensor in tensors]
    size = sum(tensor.numel() * tensor.element_size() for _, tensor in tensors)
    every = size // (8 * _LINE * _LINES) + 1
    sums = [_sums(tensor.detach(), _step(tensor, every)) for _, tensor in tensors]
    known = _KNOWN.get(model)
    if known is not None and known.marks == marks and all(map(torch.equal, known.sums, sums)):
        return known.hash
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    _KNOWN[model] = _Known(marks, sums, digest.hexdigest())
    return digest.hexdigest()


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version  # those of inference mode are not counted


def _sums(tensor: Tensor, every: int) -> Tensor:
    """Sums of the bits of a tensor's lines, or of one in so many, and of what is left over at its end."""
    flat = tensor.contiguous().reshape(-1)
    flat = flat.view(_INTEGERS[flat.element_size()])
    wide = 8 // flat.element_size()
    if wide > 1 and flat.storage_offset() % wide == 0:  # elsewhere wider numbers would not begin at multiples of eight
        whole = len(flat) // wide * wide
        return torch.cat([_line_sums(flat[:whole].view(torch.int64), every), _line_sums(flat[whole:], 1)])
    return _line_sums(flat, every)


def _line_sums(numbers: Tensor, every: int) -> Tensor:
    whole = len(numbers) // _LINE * _LINE
    lines = numbers[:whole].reshape(-1, _LINE)[::every].sum(1, dtype=torch.int64)
    return torch.cat([lines, numbers[whole:].sum(dtype=torch.int64).reshape(1)])


def _step(tensor: Tensor, every: int) -> int:
    """Which lines of a tensor are summed up: in a matrix not the same ones of each row, which would miss columns."""
    row = tensor[0].numel() * tensor.element_size() // (8 * _LINE) if tensor.dim() and len(tensor) else 0
    while row and gcd(every, row) > 1:
        every += 1
    return every
