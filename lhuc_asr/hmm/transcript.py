"""The states that an utterance's transcript allows, as arrays for Viterbi.

A transcript becomes a small graph of emitting states without epsilons: words in order, each with its
pronunciation variants in parallel, an optional silence before, between and after them. Arcs are sorted by
their destination, so that Viterbi reads a state's predecessors in one run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lhuc_asr.base.errors import AlignmentError
from lhuc_asr.hmm.topology import MonophoneTopology
from lhuc_asr.lang.lexicon import Lexicon
from lhuc_asr.lang.phones import SILENCE


@dataclass(frozen=True)
class StateGraph:
    """Emitting states and their arcs.

    Attributes:
        pdf: Pdf of each state, shape (N,), int32.
        word: Index of the state's word in the transcript, shape (N,), int32; -1 for silence.
        start: Log probability of beginning in a state, shape (N,), float32; -inf where impossible.
        end: Log probability of ending after a state, shape (N,), float32.
        arc_first: Where each state's incoming arcs begin, shape (N + 1,), int32.
        arc_source: Source of each arc, shape (A,), int32.
        arc_log_prob: Its log probability, shape (A,), float32.
        shortest: Frames of the shortest path.
    """

    pdf: np.ndarray
    word: np.ndarray
    start: np.ndarray
    end: np.ndarray
    arc_first: np.ndarray
    arc_source: np.ndarray
    arc_log_prob: np.ndarray
    shortest: int


def transcript_graph(words: Sequence[str], lexicon: Lexicon, topology: MonophoneTopology) -> StateGraph:
    """Build the graph of one utterance.

    Args:
        words: The transcript.
        lexicon: Pronunciations; variants are equally likely.
        topology: States of each phone.

    Raises:
        AlignmentError: No words, or a word that the lexicon lacks.
    """
    if not words:
        raise AlignmentError("a transcript without words cannot be aligned")
    builder = _Builder(topology)
    skip, pause = math.log(1 - lexicon.silence_probability), math.log(lexicon.silence_probability)
    open_ends = [_End(-1, 0.0, 0)]
    for index, word in enumerate(words):
        variants = lexicon.pronunciations.get(word)
        if variants is None:
            raise AlignmentError(f"the word {word!r} is not in the lexicon; add it or choose a policy for such words")
        silent = builder.add_phones((SILENCE,), -1, [end.scaled(pause) for end in open_ends])
        entries = [end.scaled(skip) for end in open_ends] + [silent]
        share = -math.log(len(variants))
        open_ends = [builder.add_phones(variant, index, [end.scaled(share) for end in entries]) for variant in variants]
    silent = builder.add_phones((SILENCE,), -1, [end.scaled(pause) for end in open_ends])
    return builder.finish([end.scaled(skip) for end in open_ends] + [silent])


def linear_states(words: Sequence[str], lexicon: Lexicon, topology: MonophoneTopology) -> np.ndarray:
    """Pdfs of silence, every word's first variant, silence: what a flat start cuts into equal parts.

    Returns:
        Shape (N,), int32.
    """
    phones = [SILENCE, *(phone for word in words for phone in lexicon.pronunciations[word][0]), SILENCE]
    return np.array([state.pdf for phone in phones for state in topology.states((phone,))], dtype=np.int32)


@dataclass(frozen=True, slots=True)
class _End:
    """A place to go on from: a state (-1 the beginning), the log probability, the fewest frames so far."""

    state: int
    log_prob: float
    frames: int

    def scaled(self, log_prob: float) -> _End:
        return _End(self.state, self.log_prob + log_prob, self.frames)


class _Builder:
    def __init__(self, topology: MonophoneTopology) -> None:
        self.topology = topology
        self.pdfs: list[int] = []
        self.words: list[int] = []
        self.starts: dict[int, float] = {}
        self.arcs: list[tuple[int, int, float]] = []  # destination, source, log probability

    def add_phones(self, phones: Sequence[str], word: int, entries: list[_End]) -> _End:
        """Append a chain of phones, entered from ``entries``; returns where it is left."""
        fewest = min(entry.frames for entry in entries)
        for phone in phones:
            for pdf, self_loop in self.topology.states((phone,)):
                state = len(self.pdfs)
                self.pdfs.append(pdf)
                self.words.append(word)
                self.arcs.append((state, state, math.log(self_loop)))
                for entry in entries:
                    if entry.state < 0:
                        self.starts[state] = entry.log_prob
                    else:
                        self.arcs.append((state, entry.state, entry.log_prob))
                fewest += 1
                entries = [_End(state, math.log1p(-self_loop), fewest)]
        return entries[0]

    def finish(self, ends: list[_End]) -> StateGraph:
        count = len(self.pdfs)
        start = np.full(count, -np.inf, np.float32)
        start[list(self.starts)] = list(self.starts.values())
        end = np.full(count, -np.inf, np.float32)
        for last in ends:
            end[last.state] = last.log_prob
        self.arcs.sort()
        destination, source, log_prob = (np.array(column) for column in zip(*self.arcs, strict=True))
        arc_first = np.searchsorted(destination, np.arange(count + 1))
        return StateGraph(
            np.array(self.pdfs, np.int32),
            np.array(self.words, np.int32),
            start,
            end,
            arc_first.astype(np.int32),
            source.astype(np.int32),
            log_prob.astype(np.float32),
            min(last.frames for last in ends),
        )
