"""Archives: one file with the rows of very many speakers, which opens in milliseconds.

The file is a safetensors file of memory-mapped tensors. The rows are in the order in which the speakers were
written. Names are looked up by bisection, so that no name or row is read before it is needed.

    r          (S, W)    a row for each speaker: r at all sites side by side, W the sum of the sites' widths
    name_ends  (S,)      int32: the end of each name in ``names``
    rows       (S,)      int32: the row of r of each name
    names      (bytes,)  uint8: the names in UTF-8, in ascending order, one after the other
    extra.<x>  (S, ...)  what else a speaker's file has, such as statistics of the features; 0 for row 0

A bank reads the speakers that it needs from an archive (``bank.open_archive``, ``bank.fetch``). An archive is never
changed. To add speakers, write a new one: ``write_archive(path, chain(archive.states(), bank.states(new)))``.
"""

from __future__ import annotations

import json
import shutil
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import accumulate, chain, islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import torch
from torch import Tensor

from lhuc_asr.base.atomic import atomic_path
from lhuc_asr.base.errors import CheckpointError, SpeakerError
from lhuc_asr.base.tensors import load_format
from lhuc_asr.lhuc.site import Site
from lhuc_asr.lhuc.speaker import (
    SPEAKER_INDEPENDENT,
    SpeakerState,
    check_fits,
    check_speaker_name,
    described_name,
    described_sites,
)

FORMAT = "lhuc-archive-1"
_TYPES = {torch.float32: "F32", torch.float64: "F64"}
# The header comes first, but the number of speakers is known only at the end: it gets room for any number.
_ANY_NUMBER = 10**18


def write_archive(path: Path | str, states: Iterable[SpeakerState]) -> int:
    """Write speakers into an archive, whole or not at all; one speaker at a time is in memory.

    Args:
        path: The archive; an existing file is replaced.
        states: The speakers in any order: ``bank.states()``, ``archive.states()``, files, or several of these
            chained.

    Returns:
        The number of speakers, row 0 included.

    Raises:
        SpeakerError: No speaker is given; or a speaker occurs twice, has amplitudes at no site, or has other extras
            than the first.
        ModelMismatchError: The speakers do not share one model, its sites and one amplitude function.
    """
    rows: dict[bytes, int] = {}
    states = iter(states)
    head = list(islice(states, 2))
    if not head:
        raise SpeakerError(f"{path}: no speaker to write; pass at least one state")
    first = head[-1] if head[0].speaker == SPEAKER_INDEPENDENT else head[0]  # row 0 has no extras
    if not first.sites:
        raise SpeakerError(f"{path}: speaker {first.speaker!r} has amplitudes at no site; leave them out")
    room = len(_header(first, _ANY_NUMBER, _ANY_NUMBER))
    with ExitStack() as stack:
        temporary = stack.enter_context(atomic_path(Path(path)))
        file = stack.enter_context(temporary.open("wb"))
        file.write(bytes(8 + room))
        # Beside the archive, into which they are copied at the end: they may be as large as the rows.
        extras = {name: stack.enter_context(TemporaryFile(dir=temporary.parent)) for name in sorted(first.extras)}
        for state in chain(head, states):
            state.check_fits(first.sites, first.amplitude, first.model)
            if state.speaker:
                check_speaker_name(state.speaker)
            name = state.speaker.encode()
            if name in rows:
                raise SpeakerError(f"{path}: speaker {state.speaker!r} occurs twice; give each speaker one name")
            rows[name] = len(rows)
            file.write(_bytes(_row(state, _dtype(first))))
            own = _extras(state, first)
            for extra, beside in extras.items():
                beside.write(_bytes(own[extra]))
        names = sorted(rows)
        for table in (list(accumulate(map(len, names))), [rows[name] for name in names]):
            file.write(_bytes(torch.tensor(table, dtype=torch.int32)))
        file.write(b"".join(names))
        for beside in extras.values():
            beside.seek(0)
            shutil.copyfileobj(beside, file)
        file.seek(0)
        _write_header(file, _header(first, len(rows), sum(map(len, names))), room)
    return len(rows)


