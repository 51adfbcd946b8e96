"""The identity of a model, which a speaker's file names, and by which it is refused on another model.

On another model the amplitudes mean nothing. The same model is one whose parameters and buffers have the same names,
shapes and values. Some differences do not count:

- The type. A model in float32 and the same one in bfloat16 or float16 are one model. So an identity holds hashes of the
  values as they are, and of the values rounded to each of these types. Two models of different types are compared in
  the narrower type, two models of one type bit by bit. A model in float16 and one in bfloat16 that were both rounded
  from one in float32 have each lost what the other has kept, so they do not count as the same.
- Wrappers, such as those of ``torch.compile`` and DDP, and what else all names begin with (see ``names``).
- Counters, and buffers that are not in the state dict (see ``contents``).

An identity may be that of named parts of a model, for models that share an encoder and have different heads.

Beside the hashes it has two checksums for each module at the top of the model, of names and shapes and of values. They
decide nothing: they tell in the message what of another model is different.

It takes seconds for 94 million numbers, so it is remembered until something of the model changes (see ``remembered``).
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote
from zlib import crc32

import torch
from torch import Tensor, nn

from lhuc_asr.base.errors import ModelMismatchError
from lhuc_asr.lhuc.contents import Contents
from lhuc_asr.lhuc.names import common_prefix, inner, moved_sites
from lhuc_asr.lhuc.processes import is_sharded
from lhuc_asr.lhuc.remembered import remembered
from lhuc_asr.lhuc.site import Site

# Types that a model's values are rounded to.
_ROUNDED = (torch.float32, torch.bfloat16, torch.float16)
_FORM = "3"
# Number of fields after the hash of the values; the second form has no checksums.
_FIELDS = {"2": 5, _FORM: 6}
_CHECKSUMS = re.compile(r"(.+)\.([0-9a-f]{8})\.([0-9a-f]{8})")
# Number of names in a message.
_SHOWN = 6
# The first form: a hash over the names, types, shapes and bytes of parameters and all buffers.
_FIRST_FORM = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class _Identity:
    """An identity, taken apart.

    Attributes:
        exact: Hash of the values as they are.
        rounded: Hashes of the values rounded to each type of ``_ROUNDED``.
        types: Floating-point types of the tensors.
        prefix: What the names of all tensors begin with in the model.
        parts: Globs of the parts that it is of; () for the whole model.
        top: Checksums of each module at the top of the model: ``name.layout.values``; () in the second form.
    """

    exact: str
    rounded: tuple[str, ...]
    types: tuple[str, ...]
    prefix: tuple[str, ...]
    parts: tuple[str, ...]
    top: tuple[str, ...] = ()

    def __str__(self) -> str:
        lists = (_line(part) for part in (self.rounded, self.types, self.prefix, self.parts, self.top))
        return ":".join((self.exact, _FORM, *lists))

    @classmethod
    def of(cls, text: str) -> _Identity | None:
        """Take an identity apart; None if it has another form."""
        exact, *fields = text.split(":")
        if not fields or len(fields) != _FIELDS.get(fields[0]):
            return None
        lists = [tuple(map(unquote, filter(None, field.split(",")))) for field in fields[1:]]
        return cls(exact, *lists) if all(part.isprintable() for part in itertools.chain(*lists)) else None

    @property
    def checksums(self) -> Mapping[str, tuple[str, str]]:
        """A module at the top of the model -> the checksums of its names and shapes, and of its values."""
        matches = (_CHECKSUMS.fullmatch(each) for each in self.top)
        return {match[1]: (match[2], match[3]) for match in matches if match}


def _line(values: Sequence[str]) -> str:
    return ",".join(quote(value, safe="*?[]!") for value in values)


def model_hash(model: nn.Module, parts: Sequence[str] = ()) -> str:
    """The identity of a model, as a line of text that begins with a hash of 64 hex digits.

    Attached amplitudes are not part of the model and do not change it. The second call for the same model takes
    milliseconds, unless something has changed. Compare identities with ``same_model``: the same model in another type
    or wrapper has another text.

    Args:
        model: The model.
        parts: Globs over the names of parameters and buffers, such as ``encoder.**``: only these have to be the same;
            () for the whole model.

    Raises:
        SiteError: A glob matches nothing.
        ModelMismatchError: A module saves something by which models cannot be compared, or the model's weights are
            sharded over processes.
    """
    model, globs = _whole(model), tuple(sorted({parts} if isinstance(parts, str) else set(parts)))
    contents = Contents.of(model, globs)
    return remembered(model, (_FORM, *globs), contents, lambda: str(_identity(contents, globs)))


def hash_like(stored: str, model: nn.Module, parts: Sequence[str] = ()) -> str:
    """The identity of a model in the form of another one, which a file of any age may hold.

    Args:
        stored: The other identity.
        model: The model.
        parts: As for ``model_hash``.

    Raises:
        SiteError: A glob matches nothing.
        ModelMismatchError: A module saves something by which models cannot be compared, or the model's weights are
            sharded over processes.
    """
    if parts or not _FIRST_FORM.fullmatch(stored):
        return model_hash(model, parts)
    model = _whole(model)
    tensors = sorted([*model.named_parameters(), *model.named_buffers()], key=lambda item: item[0])
    return remembered(model, ("1",), Contents(tensors, ()), lambda: _first_form(tensors))


def _whole(model: nn.Module) -> nn.Module:
    """A model without its wrappers, all of whose weights are in this process."""
    if is_sharded(model):
        raise ModelMismatchError(
            "the model's weights are sharded over processes, so that its hash is not known; load speakers before "
            "fully_shard, keep bank.state_dict(), and bank.save(folder) where the model is whole"
        )
    return inner(model)


def hashes_like(stored: Iterable[str], model: nn.Module, parts: Sequence[str] = ()) -> dict[str, str]:
    """``hash_like`` of each of many identities."""
    return {each: hash_like(each, model, parts) for each in set(stored)}


def same_model(stored: str, here: str) -> bool:
    """Whether two identities are of one model, or of the same parts of models."""
    one, other = _Identity.of(stored), _Identity.of(here)
    if one is None or other is None or one.parts != other.parts:
        return stored == here
    if one.exact == other.exact:
        return True
    # Rounded to a type of either they are the same. Of models in one type each bit counts.
    types = {*one.types, *other.types} if one.types != other.types else set()
    rounded = zip(_ROUNDED, one.rounded, other.rounded, strict=True)
    return any(mine == its and _name(dtype) in types for dtype, mine, its in rounded)


def is_model(stored: object, model: nn.Module) -> bool:
    """Whether what a file names as its model, in a form of any age, is this model.

    Raises:
        ModelMismatchError: A module saves something by which models cannot be compared, or the model's weights are
            sharded over processes.
    """
    return isinstance(stored, str) and same_model(stored, hash_like(stored, model))


def parts_of(stored: str) -> tuple[str, ...]:
    """The parts of a model that an identity is of; () for the whole model."""
    identity = _Identity.of(stored)
    return identity.parts if identity else ()


def sites_in(model: nn.Module, sites: Sequence[Site], stored: str, here: str) -> tuple[Site, ...]:
    """The sites of a file by the names that they have in a model of the same weights, which may be wrapped otherwise.

    Args:
        model: The model.
        sites: The sites by the file's names.
        stored: The identity in the file.
        here: The identity of the model.
    """
    before, after = _Identity.of(stored), _Identity.of(here)
    prefixes = (before.prefix, after.prefix) if before and after else ((), ())
    return moved_sites(sites, inner(model), *prefixes)


def differing(stored: str, here: str) -> str:
    """What is to be said of two identities that are not the same, and what to do."""
    difference = f"was adapted on the model {stored[:12]}, this one is {here[:12]}"
    if (theirs := parts_of(stored)) != (ours := parts_of(here)):
        return (
            f"{difference}: it belongs to {_shown(theirs)}, the bank to {_shown(ours)}; set bank.parts = {list(theirs)}"
        )
    remedy = "load the model it belongs to, or adapt the speaker again"
    one, other = _Identity.of(stored), _Identity.of(here)
    if one is None:
        return (
            f"{difference}; {remedy}. The file is of the older form, for which types, wrappers and counters count: if "
            "only these differ, load the speaker onto the model as it was, and save it again"
        )
    if other is None:
        return f"{difference}; {remedy}"
    if {one.types, other.types} == {("bfloat16",), ("float16",)}:
        types = f"in {one.types[0]} and {other.types[0]}"
        return f"{difference}, {types}; load the speaker onto the float32 model, and save it again"
    return f"{difference}{_where(one, other)}; {remedy}{_shared(one, other)}"


def _where(one: _Identity, other: _Identity) -> str:
    """What of the second model is not as in the first."""
    theirs, ours = one.checksums, other.checksums
    if not theirs:
        return ", and the file, of an earlier version, does not say where they differ"
    alike = [name for name in theirs if name in ours and theirs[name][0] == ours[name][0]]
    differences = {
        "missing here": [name for name in theirs if name not in ours],
        "new here": [name for name in ours if name not in theirs],
        "other names or shapes": [name for name in theirs if name in ours and name not in alike],
        "other values": [name for name in alike if theirs[name] != ours[name]] if _values_compare(one, other) else [],
    }
    said = "; ".join(f"{what}: {_few(names)}" for what, names in differences.items() if names)
    return f" ({said or 'other values, which the checksums in bfloat16 do not show'})"


def _values_compare(one: _Identity, other: _Identity) -> bool:
    """Whether equal values have equal checksums, which are made in bfloat16: it is not reached by way of float16."""
    return one.types == other.types or "float16" not in (*one.types, *other.types)


def _shared(one: _Identity, other: _Identity) -> str:
    """What to do where a part of the model is the same, as under a new head."""
    same = [name for name, sums in one.checksums.items() if other.checksums.get(name) == sums]
    if one.parts or not same or len(same) == len(one.checksums) == len(other.checksums):
        return ""
    globs = _few([f"{name}.**" for name in same], quoted=True)
    return (
        "; or, if no site depends on what differs, load the speaker onto its own model, set bank.parts = "
        f"[{globs}], and save it again"
    )


def _few(names: Sequence[str], quoted: bool = False) -> str:
    shown = [repr(name) if quoted else name for name in names]
    return ", ".join(shown if len(shown) <= _SHOWN else [*shown[: _SHOWN - 1], "..."])


def _shown(parts: Sequence[str]) -> str:
    return f"its parts {', '.join(parts)}" if parts else "the whole model"


@dataclass
class _Checksums:
    """Checksums of a part of a model, which grow with each tensor."""

    layout: int = 0
    values: int = 0


class _Digests:
    """Hashes of tensors' values as they are, and rounded; and the checksums of the modules that they are in."""

    def __init__(self) -> None:
        self._top: dict[str, _Checksums] = {}
        self._rounded = {dtype: hashlib.sha256() for dtype in _ROUNDED}
        # float32 holds the values of all types but float64: until one needs that, the values rounded to it are exact.
        self._exact = self._rounded[torch.float32]

    def value(self, name: str, value: object) -> None:
        """Something that is not a tensor."""
        self._text(f"{name} {value!r}\n")
        self._sum(name, "", repr(value).encode())

    def _sum(self, name: str, shape: str, values: bytes | memoryview) -> None:
        sums = self._top.setdefault(name.partition(".")[0], _Checksums())
        sums.layout = crc32(f"{name} {shape}\n".encode(), sums.layout)
        sums.values = crc32(values, sums.values)

    def _text(self, line: str) -> None:
        for digest in {id(digest): digest for digest in (self._exact, *self._rounded.values())}.values():
            digest.update(line.encode())

    def tensor(self, name: str, tensor: Tensor) -> None:
        tensor = (tensor.dequantize() if tensor.is_quantized else tensor).detach().cpu()
        shape = str(list(tensor.shape))
        if not tensor.is_floating_point():
            self._text(f"{name} {shape} {_name(tensor.dtype)} {hashlib.sha256(_bytes(tensor)).hexdigest()}\n")
            self._sum(name, shape, _bytes(tensor))
            return
        self._text(f"{name} {shape}\n")
        single = tensor.float()
        double = tensor.dtype == torch.float64 and not torch.equal(single.double(), tensor)
        if double and self._exact is self._rounded[torch.float32]:
            self._exact = self._exact.copy()
        if self._exact is not self._rounded[torch.float32]:
            self._exact.update(_bytes(tensor if double else single))
        for dtype, digest in self._rounded.items():
            values = _bytes(single.to(dtype))
            digest.update(values)
            if dtype is torch.bfloat16:  # in which models of most types can be compared
                self._sum(name, shape, values)

    def of(self, types: Sequence[str], prefix: tuple[str, ...], parts: tuple[str, ...]) -> _Identity:
        """The identity of what has been hashed."""
        rounded = tuple(digest.hexdigest() for digest in self._rounded.values())
        top = tuple(f"{name}.{sums.layout:08x}.{sums.values:08x}" for name, sums in self._top.items())
        return _Identity(self._exact.hexdigest(), rounded, tuple(sorted(types)), prefix, parts, top)


def _identity(contents: Contents, parts: tuple[str, ...]) -> _Identity:
    digests, prefix = _Digests(), common_prefix(contents.names)
    for name, tensor in contents.tensors:
        digests.tensor(".".join(name.split(".")[len(prefix) :]), tensor)
    for name, value in contents.saved():
        name = ".".join(name.split(".")[len(prefix) :])
        if isinstance(value, Tensor):
            digests.tensor(name, value)
        else:
            digests.value(name, value)
    types = {_name(tensor.dtype) for _, tensor in contents.tensors if tensor.is_floating_point()}
    return digests.of(list(types), prefix, parts)


def _first_form(tensors: Sequence[tuple[str, Tensor]]) -> str:
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(_bytes(tensor.detach().cpu()))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    data: memoryview = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
    return data


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
