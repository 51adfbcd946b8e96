"""Subsets of a lattice's states, each a node of a deterministic lattice, and the arcs between them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lhuc_asr.base.compiled import compiled
from lhuc_asr.decode.pdf_strings import PdfStrings, mixed, table_size

# Differences in graph cost below this are those of rounding: subsets that differ by less are one.
TOLERANCE = 1e-6
# In place of a subset: none yet, and the end of all paths.
NOWHERE, THE_END = -1, -2
# Places of the numbers of elements, arcs, subsets, and arcs on the heap.
ELEMENTS, ARCS, SUBSETS, WAITING = range(4)


class Subsets(NamedTuple):
    """Subsets of a lattice's states, and the arcs between them.

    Arc 0 leads from nowhere to the start. The elements of a subset are those of the arc that made it.

    Attributes:
        node, string, residue: State of each element, its string, and its graph cost less that of the subset's best.
        source, target, word: Subset that each arc leaves, the one that it reaches, and its word. The target is NOWHERE
            while it is not known.
        low, high: First element of each arc, and the one behind its last.
        stem: String that the elements of each arc have in common.
        begin: Frame at which the best path through each arc emits its word.
        graph_cost: Graph cost of each arc.
        before, through: Cost of the path that first takes each arc, up to its end, and of the best path through it.
        maker: The arc that made each subset.
        final: Graph cost of ending in each subset at the last frame, infinite where paths cannot.
        slots: Hash table of subsets, 0 where it is empty, else the subset's number + 1.
        heap: Arcs whose target is not known, a heap by ``through``.
        counts: Number of elements, arcs, subsets, and arcs on the heap.
    """

    node: np.ndarray
    string: np.ndarray
    residue: np.ndarray
    source: np.ndarray
    target: np.ndarray
    word: np.ndarray
    low: np.ndarray
    high: np.ndarray
    stem: np.ndarray
    begin: np.ndarray
    graph_cost: np.ndarray
    before: np.ndarray
    through: np.ndarray
    maker: np.ndarray
    final: np.ndarray
    slots: np.ndarray
    heap: np.ndarray
    counts: np.ndarray

    @classmethod
    def empty(cls, elements: int, arcs: int) -> Subsets:
        """Room for so many elements and arcs; memory that is not written to is not taken."""
        source, target, word, low, high, stem, begin, maker, heap = np.zeros((9, arcs), np.int32)
        graph_cost, before, through, final = np.zeros((4, arcs))
        node, string = np.zeros((2, elements), np.int32)
        residue, slots, counts = np.zeros(elements), np.zeros(table_size(arcs), np.int32), np.zeros(4, np.int64)
        return cls(
            node, string, residue, source, target, word, low, high, stem, begin, graph_cost, before, through, maker,
            final, slots, heap, counts,
        )  # fmt: skip


@compiled
def known_subset(strings: PdfStrings, subsets: Subsets, arc: int) -> tuple[int, int]:
    """The subset that an arc leads to, NOWHERE if there is none yet, and its slot."""
    low, high, stem = subsets.low[arc], subsets.high[arc], subsets.stem[arc]
    key = mixed(np.uint64(strings.length[stem]))
    for element in range(low, high):
        behind = strings.mark[subsets.string[element]] - strings.mark[stem]
        key = mixed((key ^ np.uint64(subsets.node[element])) + behind)
    last = np.uint64(len(subsets.slots) - 1)
    slot = key & last
    while subsets.slots[slot] != 0:
        subset = subsets.slots[slot] - 1
        if _are_equal(strings, subsets, arc, subsets.maker[subset]):
            return int(subset), int(slot)
        slot = (slot + np.uint64(1)) & last
    return int(NOWHERE), int(slot)


@compiled
def _are_equal(strings: PdfStrings, subsets: Subsets, arc: int, other: int) -> bool:
    """Whether two arcs lead to the same elements."""
    stem, other_stem = subsets.stem[arc], subsets.stem[other]
    size, low, other_low = subsets.high[arc] - subsets.low[arc], subsets.low[arc], subsets.low[other]
    if size != subsets.high[other] - other_low or strings.length[stem] != strings.length[other_stem]:
        return False
    for index in range(size):
        one, two = low + index, other_low + index
        behind = strings.mark[subsets.string[one]] - strings.mark[stem]
        if (
            subsets.node[one] != subsets.node[two]
            or abs(subsets.residue[one] - subsets.residue[two]) > TOLERANCE
            or behind != strings.mark[subsets.string[two]] - strings.mark[other_stem]
        ):
            return False
    return True
