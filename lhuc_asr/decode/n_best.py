"""The n best word sequences of a word lattice.

Paths are extended arc by arc in the order of the cost of their best end, which a backward pass knows exactly (P. Hart,
N. Nilsson, B. Raphael, "A formal basis for the heuristic determination of minimum cost paths", 1968): whole paths come
in the order of their cost, and each is another word sequence, because a word lattice is deterministic.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from lhuc_asr.base.acyclic import costs_to_the_end
from lhuc_asr.base.compiled import compiled
from lhuc_asr.base.errors import LatticeError
from lhuc_asr.decode.heap import pop, push
from lhuc_asr.decode.word_lattice import WordLattice

# A list takes about as many kilobytes as it has sequences times words.
MOST = 100_000
# In place of an arc: the path has ended, or not begun.
ENDED, NOT_BEGUN = -1, -2


@dataclass(frozen=True, eq=False)
class RankedPath:
    """A path from the start of a word lattice to an end.

    Attributes:
        arcs: Arcs of the path, in order, int64.
        graph_cost: Graph cost, that of the end included.
        log_likelihood: Unscaled log-likelihood of the frames.
        cost: The graph cost less the scaled log-likelihood.
    """

    arcs: np.ndarray
    graph_cost: float
    log_likelihood: float
    cost: float


def best_paths(lattice: WordLattice, count: int) -> list[RankedPath]:
    """The best paths, the best first, each with another word sequence: ``count``, or all where there are fewer.

    There are none where no path leads to an end.

    Args:
        lattice: The word lattice; ``lattice.words_of`` gives the words of a path.
        count: Number of paths, 1 to ``MOST``.

    Raises:
        LatticeError: ``count`` is not in this range.
    """
    if not 1 <= count <= MOST:
        raise LatticeError(f"the best {count} paths: ask for 1 to {MOST}")
    arcs, offset = _best_paths(lattice.source, lattice.target, -lattice.log_weight, lattice.final, count)
    paths = []
    for begin, behind in pairwise(offset):
        path = arcs[begin:behind]
        end = lattice.target[path[-1]] if len(path) else 0
        graph_cost = float(lattice.graph_cost[path].sum() + lattice.final[end])
        log_likelihood = float(lattice.log_likelihood[path].sum())
        paths.append(RankedPath(path, graph_cost, log_likelihood, graph_cost - lattice.acoustic_scale * log_likelihood))
    return paths


@compiled
def _best_paths(
    source: np.ndarray, target: np.ndarray, cost: np.ndarray, final: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Arcs of the best paths, one path after the other, and the index of each one's first arc."""
    nodes = len(final)
    first, rest = np.searchsorted(source, np.arange(nodes + 1)), costs_to_the_end(source, target, cost, final)
    # Beginnings of paths: the last arc, the beginning before it, its cost, and that of its best end.
    arcs, before = np.empty(1 << 10, np.int64), np.empty(1 << 10, np.int64)
    so_far, through, heap = np.empty(1 << 10), np.empty(1 << 10), np.empty(1 << 10, np.int64)
    arcs[0], before[0], so_far[0], through[0], heap[0] = NOT_BEGUN, -1, 0.0, rest[0], 0
    made, waiting, ended = 1, 1, 0
    ends = np.empty(count, np.int64)
    taken = np.zeros(nodes, np.int64)  # how often each node was left: what comes later is on none of the best paths
    while waiting > 0 and ended < count:
        path = pop(heap, waiting, through)
        waiting -= 1
        if arcs[path] == ENDED:
            ends[ended] = path
            ended += 1
            continue
        node = 0 if arcs[path] == NOT_BEGUN else target[arcs[path]]
        taken[node] += 1
        if taken[node] > count:
            continue
        for out in range(first[node] - 1, first[node + 1]):
            arc = out if out >= first[node] else ENDED
            new = so_far[path] + (cost[arc] if arc != ENDED else final[node])
            best = new + (rest[target[arc]] if arc != ENDED else 0.0)
            if best == np.inf:
                continue
            if made == len(arcs):
                arcs, before, heap = _doubled(arcs), _doubled(before), _doubled(heap)
                so_far, through = _doubled(so_far), _doubled(through)
            arcs[made], before[made], so_far[made], through[made] = arc, path, new, best
            push(heap, waiting, through, made)
            made, waiting = made + 1, waiting + 1
    return _unwound(arcs, before, ends[:ended])


@compiled
def _unwound(arcs: np.ndarray, before: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    offset = np.zeros(len(ends) + 1, np.int64)
    for number in range(len(ends)):
        path, length = before[ends[number]], 0
        while arcs[path] != NOT_BEGUN:
            path, length = before[path], length + 1
        offset[number + 1] = offset[number] + length
    unwound = np.empty(offset[-1], np.int64)
    for number in range(len(ends)):
        path, place = before[ends[number]], offset[number + 1]
        while arcs[path] != NOT_BEGUN:
            place -= 1
            unwound[place], path = arcs[path], before[path]
    return unwound, offset


@compiled
def _doubled(values: np.ndarray) -> np.ndarray:
    """A copy of an array with room for twice as many."""
    more = np.empty(2 * len(values), values.dtype)
    more[: len(values)] = values
    return more