class SpeakerArchive:
    """An archive, open for reading.

    Args:
        path: A file that ``write_archive`` wrote.

    Attributes:
        path: The file.
        sites: The sites of its rows.
        amplitude: Name of the amplitude function.
        model: ``model_hash`` of the model that the rows belong to.
        extras: Names of the extras that each speaker has.

    Raises:
        CheckpointError: The file does not exist, is damaged, or is not an archive.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        # Views of the memory map: nothing is read here.
        tensors, description = load_format(path, "an archive", FORMAT)
        try:
            self.sites = tuple(Site(name, *numbers) for name, numbers in described_sites(description, numbers=3))
            self.amplitude, self.model = (described_name(description, key) for key in ("amplitude", "model"))
            self._r, self._ends, self._order, self._names = (tensors[key] for key in _TENSORS)
        except (KeyError, ValueError) as error:
            raise CheckpointError(
                f"{path}: damaged, its description does not fit ({error!r}); copy it again"
            ) from error
        count, width = self._ends.numel(), sum(site.width for site in self.sites)
        whole = self._ends.shape == self._order.shape == (count,) and self._r.shape == (count, width) and count
        typed = self._r.dtype in _TYPES and self._ends.dtype == self._order.dtype == torch.int32
        if not (whole and typed and self._names.dtype == torch.uint8) or min(s.width for s in self.sites) < 1:
            raise CheckpointError(f"{path}: damaged, its tables do not fit each other; copy it again")
        self._extras = {name.removeprefix(_EXTRA): each for name, each in tensors.items() if name.startswith(_EXTRA)}
        self.extras = tuple(sorted(self._extras))
        whole = all(each.shape[:1] == (count,) and each.dtype in _TYPES for each in self._extras.values())
        if not whole or self._names.shape != (int(self._ends[-1]),):
            raise CheckpointError(f"{path}: damaged, its tables do not fit each other; copy it again")

    def __len__(self) -> int:
        """Number of speakers, row 0 included."""
        return len(self._ends)

    def __contains__(self, speaker: object) -> bool:
        """Whether the archive has a speaker."""
        return isinstance(speaker, str) and self._find(speaker) is not None

    def __iter__(self) -> Iterator[str]:
        """The names, in order."""
        for position in range(len(self)):
            name = self._name(position)
            try:
                yield name.decode()
            except UnicodeDecodeError as error:
                raise CheckpointError(f"{self.path}: damaged, a speaker is called {name!r}; copy it again") from error

    def state(self, speaker: str) -> SpeakerState:
        """Read one speaker.

        Raises:
            SpeakerError: The archive does not have the speaker.
            CheckpointError: The speaker's row is damaged.
        """
        position = self._find(speaker)
        if position is None:
            raise SpeakerError(f"{self.path}: speaker {speaker!r} is not among its {len(self)}; adapt to them first")
        row = int(self._order[position])
        if not 0 <= row < len(self):
            raise CheckpointError(f"{self.path}: damaged at speaker {speaker!r}; copy it again")
        values = self._r[row].clone()
        if not bool(values.isfinite().all()):
            raise CheckpointError(
                f"{self.path}: speaker {speaker!r}: r is not finite, the file is damaged; copy it again, or adapt the "
                "speaker again"
            )
        parts = values.split([site.width for site in self.sites])
        r = {site.name: part for site, part in zip(self.sites, parts, strict=True)}
        extras = {} if speaker == SPEAKER_INDEPENDENT else {name: each[row] for name, each in self._extras.items()}
        kept = {name: each.clone() for name, each in extras.items()}
        return SpeakerState(speaker, self.amplitude, self.model, self.sites, r, kept, str(self.path))

    def states(self, speakers: Iterable[str] | None = None) -> Iterator[SpeakerState]:
        """Read some speakers, one after the other; all of them unless some are named."""
        return (self.state(speaker) for speaker in (self if speakers is None else speakers))

    def check_fits(self, sites: tuple[Site, ...], amplitude: str, model: str) -> None:
        """Refuse an archive that was estimated for something else; see ``check_fits`` in speaker."""
        check_fits(self, f"{self.path}: each speaker", sites, amplitude, model)

    def _find(self, speaker: str) -> int | None:
        name = speaker.encode(errors="replace")
        position = bisect_left(range(len(self)), name, key=self._name)
        return position if position < len(self) and self._name(position) == name else None

    def _name(self, position: int) -> bytes:
        start, end = int(self._ends[position - 1]) if position else 0, int(self._ends[position])
        if not 0 <= start <= end <= len(self._names):
            raise CheckpointError(f"{self.path}: damaged, name {position} is not among the names; copy it again")
        return bytes(self._names[start:end].tolist())


_TENSORS = ("r", "name_ends", "rows", "names")
# Beginning of the names of the tensors of extras.
_EXTRA = "extra."


def _row(state: SpeakerState, dtype: torch.dtype) -> Tensor:
    row = torch.cat([state.r[site.name].detach().cpu() for site in state.sites])
    if row.dtype != dtype:
        raise SpeakerError(f"speaker {state.speaker!r}: r is {row.dtype}, the archive's first {dtype}; convert it")
    return row


def _extras(state: SpeakerState, first: SpeakerState) -> dict[str, Tensor]:
    """The extras of a speaker, which have to be those of the first one; zeros for row 0.

    Raises:
        SpeakerError: They are not, or are of a type that an archive does not have.
    """
    if state.speaker == SPEAKER_INDEPENDENT:
        return {name: torch.zeros_like(value) for name, value in first.extras.items()}
    ours, theirs = (
        {name: (value.dtype, tuple(value.shape)) for name, value in each.extras.items()} for each in (state, first)
    )
    if ours != theirs or any(dtype not in _TYPES for dtype, _ in ours.values()):
        raise SpeakerError(
            f"speaker {state.speaker!r} has the extras {_listed(ours)}, {first.speaker!r} {_listed(theirs)}; an "
            "archive has the same of all, in float32 or float64: adapt them with one version, or leave out those that "
            "differ"
        )
    return {name: value.detach().cpu().contiguous() for name, value in state.extras.items()}


def _listed(extras: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]) -> str:
    return ", ".join(f"{name} {list(shape)} {dtype}" for name, (dtype, shape) in sorted(extras.items())) or "none"


def _dtype(state: SpeakerState) -> torch.dtype:
    return state.r[state.sites[0].name].dtype


def _bytes(tensor: Tensor) -> bytes:
    content: bytes = tensor.numpy().tobytes()
    return content


def _header(like: SpeakerState, count: int, name_bytes: int) -> bytes:
    """The JSON header of a safetensors file: types, shapes, and offsets into the bytes that follow it."""
    dtype, width = _dtype(like), sum(site.width for site in like.sites)
    description = {
        "format": FORMAT,
        "amplitude": like.amplitude,
        "model": like.model,
        "sites": [[site.name, site.width, site.dim, site.batch_dim] for site in like.sites],
    }
    header: dict[str, Any] = {"__metadata__": {"description": json.dumps(description)}}
    shapes = {
        "r": (_TYPES[dtype], dtype.itemsize, [count, width]),
        "name_ends": ("I32", 4, [count]),
        "rows": ("I32", 4, [count]),
        "names": ("U8", 1, [name_bytes]),
    }
    for name, value in sorted(like.extras.items()):
        shapes[_EXTRA + name] = (_TYPES.get(value.dtype, ""), value.dtype.itemsize, [count, *value.shape])
    end = 0
    for name, (kind, size, shape) in shapes.items():
        start, end = end, end + size * torch.Size(shape).numel()
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    return json.dumps(header).encode()


def _write_header(file: IO[bytes], header: bytes, room: int) -> None:
    file.write(room.to_bytes(8, "little") + header.ljust(room))
