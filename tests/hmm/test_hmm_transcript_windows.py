"""Transcript graphs for windows of any width.

Width one is compared with a plain construction from single phones, array for array. Other widths are compared with
the enumeration of everything that a transcript allows: each choice of variants and silences is a linear chain.
"""

import itertools
import math
from dataclasses import dataclass, field, fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lhuc_asr.hmm.states import HmmState
from lhuc_asr.hmm.topology import MonophoneTopology
from lhuc_asr.hmm.transcript import StateGraph, linear_states, transcript_graph
from lhuc_asr.lang.lexicon import Lexicon
from lhuc_asr.lang.phones import SILENCE, SPOKEN_NOISE, PhoneSet

PHONES = PhoneSet((SILENCE, SPOKEN_NOISE), ("A", "B", "C"))
# (context width, central position)
WINDOWS = [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2), (4, 1), (5, 2)]


@dataclass(frozen=True)
class ContextPhones:
    """Every state of every window has a pdf of its own, numbered as the windows are asked for.

    The pdfs of a path therefore tell the windows that it goes through. Speech phones have two states, or one
    where the window begins or ends with B; silence phones have one.
    """

    context_width: int
    central_position: int
    phones: PhoneSet = PHONES
    seen: dict[tuple[tuple[str, ...], int], HmmState] = field(default_factory=dict)

    def states(self, window: tuple[str, ...]) -> tuple[HmmState, ...]:
        assert len(window) == self.context_width
        silent = window[self.central_position] in self.phones.silence
        count = 1 if silent or "B" in (window[0], window[-1]) else 2
        return tuple(self._state(window, position) for position in range(count))

    def _state(self, window: tuple[str, ...], position: int) -> HmmState:
        key = (window, position)
        if key not in self.seen:
            pdf = len(self.seen)
            self.seen[key] = HmmState(pdf, 0.1 + 0.8 * (pdf * 0.6180339887 % 1.0))
        return self.seen[key]


@st.composite
def lexica(draw: st.DrawFn) -> Lexicon:
    """Two or three words with up to three variants of up to three phones, and sometimes one that is spelt SPN."""
    variant = st.lists(st.sampled_from(PHONES.speech), min_size=1, max_size=3).map(tuple)
    variants = st.lists(variant, min_size=1, max_size=3, unique=True).map(tuple)
    pronunciations = draw(st.dictionaries(st.sampled_from("xyz"), variants, min_size=2, max_size=3))
    if draw(st.booleans()):
        pronunciations["noise"] = ((SPOKEN_NOISE,),)
    return Lexicon(pronunciations, PHONES, draw(st.sampled_from([0.1, 0.3, 0.5, 0.77])))


def transcripts(data: st.DataObject, lexicon: Lexicon, longest: int) -> list[str]:
    return data.draw(st.lists(st.sampled_from(lexicon.words), min_size=1, max_size=longest))


