"""Sums over the paths of a denominator lattice: forward-backward in the log domain and float64, compiled.

The loops are over arcs and over the frames of arcs. They check nothing: a lattice is checked before
(``denominator.check_lattice``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lhuc_asr.base.acyclic import backward_sums, forward_sums
from lhuc_asr.base.compiled import compiled
from lhuc_asr.nnet.denominator import DenominatorLattice


@dataclass(frozen=True, eq=False)
class ArcScores:
    """What is known of each arc before any sum.

    Attributes:
        log_weight: Log-likelihoods of the arc's frames minus its graph cost, shape (A,), float64.
        right: Number of its frames whose class is the reference's, shape (A,), float64.
        of_reference: Whether the pdfs of all of its frames are the reference's where it is known, shape (A,), bool.
    """

    log_weight: np.ndarray
    right: np.ndarray
    of_reference: np.ndarray


@dataclass(frozen=True, eq=False)
class PathSums:
    """Sums of the weights of paths.

    Attributes:
        log_total: Log of the sum over all paths.
        forward: Log of the sum over the paths from the start to each node, shape (N,), float64.
        backward: Log of the sum over the paths from each node to an end, shape (N,), float64.
        posterior: Probability of each arc, shape (A,), float64.
    """

    log_total: float
    forward: np.ndarray
    backward: np.ndarray
    posterior: np.ndarray


def arc_scores(
    lattice: DenominatorLattice,
    log_likelihoods: np.ndarray,
    reference: np.ndarray,
    classes: np.ndarray,
    right_classes: np.ndarray,
) -> ArcScores:
    """Add up the frames of each arc.

    Args:
        lattice: The lattice.
        log_likelihoods: Scaled log-likelihood of each pdf in each frame, shape (T, K).
        reference: Pdf of each frame, negative where it is not known, shape (T,).
        classes: Class of each pdf, shape (K,).
        right_classes: Class of the reference in each frame, shape (T,).
    """
    return ArcScores(
        *_arc_scores(
            lattice.frame, lattice.source, lattice.graph_cost, lattice.pdf, lattice.offsets, log_likelihoods,
            reference, classes, right_classes,
        )
    )  # fmt: skip


def path_sums(lattice: DenominatorLattice, log_weight: np.ndarray) -> PathSums:
    """Forward-backward.

    Args:
        lattice: The lattice.
        log_weight: Log of the weight of each arc, shape (A,), float64.
    """
    forward = forward_sums(lattice.source, lattice.target, log_weight, len(lattice.frame))
    backward = backward_sums(lattice.source, lattice.target, log_weight, lattice.final)
    log_total = float(backward[0])
    through = forward[lattice.source] + log_weight + backward[lattice.target]
    return PathSums(log_total, forward, backward, np.exp(through - log_total))


def log_total(lattice: DenominatorLattice, log_weight: np.ndarray) -> float:
    """Log of the sum of the weights of all paths; minus infinity where every path has an arc of weight zero."""
    return float(backward_sums(lattice.source, lattice.target, log_weight, lattice.final)[0])


def expected_right(
    lattice: DenominatorLattice, log_weight: np.ndarray, right: np.ndarray, sums: PathSums
) -> tuple[float, np.ndarray]:
    """The expected number of right frames: of all paths, and of those through each arc, shape (A,), float64.

    Nodes have means over the paths to them and from them instead of sums of weight times number, so that all values
    are of the size of the numbers (D. Povey's thesis, "Discriminative training for large vocabulary speech
    recognition", on MPE). The value of an arc that no path takes means nothing.
    """
    return _expected_right(
        lattice.source, lattice.target, log_weight, right, sums.forward, sums.backward, len(lattice.frame)
    )


def add_to_frames(lattice: DenominatorLattice, arc_values: np.ndarray, frames: np.ndarray) -> None:
    """Add a value of each arc, shape (A,), to its pdfs in its frames, in an array of shape (T, K)."""
    _add_to_frames(lattice.frame, lattice.source, lattice.pdf, lattice.offsets, arc_values, frames)


def occupancy_of(lattice: DenominatorLattice, posterior: np.ndarray, pdfs: np.ndarray) -> np.ndarray:
    """Probability of one pdf for each frame, shape (T,), float64.

    Args:
        lattice: The lattice.
        posterior: Probability of each arc, shape (A,).
        pdfs: Pdf of each frame, shape (T,).
    """
    return _occupancy_of(lattice.frame, lattice.source, lattice.pdf, lattice.offsets, posterior, pdfs)


@compiled
def _arc_scores(
    frame: np.ndarray,
    source: np.ndarray,
    graph_cost: np.ndarray,
    pdf: np.ndarray,
    offsets: np.ndarray,
    log_likelihoods: np.ndarray,
    reference: np.ndarray,
    classes: np.ndarray,
    right_classes: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    arcs = len(source)
    log_weight, right, of_reference = -graph_cost, np.zeros(arcs), np.ones(arcs, np.bool_)
    for arc in range(arcs):
        t = frame[source[arc]]
        for place in range(offsets[arc], offsets[arc + 1]):
            log_weight[arc] += np.float64(log_likelihoods[t, pdf[place]])
            right[arc] += classes[pdf[place]] == right_classes[t]
            of_reference[arc] &= reference[t] < 0 or pdf[place] == reference[t]
            t += 1
    return log_weight, right, of_reference


@compiled
def _expected_right(
    source: np.ndarray,
    target: np.ndarray,
    log_weight: np.ndarray,
    right: np.ndarray,
    forward: np.ndarray,
    backward: np.ndarray,
    nodes: int,
) -> tuple[float, np.ndarray]:
    before, after = np.zeros(nodes), np.zeros(nodes)
    for arc in range(len(source)):
        into = forward[target[arc]]
        # Minus infinity at nodes that no path takes. NaN goes on to the result, which tells that training diverged.
        if into != -np.inf:
            share = np.exp(forward[source[arc]] + log_weight[arc] - into)
            before[target[arc]] += share * (before[source[arc]] + right[arc])
    for arc in range(len(source) - 1, -1, -1):
        out_of = backward[source[arc]]
        if out_of != -np.inf:
            share = np.exp(log_weight[arc] + backward[target[arc]] - out_of)
            after[source[arc]] += share * (after[target[arc]] + right[arc])
    through = np.empty(len(source))
    for arc in range(len(source)):
        through[arc] = before[source[arc]] + right[arc] + after[target[arc]]
    return after[0], through


@compiled
def _add_to_frames(
    frame: np.ndarray,
    source: np.ndarray,
    pdf: np.ndarray,
    offsets: np.ndarray,
    arc_values: np.ndarray,
    frames: np.ndarray,
) -> None:
    for arc in range(len(source)):
        t = frame[source[arc]]
        for place in range(offsets[arc], offsets[arc + 1]):
            frames[t, pdf[place]] += arc_values[arc]
            t += 1


@compiled
def _occupancy_of(
    frame: np.ndarray,
    source: np.ndarray,
    pdf: np.ndarray,
    offsets: np.ndarray,
    posterior: np.ndarray,
    pdfs: np.ndarray,
) -> np.ndarray:
    occupancy = np.zeros(frame[-1])
    for arc in range(len(source)):
        t = frame[source[arc]]
        for place in range(offsets[arc], offsets[arc + 1]):
            if pdf[place] == pdfs[t]:
                occupancy[t] += posterior[arc]
            t += 1
    return occupancy
