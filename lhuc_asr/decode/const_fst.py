"""Transducers as numpy arrays, via OpenFst's ``const`` file format.

kaldifst cannot change all arcs in one operation, and a Python call per arc takes minutes on a decoding graph.
OpenFst's constant transducers are two packed arrays after a small header: numpy reads, changes and writes
millions of arcs in a fraction of a second. Semiring: tropical, 32-bit floats.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import kaldifst
import numpy as np

from lhuc_asr.base.errors import GraphError
from lhuc_asr.base.outputs import nameless_file

ARC = np.dtype([("input", "<i4"), ("output", "<i4"), ("cost", "<f4"), ("target", "<i4")])
_STATE = np.dtype(
    [
        ("final", "<f4"),
        ("first_arc", "<u4"),
        ("arcs", "<u4"),
        ("input_epsilons", "<u4"),
        ("output_epsilons", "<u4"),
    ]
)

_MAGIC = 2125659606
_VERSION = 2
_IS_ALIGNED = 4  # flag: both arrays start at multiples of 16 bytes
_EXPANDED = 1  # property: the number of states is known; other properties are computed on demand
_NAMES = b"".join(struct.pack("<i", len(name)) + name for name in (b"const", b"standard"))
_HEADER = struct.Struct("<iiQqqq")  # version, flags, properties, start, states, arcs


@dataclass(frozen=True, eq=False)
class ArcTable:
    """A transducer: its start, the cost of ending in each state, and its arcs ordered by source.

    Attributes:
        start: Start state.
        final: Cost of ending in a state, infinite where it is not final, shape (states,), float32.
        source: State that each arc leaves, ascending, shape (arcs,), int64.
        arcs: Input label, output label, cost and target state of each arc, shape (arcs,), dtype ``ARC``; label 0
            is epsilon.
    """

    start: int
    final: np.ndarray
    source: np.ndarray
    arcs: np.ndarray

    @classmethod
    def of(cls, arcs: Iterable[tuple[int, int, int, float, int]], final: dict[int, float], start: int = 0) -> ArcTable:
        """The transducer of given arcs (source, input, output, cost, target) and costs of final states."""
        rows = list(arcs)
        source = np.array([row[0] for row in rows], np.int64)
        table = np.array([row[1:] for row in rows], ARC)
        count = 1 + max(start, *final, int(source.max(initial=0)), int(table["target"].max(initial=0)))
        ends = np.full(count, np.inf, np.float32)
        ends[list(final)] = list(final.values())
        return cls(start, ends, source, table).sorted()

    @classmethod
    def from_fst(cls, fst: kaldifst.StdFst) -> ArcTable:
        """The table of any kaldifst transducer.

        Raises:
            GraphError: The temporary file cannot be written.
        """
        with nameless_file() as path:
            if not kaldifst.StdConstFst(fst).write(str(path)):
                raise GraphError("a transducer cannot be written to a temporary file; is the temporary directory full?")
            return cls.read(path)

    @classmethod
    def read(cls, path: Path) -> ArcTable:
        """Read an OpenFst ``const`` file.

        Raises:
            GraphError: The file is of another format, or its length does not fit its header.
        """
        data = path.read_bytes()
        names = struct.pack("<i", _MAGIC) + _NAMES
        if not data.startswith(names) or len(data) < len(names) + _HEADER.size:
            raise GraphError(f"{path}: not an OpenFst const FST with standard arcs; rebuild it")
        _, flags, _, start, states, arcs = _HEADER.unpack_from(data, len(names))
        alignment = 16 if flags & _IS_ALIGNED else 1
        state_offset = _round_up(len(names) + _HEADER.size, alignment)
        arc_offset = _round_up(state_offset + states * _STATE.itemsize, alignment)
        if len(data) != arc_offset + arcs * ARC.itemsize:
            raise GraphError(
                f"{path}: {len(data)} bytes, but {states} states and {arcs} arcs take "
                f"{arc_offset + arcs * ARC.itemsize}; the file is damaged, rebuild it"
            )
        state_table = np.frombuffer(data, _STATE, states, state_offset)
        source = np.repeat(np.arange(states), state_table["arcs"])
        return cls(start, state_table["final"].copy(), source, np.frombuffer(data, ARC, arcs, arc_offset).copy())

    def write(self, path: Path) -> None:
        """Write an OpenFst ``const`` file."""
        states = len(self.final)
        table = np.zeros(states, _STATE)
        table["final"] = self.final
        table["arcs"] = np.bincount(self.source, minlength=states)
        table["first_arc"] = np.cumsum(table["arcs"]) - table["arcs"]
        table["input_epsilons"] = np.bincount(self.source[self.arcs["input"] == 0], minlength=states)
        table["output_epsilons"] = np.bincount(self.source[self.arcs["output"] == 0], minlength=states)
        with path.open("wb") as file:
            file.write(struct.pack("<i", _MAGIC) + _NAMES)
            file.write(_HEADER.pack(_VERSION, 0, _EXPANDED, self.start, states, len(self.arcs)))
            file.write(table.tobytes())
            file.write(self.arcs.tobytes())

    def to_fst(self) -> kaldifst.StdConstFst:
        """This transducer as a kaldifst StdConstFst.

        Raises:
            GraphError: kaldifst cannot read it back from a temporary file.
        """
        with nameless_file() as path:
            self.write(path)
            fst = kaldifst.StdConstFst.read(str(path))
        if fst is None:
            raise GraphError(
                f"a transducer of {len(self.final)} states and {len(self.arcs)} arcs cannot be read back from a "
                "temporary file; is the temporary directory full?"
            )
        return fst

    def sorted(self) -> ArcTable:
        """The same transducer with its arcs ordered by source; the arcs of a state keep their order."""
        order = np.argsort(self.source, kind="stable")
        return ArcTable(self.start, self.final, self.source[order], self.arcs[order])


def read_const_fst(path: Path) -> kaldifst.StdConstFst:
    """Read an OpenFst ``const`` file into kaldifst.

    Raises:
        GraphError: kaldifst cannot read it.
    """
    fst = kaldifst.StdConstFst.read(str(path))
    if fst is None:
        raise GraphError(f"{path}: OpenFst cannot read it; delete its folder and rebuild the graph")
    return fst


def _round_up(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment
