"""Transcript graphs: their paths are a probability distribution over the transcript's state sequences."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhuc_asr.base.errors import AlignmentError
from lhuc_asr.hmm.topology import MonophoneTopology
from lhuc_asr.hmm.transcript import StateGraph, linear_states, transcript_graph
from lhuc_asr.lang.lexicon import Lexicon
from lhuc_asr.lang.phones import PhoneSet

LEXICON = Lexicon(
    {"a": (("A",),), "ab": (("A", "B"),), "or": (("A",), ("B",), ("B", "A"))},
    PhoneSet(("SIL",), ("A", "B")),
    silence_probability=0.3,
)
WORDS = st.lists(st.sampled_from(["a", "ab", "or"]), min_size=1, max_size=5)


def _topology(seed: int) -> MonophoneTopology:
    initial = MonophoneTopology.initial(LEXICON.phones)
    return MonophoneTopology(LEXICON.phones, np.random.default_rng(seed).uniform(0.05, 0.95, initial.pdf_count))


def _transitions(graph: StateGraph) -> np.ndarray:
    """Probabilities of going from state i to state j, shape (N, N)."""
    matrix = np.zeros((len(graph.pdf), len(graph.pdf)))
    for state in range(len(graph.pdf)):
        for arc in range(graph.arc_first[state], graph.arc_first[state + 1]):
            matrix[graph.arc_source[arc], state] += np.exp(np.float64(graph.arc_log_prob[arc]))
    return matrix


@given(words=WORDS, seed=st.integers(0, 1000))
def test_each_state_is_left_with_probability_one(words, seed):
    graph = transcript_graph(words, LEXICON, _topology(seed))
    leaving = _transitions(graph).sum(1) + np.exp(graph.end.astype(np.float64))
    np.testing.assert_allclose(leaving, 1.0, rtol=1e-6)
    assert np.exp(graph.start.astype(np.float64)).sum() == pytest.approx(1.0, rel=1e-6)


@given(words=WORDS, seed=st.integers(0, 1000))
def test_the_probabilities_of_all_paths_of_all_lengths_sum_to_one(words, seed):
    graph = transcript_graph(words, LEXICON, _topology(seed))
    start, end = (np.exp(values.astype(np.float64)) for values in (graph.start, graph.end))
    # sum_n start A^n end, by the geometric series.
    total = start @ np.linalg.solve(np.eye(len(start)) - _transitions(graph), end)
    assert total == pytest.approx(1.0, rel=1e-5)


@given(words=WORDS, seed=st.integers(0, 1000))
def test_other_self_loops_give_the_graph_that_is_built_with_them(words, seed):
    before, now = _topology(seed), _topology(seed + 1)
    changed = transcript_graph(words, LEXICON, before).with_self_loops(before.self_loop, now.self_loop)
    built = transcript_graph(words, LEXICON, now)
    np.testing.assert_allclose(changed.arc_log_prob, built.arc_log_prob, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(changed.end, built.end, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(changed.arc_source, built.arc_source)
    assert np.abs(changed.arc_log_prob - transcript_graph(words, LEXICON, before).arc_log_prob).max() > 1e-3


@given(words=WORDS)
def test_the_shortest_path_is_the_shortest(words):
    graph = transcript_graph(words, LEXICON, _topology(0))
    reachable, frames = np.isfinite(graph.start), 1
    arcs = _transitions(graph) > 0
    while not (reachable & np.isfinite(graph.end)).any():
        reachable, frames = reachable @ arcs, frames + 1
    assert graph.shortest == frames
    assert graph.shortest == 3 * sum(min(len(variant) for variant in LEXICON.pronunciations[word]) for word in words)


@given(words=WORDS)
def test_states_are_the_words_in_order_with_silences_between(words):
    graph = transcript_graph(words, LEXICON, _topology(0))
    for index, word in enumerate(words):
        states = sum(3 * len(variant) for variant in LEXICON.pronunciations[word])
        assert np.count_nonzero(graph.word == index) == states
    silence = graph.word == -1
    assert np.count_nonzero(silence) == 5 * (len(words) + 1)
    assert np.array_equal(silence, graph.pdf < 5)
    assert graph.arc_first[0] == 0
    assert graph.arc_first[-1] == len(graph.arc_source)
    # No way back, and no way over a word.
    destination = np.repeat(np.arange(len(graph.pdf)), np.diff(graph.arc_first))
    assert np.all(graph.arc_source <= destination)


def test_variants_share_a_words_probability():
    graph = transcript_graph(["or"], LEXICON, _topology(0))
    first = [state for state in np.flatnonzero(np.isfinite(graph.start)) if graph.word[state] == 0]
    assert len(first) == 3
    np.testing.assert_allclose(np.exp(graph.start[first]), 0.7 / 3, rtol=1e-6)


def test_variants_share_it_as_the_lexicon_says():
    lexicon = replace(LEXICON, probabilities={("or", ("A",)): 0.5, ("or", ("B", "A")): 0.25})
    graph = transcript_graph(["or"], lexicon, _topology(0))
    first = [state for state in np.flatnonzero(np.isfinite(graph.start)) if graph.word[state] == 0]
    np.testing.assert_allclose(np.exp(graph.start[first]), 0.7 * np.array([0.5, 1.0, 0.25]) / 1.75, rtol=1e-6)


def test_a_flat_start_is_silence_the_first_variants_silence():
    states = linear_states(["or", "ab"], LEXICON, _topology(0))
    silence, a, b = [0, 1, 2, 3, 4], [5, 6, 7], [8, 9, 10]
    assert states.tolist() == [*silence, *a, *a, *b, *silence]


def test_a_transcript_without_words_is_refused():
    with pytest.raises(AlignmentError, match="without words"):
        transcript_graph([], LEXICON, _topology(0))


def test_an_unknown_word_is_named():
    with pytest.raises(AlignmentError, match="the word 'zebra' is not in the lexicon"):
        transcript_graph(["a", "zebra"], LEXICON, _topology(0))
