"""The words of least risk: those that differ least, on average, from the word sequences of a lattice.

After H. Xu, D. Povey, L. Mangu, J. Zhu, "Minimum Bayes Risk decoding and system combination based on a recursion for
edit distance" (2011). Words are chosen for places in a row; between them and around them are places of no word. The
recursion aligns all paths with the places at once: the distance of node n and place q is the mean edit distance between
the paths to n and the first q places, where paths that meet in a node go on together. It is therefore an upper bound of
the expected edit distance, and equal to it where paths meet at their ends only. Each round chooses the most probable
word of each place and aligns again, which never raises the bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lhuc_asr.base.compiled import compiled
from lhuc_asr.base.errors import LatticeBoundError
from lhuc_asr.decode.lattice import best_path, forward_backward
from lhuc_asr.decode.word_lattice import WordLattice

# Differences in risk and in probability below this are those of rounding.
TOLERANCE = 1e-9
# Rounds after which the words are taken as they are; mostly two suffice.
MOST_ROUNDS = 50
# Cells of all four tables together, of 8 bytes each.
MOST_CELLS = 100_000_000


@dataclass(frozen=True, eq=False)
class LeastRisk:
    """The words of least risk.

    Attributes:
        words: The words, in order.
        confidences: Probability of each word at its place, 0 to 1.
        begins: Frame at which the graph emits each word, on average over the paths that have it there, ascending.
        risk: Upper bound of the expected number of wrong words: substitutions, insertions and deletions.
        best_path_risk: The same bound for the words of the best path, at least ``risk``.
    """

    words: tuple[str, ...]
    confidences: tuple[float, ...]
    begins: tuple[int, ...]
    risk: float
    best_path_risk: float


def least_risk(utterance: str, lattice: WordLattice, words: Sequence[str]) -> LeastRisk:
    """The words from which the paths of a lattice differ least, as probable as they are at its acoustic scale.

    Args:
        utterance: Id of the utterance.
        lattice: The lattice.
        words: Word of each number in the lattice, as ``DecodingGraph.words``.

    Raises:
        LatticeError: The lattice is of another vocabulary.
        LatticeBoundError: The lattice is so large that the tables would be too large.
    """
    lattice.check_words(words, utterance)
    numbers = np.union1d(lattice.word, 0)
    arcs = _Arcs.of(lattice, numbers)
    aligned = _align(utterance, arcs, _spaced(arcs.word[best_path(lattice)[0]]))
    best_path_risk = aligned.risk
    for _ in range(MOST_ROUNDS):
        again = _align(utterance, arcs, _spaced(aligned.likeliest()))
        if again.risk > aligned.risk - TOLERANCE:
            # Where several alignments are equally good, others may lead further.
            other = _align(utterance, arcs, aligned.places, early=True)
            again = _align(utterance, arcs, _spaced(other.likeliest()))
        if again.risk > aligned.risk - TOLERANCE:
            break
        aligned = again
    spoken = np.flatnonzero(aligned.places)
    chosen = aligned.places[spoken]
    mass = aligned.mass[spoken, chosen]
    begins = np.maximum.accumulate(aligned.begin[spoken, chosen] / np.maximum(mass, np.finfo(np.float64).tiny))
    return LeastRisk(
        tuple(words[number] for number in numbers[chosen]),
        tuple(np.minimum(mass, 1.0).tolist()),
        tuple(np.rint(begins).astype(int).tolist()),
        aligned.risk,
        best_path_risk,
    )


class _Arcs(NamedTuple):
    """What of a lattice is aligned.

    Attributes:
        source, target: Nodes of each arc, shape (A,), int32.
        word: Number of each arc's word among the lattice's, 0 without one, shape (A,), int64.
        begin: Frame at which it is emitted, shape (A,), int32.
        entering: Posterior of each arc among those into its target, shape (A,), float64.
        end: Probability that a path ends in each node, shape (N,), float64.
        words: Number of words that occur, and 1.
    """

    source: np.ndarray
    target: np.ndarray
    word: np.ndarray
    begin: np.ndarray
    entering: np.ndarray
    end: np.ndarray
    words: int

    @classmethod
    def of(cls, lattice: WordLattice, numbers: np.ndarray) -> _Arcs:
        """The arcs of a lattice, and their posteriors."""
        occupancy, nodes = forward_backward(lattice), len(lattice.frame)
        passing = np.bincount(lattice.target, occupancy.arc, minlength=nodes)
        passing[0] = 1.0
        # What comes to a node and does not leave it ends there.
        end = passing - np.bincount(lattice.source, occupancy.arc, minlength=nodes)
        end = np.where(np.isfinite(lattice.final), np.maximum(end, 0.0), 0.0)
        return cls(
            lattice.source, lattice.target, np.searchsorted(numbers, lattice.word), lattice.begin,
            occupancy.entering, end / end.sum(), len(numbers),
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Aligned:
    """The paths of a lattice, aligned with Q places.

    Attributes:
        places: Word of each place, 0 for none, shape (Q,).
        risk: Upper bound of the expected edit distance.
        mass: Probability of each word at each place, shape (Q, W).
        begin: Sum of the frames at which it is emitted there, weighted by probability, shape (Q, W).
    """

    places: np.ndarray
    risk: float
    mass: np.ndarray
    begin: np.ndarray

    def likeliest(self) -> np.ndarray:
        """The most probable word of each place: the present one, where others are as probable."""
        likeliest, here = self.mass.argmax(axis=1), np.arange(len(self.places))
        better = self.mass[here, likeliest] > self.mass[here, self.places] + TOLERANCE
        return np.where(better, likeliest, self.places)


def _spaced(words: np.ndarray) -> np.ndarray:
    """Places for words, without those that are none, and for no word around each."""
    spoken = words[words > 0]
    places = np.zeros(2 * len(spoken) + 1, np.int64)
    places[1::2] = spoken
    return places


def _align(utterance: str, arcs: _Arcs, places: np.ndarray, *, early: bool = False) -> _Aligned:
    """Align the paths with places; where it makes no difference, words with the earlier or with the later places."""
    cells = (len(places) + 1) * (2 * len(arcs.end) + 2 * arcs.words)
    if cells > MOST_CELLS:
        raise LatticeBoundError(
            f"{utterance}: {len(arcs.end)} nodes and {len(places) // 2} words take tables of {cells} cells, more than "
            f"{MOST_CELLS}; narrow the beam of the word lattice"
        )
    return _Aligned(places, *_distances(arcs, places, TOLERANCE if early else -TOLERANCE))


@compiled
def _distances(arcs: _Arcs, places: np.ndarray, preference: float) -> tuple[float, np.ndarray, np.ndarray]:
    """Risk, and probability and weighted frame of each word at each place (the paper's L, gamma and tau)."""
    count = len(places)
    distance, flow = np.zeros((len(arcs.end), count + 1)), np.zeros((len(arcs.end), count + 1))
    mass, begin = np.zeros((count, arcs.words)), np.zeros((count, arcs.words))
    row, moved = np.empty(count + 1), np.empty(count + 1, np.int8)
    for place in range(count):
        distance[0, place + 1] = distance[0, place] + (places[place] != 0)
    for arc in range(len(arcs.source)):
        _take(distance[arcs.source[arc]], arcs.word[arc], places, preference, row, moved)
        target, entering = arcs.target[arc], arcs.entering[arc]
        for place in range(count + 1):
            distance[target, place] += entering * row[place]
    risk = 0.0
    for node in range(len(arcs.end)):
        risk += arcs.end[node] * distance[node, count]
        flow[node, count] = arcs.end[node]
    for arc in range(len(arcs.source) - 1, -1, -1):
        source, target, word = arcs.source[arc], arcs.target[arc], arcs.word[arc]
        _take(distance[source], word, places, preference, row, moved)
        going = 0.0
        for place in range(count, -1, -1):
            going += arcs.entering[arc] * flow[target, place]
            if moved[place] == 0:
                flow[source, place] += going
                going = 0.0
                continue
            here = word if moved[place] == 1 else 0
            mass[place - 1, here] += going
            begin[place - 1, here] += going * arcs.begin[arc]
            if moved[place] == 1:
                flow[source, place - 1] += going
                going = 0.0
    for place in range(count, 0, -1):
        mass[place - 1, 0] += flow[0, place]
        flow[0, place - 1] += flow[0, place]
    return risk, mass, begin


@compiled
def _take(
    before: np.ndarray, word: int, places: np.ndarray, preference: float, row: np.ndarray, moved: np.ndarray
) -> None:
    """Distances behind an arc, and how each comes about: 1, the word is at the place; 0, at none; 2, the place is left.

    Args:
        before: Distances of the arc's source, shape (Q + 1,).
        word: The arc's word.
        places: Word of each place, shape (Q,).
        preference: By how much a place may be the worse for being left: the word then goes to an earlier one.
        row: The distances, shape (Q + 1,).
        moved: How, shape (Q + 1,).
    """
    if word == 0:
        # A place of no word is left to the words around.
        row[:], moved[:] = before, 0
        return
    row[0], moved[0] = before[0] + 1, 0
    for place in range(1, len(places) + 1):
        there = places[place - 1]
        row[place], moved[place] = before[place - 1] + (word != there), 1
        if before[place] + 1 < row[place]:
            row[place], moved[place] = before[place] + 1, 0
        left = row[place - 1] + (there != 0)
        if left < row[place] + preference:
            row[place], moved[place] = min(row[place], left), 2
