"""Lattices: the alternatives of an utterance, and the probabilities of their words and pdfs.

A path's probability is proportional to exp(acoustic_scale * log-likelihood - graph cost). Posteriors of arcs come from
forward-backward over the lattice, in the log domain and float64 (F. Wessel et al., "Confidence measures for large
vocabulary continuous speech recognition", 2001, section III); the posteriors of frames and words are sums of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from lhuc_asr.base.acyclic import backward_sums, forward_sums
from lhuc_asr.base.compiled import compiled

# Stands for the pdf of an arc that takes no frame.
NO_PDF = -1


class WeightedArcs(Protocol):
    """What best paths and posteriors are computed of: the lattices of states and of words."""

    @property
    def source(self) -> np.ndarray:
        """Node that each arc leaves, ascending, shape (A,)."""

    @property
    def target(self) -> np.ndarray:
        """Node that each arc reaches, of a higher number, shape (A,)."""

    @property
    def final(self) -> np.ndarray:
        """Cost of ending in each node, shape (N,)."""

    @property
    def log_weight(self) -> np.ndarray:
        """Log of the weight of each arc, shape (A,)."""


@dataclass(frozen=True, eq=False)
class Lattice:
    """The paths within a beam of the best one, as an acyclic graph of A arcs and N nodes; node 0 is the start.

    Nodes are numbered so that every arc leads to a higher number. Arcs are ordered by source.

    Attributes:
        frame: Number of frames before each node, ascending, 0 .. T, shape (N,), int32.
        final: Cost of ending in each node, infinite where paths cannot end, shape (N,), float64.
        source, target: Nodes of each arc, shape (A,), int32.
        pdf: Pdf of each arc's frame, NO_PDF on an arc that takes no frame, shape (A,), int32.
        word: Number of each arc's word in the graph's table, 0 where it has none, shape (A,), int32.
        graph_cost: Cost of language model, lexicon, transitions and insertion penalty of each arc, natural log,
            shape (A,), float32.
        log_likelihood: Unscaled log-likelihood of each arc's frame, 0 on an arc that takes no frame, shape (A,),
            float32.
        acoustic_scale: Factor on the log-likelihoods.
        reached_final: Whether the paths end sentences; if not, they are the best of the incomplete paths.
        beam: Upper bound of the difference in cost between a path and the best one.
        max_active: Maximum number of active states in the search, before any widening.
    """

    frame: np.ndarray
    final: np.ndarray
    source: np.ndarray
    target: np.ndarray
    pdf: np.ndarray
    word: np.ndarray
    graph_cost: np.ndarray
    log_likelihood: np.ndarray
    acoustic_scale: float
    reached_final: bool
    beam: float
    max_active: int

    @property
    def frames(self) -> int:
        """Number of frames, T."""
        return int(self.frame[-1])

    @property
    def log_weight(self) -> np.ndarray:
        """Log of the weight of each arc, shape (A,), float64."""
        weight: np.ndarray = self.acoustic_scale * self.log_likelihood.astype(np.float64) - self.graph_cost
        return weight

    def rescored(self, acoustic_scale: float, added_penalty: float) -> Lattice:
        """The same paths with another scale, and with a cost added to each word.

        Paths that another scale would have kept in the search are not in it, so that the two scales should be near.
        """
        cost = self.graph_cost + np.float32(added_penalty) * (self.word > 0)
        return replace(self, acoustic_scale=acoustic_scale, graph_cost=cost)


@dataclass(frozen=True, eq=False)
class Occupancy:
    """The result of forward-backward.

    Attributes:
        log_total: Log of the sum of the paths' weights.
        arc: Posterior of each arc, shape (A,), float64.
        entering: Posterior of each arc among the arcs into its target, shape (A,), float64.
    """

    log_total: float
    arc: np.ndarray
    entering: np.ndarray


@dataclass(frozen=True, eq=False)
class FramePosteriors:
    """The most probable pdfs of each frame.

    Attributes:
        pdf: The M most probable pdfs of each frame, the most probable first, shape (T, M), int32.
        posterior: Posteriors of these pdfs, shape (T, M), float32; each row sums to 1, with zeros where fewer than
            M pdfs are possible.
    """

    pdf: np.ndarray
    posterior: np.ndarray

    def of(self, pdfs: np.ndarray) -> np.ndarray:
        """The posterior of one pdf for each frame, shape (T,), float32; 0 where it is not among the most probable.

        Args:
            pdfs: Pdf of each frame, shape (T,).
        """
        posterior: np.ndarray = np.where(self.pdf == pdfs[:, None], self.posterior, np.float32(0.0)).max(axis=1)
        return posterior


def best_path(lattice: WeightedArcs) -> tuple[np.ndarray, float]:
    """Arcs of the best path in their order, int64, and the cost of the path."""
    return _best_path(lattice.source, lattice.target, -lattice.log_weight, lattice.final)


def forward_backward(lattice: WeightedArcs) -> Occupancy:
    """Posteriors of arcs, float64."""
    log_weight = lattice.log_weight
    forward = forward_sums(lattice.source, lattice.target, log_weight, len(lattice.final))
    backward = backward_sums(lattice.source, lattice.target, log_weight, lattice.final)
    log_total = float(backward[0])
    through = forward[lattice.source] + log_weight
    # Rounding at the edge of the beam may cut a node off from the start: its forward weight is minus infinity.
    reached = np.where(np.isfinite(forward), forward, 0.0)[lattice.target]
    return Occupancy(
        log_total=log_total,
        arc=np.exp(through + backward[lattice.target] - log_total),
        entering=np.exp(through - reached),
    )


def frame_posteriors(lattice: Lattice, occupancy: Occupancy, candidates: int) -> FramePosteriors:
    """The ``candidates`` most probable pdfs of each frame, renormalised."""
    taking = lattice.pdf != NO_PDF
    pdf, frame = lattice.pdf[taking], lattice.frame[lattice.source[taking]]
    pdfs = 1 + int(pdf.max(initial=0))
    width = min(candidates, pdfs)
    mass = np.bincount(
        frame.astype(np.int64) * pdfs + pdf, occupancy.arc[taking], minlength=lattice.frames * pdfs
    ).reshape(lattice.frames, pdfs)
    order = np.argsort(-mass, axis=1, kind="stable")[:, :width]
    top = np.take_along_axis(mass, order, axis=1)
    posterior = (top / top.sum(axis=1, keepdims=True)).astype(np.float32)
    return FramePosteriors(np.where(posterior > 0, order, 0).astype(np.int32), posterior)


def word_frames(lattice: Lattice, path: np.ndarray) -> np.ndarray:
    """The frame at which each word of a path is emitted, shape (W,), int32."""
    spoken = path[lattice.word[path] > 0]
    frames: np.ndarray = np.minimum(lattice.frame[lattice.source[spoken]], lattice.frames - 1)
    return frames


def word_confidences(lattice: Lattice, occupancy: Occupancy, path: np.ndarray) -> np.ndarray:
    """The confidence of each word of a path: its probability.

    A word lasts from the frame at which the graph emits it to the frame before the graph emits the next word. At each
    of these frames, the posteriors of all paths whose latest word is the same are added; the confidence is the
    largest sum. This is Wessel's C_max, with the borders of words where the graph emits them. A word whose successor
    is emitted in the same frame is never the latest word of a frame. The sum of the posteriors of the arcs that emit
    the word in its frame is therefore taken instead, where it is larger.

    Args:
        lattice: The lattice.
        occupancy: Posteriors of the lattice.
        path: Arcs of the path, as ``best_path`` gives them.

    Returns:
        Confidence of each word of the path, in order, shape (W,), float64.
    """
    words, begins = lattice.word[path][lattice.word[path] > 0], word_frames(lattice, path)
    ends = np.append(begins[1:], lattice.frames)
    frame = np.minimum(lattice.frame[lattice.source], lattice.frames - 1)
    confidence = np.zeros(len(words))
    for word in np.unique(words):
        emitted = np.bincount(frame, occupancy.arc * (lattice.word == word), minlength=lattice.frames)
        latest = _latest_word(
            lattice.source, lattice.target, lattice.word, lattice.pdf, frame, occupancy.arc, occupancy.entering, word
        )
        for index in np.flatnonzero(words == word):
            begin, end = begins[index], ends[index]
            confidence[index] = max(emitted[begin], latest[begin:end].max(initial=0.0))
    return np.minimum(confidence, 1.0)


@compiled
def _best_path(source: np.ndarray, target: np.ndarray, cost: np.ndarray, final: np.ndarray) -> tuple[np.ndarray, float]:
    nodes = len(final)
    total, entered_by = np.full(nodes, np.inf), np.full(nodes, -1, np.int64)
    total[0] = 0.0
    for arc in range(len(source)):
        new = total[source[arc]] + cost[arc]
        if new < total[target[arc]]:
            total[target[arc]], entered_by[target[arc]] = new, arc
    node = np.argmin(total + final)
    best = total[node] + final[node]
    length, arc = 0, entered_by[node]
    path = np.empty(nodes, np.int64)
    while arc >= 0:
        path[length] = arc
        length += 1
        arc = entered_by[source[arc]]
    return path[:length][::-1].copy(), best


@compiled
def _latest_word(
    source: np.ndarray,
    target: np.ndarray,
    word: np.ndarray,
    pdf: np.ndarray,
    frame: np.ndarray,
    posterior: np.ndarray,
    entering: np.ndarray,
    wanted: int,
) -> np.ndarray:
    """Posterior, in each frame, of the paths whose latest word is the wanted one, shape (T,)."""
    share = np.zeros(target.max() + 1)  # share of the paths into a node whose latest word is the wanted one
    mass = np.zeros(frame[-1] + 1)
    for arc in range(len(source)):
        latest = share[source[arc]] if word[arc] == 0 else np.float64(word[arc] == wanted)
        share[target[arc]] += entering[arc] * latest
        if pdf[arc] != NO_PDF:
            mass[frame[arc]] += posterior[arc] * latest
    return mass
