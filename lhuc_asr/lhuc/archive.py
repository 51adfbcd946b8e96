"""Archives: one file with the rows of very many speakers, which opens in milliseconds.

The file is a safetensors file of four memory-mapped tensors. The rows are in the order in which the speakers were
written. Names are looked up by bisection, so that no name or row is read before it is needed.

    r          (S, W)    a row for each speaker: r at all sites side by side, W the sum of the sites' widths
    name_ends  (S,)      int32: the end of each name in ``names``
    rows       (S,)      int32: the row of r of each name
    names      (bytes,)  uint8: the names in UTF-8, in ascending order, one after the other

A bank reads the speakers that it needs from an archive (``bank.open_archive``, ``bank.fetch``). An archive is never
changed. To add speakers, write a new one: ``write_archive(path, chain(archive.states(), bank.states(new)))``.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from lhuc_asr.base.atomic import atomic_path
from lhuc_asr.base.errors import CheckpointError, SpeakerError
from lhuc_asr.base.tensors import load_format
from lhuc_asr.lhuc.site import Site
from lhuc_asr.lhuc.speaker import SpeakerState, check_fits, check_speaker_name, described_name, described_sites

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
        SpeakerError: There is no speaker, one occurs twice, or one has amplitudes at no site.
        ModelMismatchError: The speakers do not share one model, its sites and one amplitude function.
    """
    rows: dict[bytes, int] = {}
    with atomic_path(Path(path)) as temporary, temporary.open("wb") as file:
        first: SpeakerState | None = None
        for state in states:
            if first is None:
                first = state
                if not first.sites:
                    raise SpeakerError(f"{path}: speaker {state.speaker!r} has amplitudes at no site; leave them out")
                room = len(_header(first, _ANY_NUMBER, _ANY_NUMBER))
                file.write(bytes(8 + room))
            state.check_fits(first.sites, first.amplitude, first.model)
            if state.speaker:
                check_speaker_name(state.speaker)
            name = state.speaker.encode()
            if name in rows:
                raise SpeakerError(f"{path}: speaker {state.speaker!r} occurs twice; give each speaker one name")
            rows[name] = len(rows)
            file.write(_bytes(_row(state, _dtype(first))))
        if first is None:
            raise SpeakerError(f"{path}: no speaker to write; pass at least one state")
        names = sorted(rows)
        for table in (list(accumulate(map(len, names))), [rows[name] for name in names]):
            file.write(_bytes(torch.tensor(table, dtype=torch.int32)))
        file.write(b"".join(names))
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
        if self._names.shape != (int(self._ends[-1]),):
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
        return SpeakerState(speaker, self.amplitude, self.model, self.sites, r, source=str(self.path))

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


def _row(state: SpeakerState, dtype: torch.dtype) -> Tensor:
    row = torch.cat([state.r[site.name].detach().cpu() for site in state.sites])
    if row.dtype != dtype:
        raise SpeakerError(f"speaker {state.speaker!r}: r is {row.dtype}, the archive's first {dtype}; convert it")
    return row


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
    shapes = ((_TYPES[dtype], dtype.itemsize, [count, width]), ("I32", 4, [count]), ("I32", 4, [count]))
    end = 0
    for name, (kind, size, shape) in zip(_TENSORS, (*shapes, ("U8", 1, [name_bytes])), strict=True):
        start, end = end, end + size * torch.Size(shape).numel()
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    return json.dumps(header).encode()


def _write_header(file: IO[bytes], header: bytes, room: int) -> None:
    file.write(room.to_bytes(8, "little") + header.ljust(room))
