"""The states that an utterance's transcript allows, as arrays for Viterbi.

A transcript becomes a small graph of emitting states without epsilons, in two steps. The first is a graph of
phones: words in order, the pronunciation variants of each in parallel, an optional silence before, between and
after them. In the second a phone becomes one chain of states for each pair of left and right contexts that it
has in the graph: the states of a word's last phone may depend on whether silence or the next word follows. With
monophones each phone has one chain. Arcs are sorted by their destination, so that Viterbi reads a state's
predecessors in one run.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from lhuc_asr.base.errors import AlignmentError
from lhuc_asr.hmm.states import HmmState
from lhuc_asr.hmm.topology import ContextDependency
from lhuc_asr.lang.lexicon import Lexicon
from lhuc_asr.lang.phones import SILENCE

# Neighbouring phones, in the order in which they are spoken; "" is beyond the edge of the utterance.
Context = tuple[str, ...]
# Stands for the phone, or the state, before the first one.
BEGINNING = -1


@dataclass(frozen=True)
class StateGraph:
    """Emitting states and their arcs.

    Attributes:
        pdf: Pdf of each state, shape (N,), int32.
        word: Index of the state's word in the transcript, shape (N,), int32; -1 for silence.
        start: Log probability of beginning in a state, shape (N,), float32; -inf where impossible.
        end: Log probability of ending after a state, shape (N,), float32; -inf where impossible.
        arc_first: Index of each state's first incoming arc, shape (N + 1,), int32.
        arc_source: Source of each arc, shape (A,), int32.
        arc_log_prob: Log probability of each arc, shape (A,), float32.
        shortest: Number of frames of the shortest path.
        phone: Index of each state's phone in ``phones``, shape (N,), int32; a phone's states in different contexts
            have the same.
        phones: Names of the phones that the transcript allows, in the order of the words and of their variants.
        position: Index of the state among those of its phone, shape (N,), int32.
    """

    pdf: np.ndarray
    word: np.ndarray
    start: np.ndarray
    end: np.ndarray
    arc_first: np.ndarray
    arc_source: np.ndarray
    arc_log_prob: np.ndarray
    shortest: int
    phone: np.ndarray
    phones: tuple[str, ...]
    position: np.ndarray

    def with_self_loops(self, before: np.ndarray, now: np.ndarray) -> StateGraph:
        """The same graph for other self-loop probabilities, far faster than a new one.

        Args:
            before: Self-loop probability of each pdf that the graph was built with, shape (K,).
            now: Those that it shall have, shape (K,).
        """
        stay, leave = np.log(now) - np.log(before), np.log1p(-now) - np.log1p(-before)
        source = self.pdf[self.arc_source]
        loops = self.arc_source == np.repeat(np.arange(len(self.pdf)), np.diff(self.arc_first))
        arcs = self.arc_log_prob + np.where(loops, stay[source], leave[source])
        end = self.end + leave[self.pdf]
        return replace(self, arc_log_prob=arcs.astype(np.float32), end=end.astype(np.float32))


def transcript_graph(
    words: Sequence[str], lexicon: Lexicon, topology: ContextDependency, transition_scale: float = 1.0
) -> StateGraph:
    """Build the graph of one utterance.

    Args:
        words: The transcript.
        lexicon: Pronunciations; variants share their word's probability as the lexicon says, equally if it says
            nothing.
        topology: States of each phone.
        transition_scale: Factor on the log probabilities of staying in and leaving HMM states, as in ``build_graph``;
            those of pauses and pronunciations stay as they are. ``with_self_loops`` is for graphs with 1.

    Raises:
        AlignmentError: The transcript is empty or has a word that is not in the lexicon.
    """
    if not words:
        raise AlignmentError("a transcript without words cannot be aligned; leave the utterance out")
    return _ContextExpansion(_PhoneGraph.of(words, lexicon), topology, transition_scale).state_graph()


def linear_states(words: Sequence[str], lexicon: Lexicon, topology: ContextDependency) -> np.ndarray:
    """Pdfs of silence, the first variant of every word, silence: the states of a flat start's equal parts.

    Returns:
        Shape (N,), int32.
    """
    phones = [SILENCE, *(phone for word in words for phone in lexicon.pronunciations[word][0]), SILENCE]
    before = topology.central_position
    after = topology.context_width - 1 - before
    padded = ("",) * before + tuple(phones) + ("",) * after
    windows = [padded[first : first + topology.context_width] for first in range(len(phones))]
    return np.array([state.pdf for window in windows for state in topology.states(window)], dtype=np.int32)


class _Entry(NamedTuple):
    """A way from one phone to another.

    Attributes:
        source: Number of the phone that it leaves.
        log_probs: Log probabilities of the choices on the way (silence or not, which variant), in their order.
    """

    source: int
    log_probs: tuple[float, ...] = ()

    def after(self, log_prob: float) -> _Entry:
        return _Entry(self.source, (*self.log_probs, log_prob))


class _Phone(NamedTuple):
    """A phone of the transcript, the index of its word (-1 for silence), and the ways into it."""

    name: str
    word: int
    entries: list[_Entry]


class _PhoneGraph:
    """The phones that a transcript allows, numbered so that every way leads to a higher number.

    Attributes:
        phones: All phones.
        ends: Ways out of the utterance.
    """

    def __init__(self) -> None:
        self.phones: list[_Phone] = []
        self.ends = [_Entry(BEGINNING)]

    @classmethod
    def of(cls, words: Sequence[str], lexicon: Lexicon) -> _PhoneGraph:
        graph = cls()
        skip, pause = math.log(1 - lexicon.silence_probability), math.log(lexicon.silence_probability)
        for index, word in enumerate(words):
            variants = lexicon.pronunciations.get(word)
            if variants is None:
                raise AlignmentError(
                    f"the word {word!r} is not in the lexicon; add it or choose a policy for such words"
                )
            graph._add_silence(skip, pause)
            likely = [lexicon.probability(word, variant) for variant in variants]
            shares = [math.log(probability) - math.log(sum(likely)) for probability in likely]
            ways = [[end.after(share) for end in graph.ends] for share in shares]
            graph.ends = [graph._add_phones(*each, index) for each in zip(variants, ways, strict=True)]
        graph._add_silence(skip, pause)
        return graph

    def _add_silence(self, skip: float, pause: float) -> None:
        silent = self._add_phones((SILENCE,), [end.after(pause) for end in self.ends], -1)
        self.ends = [*(end.after(skip) for end in self.ends), silent]

    def _add_phones(self, names: Sequence[str], entries: list[_Entry], word: int) -> _Entry:
        """Append phones that follow each other, the first one entered by ``entries``; returns the way out."""
        for name in names:
            self.phones.append(_Phone(name, word, entries))
            entries = [_Entry(len(self.phones) - 1)]
        return entries[0]

    def left_contexts(self, edge: Context) -> list[list[Context]]:
        """All contexts before each phone, as long as ``edge``, which stands before the first one."""
        contexts: list[list[Context]] = []
        for phone in self.phones:
            before: dict[Context, None] = {}  # a set that keeps its order
            for entry in phone.entries:
                if entry.source == BEGINNING:
                    before[edge] = None
                else:
                    source = self.phones[entry.source].name
                    before.update(dict.fromkeys((*left, source)[1:] for left in contexts[entry.source]))
            contexts.append(list(before))
        return contexts

    def right_contexts(self, edge: Context) -> list[list[Context]]:
        """All contexts behind each phone, as long as ``edge``, which stands behind the last one."""
        contexts: list[dict[Context, None]] = [{} for _ in self.phones]
        for end in self.ends:
            contexts[end.source][edge] = None
        for phone, behind in zip(reversed(self.phones), reversed(contexts), strict=True):
            for entry in phone.entries:
                if entry.source != BEGINNING:
                    contexts[entry.source].update(dict.fromkeys((phone.name, *right)[:-1] for right in behind))
        return [list(behind) for behind in contexts]


class _End(NamedTuple):
    """The way out of a state: its log probability, and the fewest frames that lie behind it."""

    state: int
    log_prob: float
    frames: int

    def after(self, log_probs: tuple[float, ...]) -> _End:
        log_prob = self.log_prob
        for choice in log_probs:
            log_prob += choice
        return _End(self.state, log_prob, self.frames)


class _ContextExpansion:
    """A graph of phones, each phone becoming a chain of states for each pair of its contexts."""

    def __init__(self, graph: _PhoneGraph, topology: ContextDependency, transition_scale: float) -> None:
        self.graph = graph
        self.topology = topology
        self.transition_scale = transition_scale
        self.edge_before = ("",) * topology.central_position
        self.edge_behind = ("",) * (topology.context_width - 1 - topology.central_position)
        # The ways out of a phone, by its number, the left context of the phone that follows and its own right one.
        self.ways_out: dict[tuple[int, Context, Context], list[_End]] = {}

    def state_graph(self) -> StateGraph:
        lefts = self.graph.left_contexts(self.edge_before)
        rights = self.graph.right_contexts(self.edge_behind)
        builder = _StateGraphBuilder(self.transition_scale)
        for number, phone in enumerate(self.graph.phones):
            for left, right in itertools.product(lefts[number], rights[number]):
                states = self.topology.states((*left, phone.name, *right))
                way_out = builder.add_chain(states, phone.word, number, self._ways_in(phone, left, right))
                self.ways_out.setdefault((number, (*left, phone.name)[1:], right), []).append(way_out)
        ends = [
            way_out.after(end.log_probs)
            for end in self.graph.ends
            for (number, _, right), ways_out in self.ways_out.items()
            if number == end.source and right == self.edge_behind
            for way_out in ways_out
        ]
        return builder.finish(ends, tuple(phone.name for phone in self.graph.phones))

    def _ways_in(self, phone: _Phone, left: Context, right: Context) -> list[_End]:
        """The ways that lead to a phone's chain: those from chains whose contexts agree with its own."""
        ways = []
        for entry in phone.entries:
            if entry.source != BEGINNING:
                sources = self.ways_out.get((entry.source, left, (phone.name, *right)[:-1]), [])
            else:
                sources = [_End(BEGINNING, 0.0, 0)] if left == self.edge_before else []
            ways += [source.after(entry.log_probs) for source in sources]
        return ways