def plain_monophone_graph(words: list[str], lexicon: Lexicon, topology: MonophoneTopology) -> StateGraph:
    """The graph built state after state from single phones, without contexts."""
    pdfs, word_of, phone_of, position_of, phones_of, starts, arcs = [], [], [], [], [], {}, []

    def add(phones, word, entries):
        """Append a chain that is entered by (state, log probability, fewest frames); returns where it is left."""
        fewest = min(frames for _, _, frames in entries)
        for phone in phones:
            phones_of.append(phone)
            for position, (pdf, self_loop) in enumerate(topology.states((phone,))):
                state = len(pdfs)
                pdfs.append(pdf)
                phone_of.append(len(phones_of) - 1)
                position_of.append(position)
                word_of.append(word)
                arcs.append((state, state, math.log(self_loop)))
                for source, log_prob, _ in entries:
                    if source < 0:
                        starts[state] = log_prob
                    else:
                        arcs.append((state, source, log_prob))
                fewest += 1
                entries = [(state, math.log1p(-self_loop), fewest)]
        return entries[0]

    def scaled(ends, by):
        return [(state, log_prob + by, frames) for state, log_prob, frames in ends]

    skip, pause = math.log(1 - lexicon.silence_probability), math.log(lexicon.silence_probability)
    ends = [(-1, 0.0, 0)]
    for index, word in enumerate(words):
        silent = add((SILENCE,), -1, scaled(ends, pause))
        entries = [*scaled(ends, skip), silent]
        variants = lexicon.pronunciations[word]
        ends = [add(variant, index, scaled(entries, -math.log(len(variants)))) for variant in variants]
    silent = add((SILENCE,), -1, scaled(ends, pause))
    ends = [*scaled(ends, skip), silent]
    start, end = (np.full(len(pdfs), -np.inf, np.float32) for _ in range(2))
    for state, log_prob in starts.items():
        start[state] = log_prob
    for state, log_prob, _ in ends:
        end[state] = log_prob
    arcs.sort()
    destination, source, log_prob = (np.array(column) for column in zip(*arcs, strict=True))
    return StateGraph(
        np.array(pdfs, np.int32),
        np.array(word_of, np.int32),
        start,
        end,
        np.searchsorted(destination, np.arange(len(pdfs) + 1)).astype(np.int32),
        source.astype(np.int32),
        log_prob.astype(np.float32),
        min(frames for _, _, frames in ends),
        np.array(phone_of, np.int32),
        tuple(phones_of),
        np.array(position_of, np.int32),
    )


@settings(max_examples=150)
@given(lexicon=lexica(), seed=st.integers(0, 10_000), data=st.data())
def test_monophone_graphs_are_the_plain_construction_bit_for_bit(lexicon, seed, data):
    words = transcripts(data, lexicon, 5)
    count = MonophoneTopology.initial(PHONES).pdf_count
    topology = MonophoneTopology(PHONES, np.random.default_rng(seed).uniform(0.02, 0.98, count))
    graph, expected = transcript_graph(words, lexicon, topology), plain_monophone_graph(words, lexicon, topology)
    for array in fields(StateGraph):
        ours, plain = getattr(graph, array.name), getattr(expected, array.name)
        if isinstance(plain, np.ndarray):
            assert ours.dtype == plain.dtype
            assert ours.tobytes() == plain.tobytes(), array.name
        else:
            assert ours == plain


def windows_of(phones: tuple[str, ...], dependency: ContextPhones) -> list[tuple[str, ...]]:
    """The window of each phone, by looking at every position around it."""
    return [
        tuple(
            phones[place + offset] if 0 <= place + offset < len(phones) else ""
            for offset in range(-dependency.central_position, dependency.context_width - dependency.central_position)
        )
        for place in range(len(phones))
    ]


# A path: pdf, word and probability of staying of each state, then the log probability of the whole.
Path = tuple[tuple[tuple[int, int, float], ...], float]


def allowed_paths(words: list[str], lexicon: Lexicon, dependency: ContextPhones) -> list[Path]:
    """Every choice of variants and silences, turned into a linear chain of states."""
    paths = []
    skip, pause = math.log(1 - lexicon.silence_probability), math.log(lexicon.silence_probability)
    for variants in itertools.product(*(lexicon.pronunciations[word] for word in words)):
        for silences in itertools.product((False, True), repeat=len(words) + 1):
            spoken = [(SILENCE, -1)] * silences[0]
            for index, (variant, silent) in enumerate(zip(variants, silences[1:], strict=True)):
                spoken += [(phone, index) for phone in variant] + [(SILENCE, -1)] * silent
            log_prob = sum(pause if silent else skip for silent in silences)
            log_prob -= sum(math.log(len(lexicon.pronunciations[word])) for word in words)
            states = []
            for window, (_, word) in zip(windows_of(tuple(p for p, _ in spoken), dependency), spoken, strict=True):
                for pdf, self_loop in dependency.states(window):
                    states.append((pdf, word, round(self_loop, 5)))
                    log_prob += math.log1p(-self_loop)
            paths.append((tuple(states), log_prob))
    return sorted(paths)


