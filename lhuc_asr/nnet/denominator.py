"""Denominator lattices: what an utterance could have been, as sequence training sees it.

An arc spans frames, none, one or the many of a word, and has the pdf of each of them. The probability of a path is
proportional to exp(log-likelihoods - graph costs). Words are not kept: the objectives ask for pdfs alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lhuc_asr.base.compiled import compiled
from lhuc_asr.base.errors import LatticeError
from lhuc_asr.base.numerics import LOG_ZERO

# Sums of costs up to this size stay finite over any number of arcs.
LARGEST_COST = -LOG_ZERO

DTYPES = {
    "frame": np.int32,
    "final": np.float64,
    "source": np.int32,
    "target": np.int32,
    "graph_cost": np.float64,
    "pdf": np.int32,
    "offsets": np.int64,
}

_PROBLEMS = (
    "node {}: its frame is not one from 0 to that of the last node",
    "node {}: the start is not at frame 0, or the last node is there too",
    "node {}: its final cost is neither infinite nor a number up to 1e10",
    "node {}: paths end there before the last frame",
    "arc {}: its source or its target is not a node",
    "arc {}: its source is below that of the arc before it",
    "arc {}: its target is not above its source",
    "arc {}: its target is at an earlier frame than its source",
    "arc {}: it does not have one pdf for each of its frames",
    "arc {}: its graph cost is not a number up to 1e10",
    "arc {}: it has a pdf that the network does not have",
    "node {}: no path leads from there to an end",
)


@dataclass(frozen=True, eq=False)
class DenominatorLattice:
    """An acyclic graph of A arcs and N nodes; node 0 is the start.

    Nodes are numbered so that every arc leads to a higher number. Arcs are ordered by source.

    Attributes:
        frame: Number of frames before each node; 0 at the start, T at the last node, shape (N,), int32.
        final: Cost of ending in each node, natural log, infinite where paths cannot end, shape (N,), float64.
        source, target: Nodes of each arc, shape (A,), int32.
        graph_cost: Cost of language model, lexicon and transitions of each arc, natural log, shape (A,), float64.
        pdf: Pdfs of the frames of all arcs, arc after arc, shape (P,), int32.
        offsets: Place in ``pdf`` of each arc's first frame, and P at the end, shape (A + 1,), int64. The arc has a pdf
            for each of the frames frame[source] .. frame[target] - 1.
    """

    frame: np.ndarray
    final: np.ndarray
    source: np.ndarray
    target: np.ndarray
    graph_cost: np.ndarray
    pdf: np.ndarray
    offsets: np.ndarray

    @property
    def frames(self) -> int:
        """Number of frames, T."""
        return int(self.frame[-1])


def span_offsets(frame: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Places of the arcs' pdfs, where each arc has as many as frames.

    Args:
        frame: Number of frames before each node, shape (N,), int32.
        source, target: Nodes of each arc, shape (A,), int32.

    Returns:
        Shape (A + 1,), int64.

    Example:
        >>> span_offsets(np.array([0, 3, 5]), np.array([0, 1]), np.array([1, 2])).tolist()
        [0, 3, 5]
    """
    spans = frame[target].astype(np.int64) - frame[source]
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(spans)])


def check_lattice(where: str, lattice: DenominatorLattice, pdf_count: int) -> None:
    """Refuse a lattice that forward-backward could not go through. The compiled loops check nothing.

    Args:
        where: Name of the lattice in messages: its utterance, or its file and its utterance.
        lattice: The lattice.
        pdf_count: Number of the network's pdfs, K.

    Raises:
        LatticeError: An array has another type or shape, a number is out of range or not finite, arcs are not in
            order, or no path leads from the start to an end.
    """
    for name, dtype in DTYPES.items():
        array = getattr(lattice, name)
        if array.dtype != dtype or array.ndim != 1:
            raise _refused(
                where, f"{name} is {array.dtype} of shape {array.shape}, expected one axis of {dtype.__name__}"
            )
    arcs, nodes = len(lattice.source), len(lattice.frame)
    lengths = {"final": nodes, "target": arcs, "graph_cost": arcs, "offsets": arcs + 1}
    for name, length in lengths.items():
        if len(getattr(lattice, name)) != length:
            raise _refused(where, f"{name} has {len(getattr(lattice, name))} values, expected {length}")
    if nodes == 0 or lattice.offsets[0] != 0 or lattice.offsets[-1] != len(lattice.pdf):
        raise _refused(where, f"{nodes} nodes, and pdfs that are not all of arcs")
    problem, place = _first_problem(
        lattice.frame, lattice.final, lattice.source, lattice.target, lattice.graph_cost, lattice.pdf,
        lattice.offsets, pdf_count, LARGEST_COST,
    )  # fmt: skip
    if problem >= 0:
        raise _refused(where, _PROBLEMS[problem].format(place))


def _refused(where: str, problem: str) -> LatticeError:
    return LatticeError(f"{where}: not a lattice of this network ({problem}); make the lattices again")


@compiled
def _first_problem(
    frame: np.ndarray,
    final: np.ndarray,
    source: np.ndarray,
    target: np.ndarray,
    graph_cost: np.ndarray,
    pdf: np.ndarray,
    offsets: np.ndarray,
    pdf_count: int,
    largest: float,
) -> tuple[int, int]:
    """Number in ``_PROBLEMS`` of the first problem and its node or arc; -1 and 0 where there is none."""
    nodes, frames = len(frame), frame[-1]
    for node in range(nodes):
        if not 0 <= frame[node] <= frames:
            return 0, node
        # An unordered comparison is false, so that NaN is refused.
        if not (abs(final[node]) <= largest or final[node] == np.inf):
            return 2, node
        if final[node] != np.inf and frame[node] != frames:
            return 3, node
    if frame[0] != 0 or frames == 0:
        return 1, 0
    for arc in range(len(source)):
        if not (0 <= source[arc] < nodes and 0 <= target[arc] < nodes):
            return 4, arc
        if arc > 0 and source[arc] < source[arc - 1]:
            return 5, arc
        if target[arc] <= source[arc]:
            return 6, arc
        span = frame[target[arc]] - frame[source[arc]]
        if span < 0:
            return 7, arc
        # Not by adding: an offset can be so large that the sum overflows.
        if not 0 <= offsets[arc] <= len(pdf) - span or offsets[arc + 1] != offsets[arc] + span:
            return 8, arc
        if not abs(graph_cost[arc]) <= largest:
            return 9, arc
        for place in range(offsets[arc], offsets[arc] + span):
            if not 0 <= pdf[place] < pdf_count:
                return 10, arc
    ends = final != np.inf
    for arc in range(len(source) - 1, -1, -1):
        if ends[target[arc]]:
            ends[source[arc]] = True
    return (-1, 0) if ends[0] else (11, 0)