class _StateGraphBuilder:
    def __init__(self, transition_scale: float) -> None:
        self.transition_scale = transition_scale
        self.pdfs: list[int] = []
        self.words: list[int] = []
        self.phones: list[int] = []
        self.positions: list[int] = []
        self.starts: dict[int, float] = {}
        self.arcs: list[tuple[int, int, float]] = []  # destination, source, log probability

    def add_chain(self, states: Sequence[HmmState], word: int, phone: int, entries: list[_End]) -> _End:
        """Append states that follow each other, the first one entered by ``entries``; returns the way out."""
        first = len(self.pdfs)
        for entry in entries:
            if entry.state == BEGINNING:
                self.starts[first] = entry.log_prob
            else:
                self.arcs.append((first, entry.state, entry.log_prob))
        leave = 0.0
        for state, (pdf, self_loop) in enumerate(states, first):
            self.pdfs.append(pdf)
            self.words.append(word)
            self.phones.append(phone)
            self.positions.append(state - first)
            if state > first:
                self.arcs.append((state, state - 1, leave))
            self.arcs.append((state, state, self.transition_scale * math.log(self_loop)))
            leave = self.transition_scale * math.log1p(-self_loop)
        return _End(len(self.pdfs) - 1, leave, min(entry.frames for entry in entries) + len(states))

    def finish(self, ends: list[_End], phones: tuple[str, ...]) -> StateGraph:
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
            np.array(self.phones, np.int32),
            phones,
            np.array(self.positions, np.int32),
        )