def accepted_paths(graph: StateGraph) -> list[Path]:
    """Every path from a start to an end of the graph that stays in no state, by depth-first search."""
    successors: dict[int, list[tuple[int, float]]] = {}
    staying = {}
    for state in range(len(graph.pdf)):
        for arc in range(graph.arc_first[state], graph.arc_first[state + 1]):
            source, log_prob = int(graph.arc_source[arc]), float(graph.arc_log_prob[arc])
            if source == state:
                assert state not in staying
                staying[state] = round(math.exp(log_prob), 5)
            else:
                successors.setdefault(source, []).append((state, log_prob))
    paths = []
    stack = [((int(state),), float(graph.start[state])) for state in np.flatnonzero(np.isfinite(graph.start))]
    while stack:
        states, log_prob = stack.pop()
        if np.isfinite(graph.end[states[-1]]):
            described = tuple((int(graph.pdf[s]), int(graph.word[s]), staying[s]) for s in states)
            paths.append((described, log_prob + float(graph.end[states[-1]])))
        stack += [((*states, after), log_prob + more) for after, more in successors.get(states[-1], [])]
    return sorted(paths)


@pytest.mark.parametrize(("width", "central"), WINDOWS)
@settings(max_examples=25)
@given(lexicon=lexica(), data=st.data())
def test_the_graph_accepts_what_the_transcript_allows_and_nothing_else(width, central, lexicon, data):
    words = transcripts(data, lexicon, 3)
    dependency = ContextPhones(width, central)
    graph = transcript_graph(words, lexicon, dependency)
    accepted, allowed = accepted_paths(graph), allowed_paths(words, lexicon, dependency)
    assert [states for states, _ in accepted] == [states for states, _ in allowed]
    np.testing.assert_allclose([p for _, p in accepted], [p for _, p in allowed], rtol=1e-4, atol=1e-5)
    assert graph.shortest == min(len(states) for states, _ in allowed)


@pytest.mark.parametrize(("width", "central"), WINDOWS)
def test_the_probabilities_of_all_paths_of_all_lengths_sum_to_one(width, central):
    lexicon = Lexicon({"x": (("A",), ("B", "A")), "y": (("A", "C"), ("C",))}, PHONES, 0.3)
    graph = transcript_graph(["x", "y", "x"], lexicon, ContextPhones(width, central))
    arcs = np.zeros((len(graph.pdf), len(graph.pdf)))
    destination = np.repeat(np.arange(len(graph.pdf)), np.diff(graph.arc_first))
    np.add.at(arcs, (graph.arc_source, destination), np.exp(graph.arc_log_prob.astype(np.float64)))
    start, end = (np.exp(values.astype(np.float64)) for values in (graph.start, graph.end))
    # sum_n start A^n end, by the geometric series.
    assert start @ np.linalg.solve(np.eye(len(start)) - arcs, end) == pytest.approx(1.0, rel=1e-5)
    # No way back.
    assert np.all(graph.arc_source <= destination)


def test_a_phone_before_optional_silence_has_two_right_contexts():
    lexicon = Lexicon({"x": (("A",),), "y": (("C",),)}, PHONES)
    dependency = ContextPhones(3, 1)
    transcript_graph(["x", "y"], lexicon, dependency)
    windows = {window for window, _ in dependency.seen}
    assert {window for window in windows if window[1] == "A"} == {
        (left, "A", right) for left in ("", SILENCE) for right in ("C", SILENCE)
    }
    assert {window for window in windows if window[1] == SILENCE} == {
        ("", SILENCE, "A"), ("A", SILENCE, "C"), ("C", SILENCE, ""),
    }  # fmt: skip


@pytest.mark.parametrize(("width", "central"), WINDOWS)
def test_a_flat_start_is_silence_the_first_variants_silence_in_their_windows(width, central):
    lexicon = Lexicon({"x": (("A", "B"), ("C",)), "y": (("C",),)}, PHONES)
    dependency = ContextPhones(width, central)
    phones = (SILENCE, "A", "B", "C", SILENCE)
    expected = [state.pdf for window in windows_of(phones, dependency) for state in dependency.states(window)]
    pdfs = linear_states(["x", "y"], lexicon, dependency)
    assert pdfs.dtype == np.int32
    assert pdfs.tolist() == expected
