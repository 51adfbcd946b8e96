"""The denominator lattices of many utterances in one folder, read through memory maps.

Each array of the lattices has a file, ``frame.bin`` to ``pdf.bin``, with the values of one utterance after those of
another. ``index.jsonl`` has the id and the numbers of nodes, arcs and pdfs of each utterance, ``lattices.json`` the
number of the network's pdfs. Offsets of pdfs are not stored: they follow from the frames that the arcs span.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import ConfigDict

from lhuc_asr.base.atomic import atomic_folder, write_json, write_json_lines
from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.documents import DocumentKind, Name, Positive
from lhuc_asr.base.errors import LatticeError
from lhuc_asr.base.mapped import mapped
from lhuc_asr.nnet.denominator import DTYPES, DenominatorLattice, check_lattice, span_offsets

# What the values of each stored array belong to: a node, an arc, or a frame of an arc.
_OWNERS = {"frame": "nodes", "final": "nodes", "source": "arcs", "target": "arcs", "graph_cost": "arcs", "pdf": "pdfs"}


@dataclass(frozen=True, slots=True)
class _Sizes:
    """A row of the index: the id of an utterance, and the sizes of its lattice."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    id: Name
    nodes: Positive
    arcs: Positive
    pdfs: Positive


class _Store(StrictModel):
    """Content of ``lattices.json``."""

    pdf_count: Positive


_REMEDY = "delete the folder and make the lattices again"
_STORES = DocumentKind(_Store, "a store of lattices", LatticeError, _REMEDY)
_INDICES = DocumentKind(_Sizes, "an utterance of a store of lattices", LatticeError, _REMEDY)


class LatticeStore:
    """The denominator lattices of a split on disk.

    All of them are checked when the store is opened, one after the other, so that the compiled loops of training can
    trust them. Neither opening nor reading takes memory that grows with the lattices; the index alone is kept.

    Args:
        folder: Folder of the store.

    Attributes:
        folder: Folder of the store.
        pdf_count: Number of the network's pdfs, K.

    Raises:
        LatticeError: The folder is not a store, its files do not match each other, or a lattice is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pdf_count = _STORES.read(folder / "lattices.json").pdf_count
        self._places: dict[str, dict[str, slice]] = {}
        totals = dict.fromkeys(("nodes", "arcs", "pdfs"), 0)
        for sizes in _INDICES.rows(folder / "index.jsonl"):
            if sizes.id in self._places:
                raise LatticeError(f"{folder}/index.jsonl: {sizes.id} occurs twice; {_REMEDY}")
            counts = {owner: getattr(sizes, owner) for owner in totals}
            self._places[sizes.id] = {owner: slice(totals[owner], totals[owner] + counts[owner]) for owner in totals}
            totals = {owner: totals[owner] + counts[owner] for owner in totals}
        if not self._places:
            raise LatticeError(f"{folder}/index.jsonl: no lattices; {_REMEDY}")
        self._arrays = {
            name: mapped(folder / f"{name}.bin", DTYPES[name], totals[owner], LatticeError, _REMEDY)
            for name, owner in _OWNERS.items()
        }
        for utterance in self:
            self._check(utterance)

    def __len__(self) -> int:
        """Number of lattices."""
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        """The ids of the utterances, in the order in which they were written."""
        return iter(self._places)

    def __contains__(self, utterance: object) -> bool:
        """Whether there is a lattice of an utterance, by its id."""
        return utterance in self._places

    def __getitem__(self, utterance: str) -> DenominatorLattice:
        """The lattice of an utterance; its arrays are views of the files."""
        places = self._places[utterance]
        arrays = {name: np.asarray(self._arrays[name][places[owner]]) for name, owner in _OWNERS.items()}
        return DenominatorLattice(**arrays, offsets=span_offsets(arrays["frame"], arrays["source"], arrays["target"]))

    def frames_of(self, utterance: str) -> int:
        """Number of frames of an utterance, T."""
        return int(self._arrays["frame"][self._places[utterance]["nodes"].stop - 1])

    def _check(self, utterance: str) -> None:
        where, places = f"{self.folder}: {utterance}", self._places[utterance]
        # Before the offsets are made of them.
        nodes = places["nodes"].stop - places["nodes"].start
        for name in ("source", "target"):
            ends = self._arrays[name][places["arcs"]]
            if not 0 <= int(ends.min()) <= int(ends.max()) < nodes:
                raise LatticeError(f"{where}: {name} nodes {ends.min()} to {ends.max()} of {nodes}; {_REMEDY}")
        check_lattice(where, self[utterance], self.pdf_count)


def write_lattices(folder: Path, lattices: Iterable[tuple[str, DenominatorLattice]], pdf_count: int) -> None:
    """Write a store, whole or not at all.

    Args:
        folder: Folder of the store; an existing one is replaced.
        lattices: Id and lattice of each utterance; read once, so that it may be a generator.
        pdf_count: Number of the network's pdfs, K.

    Raises:
        LatticeError: A lattice is not one of the network, an id is repeated, or there are no lattices.
    """
    index: dict[str, _Sizes] = {}
    with atomic_folder(folder) as temporary, ExitStack() as stack:
        files = {name: stack.enter_context((temporary / f"{name}.bin").open("wb")) for name in _OWNERS}
        for utterance, lattice in lattices:
            if utterance in index:
                raise LatticeError(f"{utterance}: two lattices have this id; give each its own")
            check_lattice(utterance, lattice, pdf_count)
            for name, file in files.items():
                file.write(np.ascontiguousarray(getattr(lattice, name)).tobytes())
            index[utterance] = _Sizes(utterance, len(lattice.frame), len(lattice.source), len(lattice.pdf))
        if not index:
            raise LatticeError(f"{folder}: no lattices to store; check that the search finds paths")
        stack.close()
        write_json_lines(temporary / "index.jsonl", map(asdict, index.values()))
        write_json(temporary / "lattices.json", {"pdf_count": pdf_count})
