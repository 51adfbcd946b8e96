"""Viterbi against the enumeration of every path, over random graphs and over transcripts."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lhuc_asr.base.errors import AlignmentError
from lhuc_asr.hmm.topology import MonophoneTopology
from lhuc_asr.hmm.transcript import StateGraph, transcript_graph
from lhuc_asr.hmm.viterbi import align
from lhuc_asr.lang.lexicon import Lexicon
from lhuc_asr.lang.phones import PhoneSet

LEXICON = Lexicon({"a": (("A",),), "or": (("B",), ("B", "A"))}, PhoneSet(("SIL",), ("A", "B")), silence_probability=0.3)
TOPOLOGY = MonophoneTopology(LEXICON.phones, np.linspace(0.2, 0.9, 11))


def _random_graph(generator: np.random.Generator, states: int, pdfs: int) -> tuple[StateGraph, np.ndarray]:
    """A random graph, and its arcs as a matrix of log probabilities, source by destination."""
    arcs = np.where(
        generator.random((states, states)) < 0.6, np.log(generator.random((states, states))), -np.inf
    ).astype(np.float32)
    start = np.log(generator.random(states)).astype(np.float32)
    end = np.where(generator.random(states) < 0.6, np.log(generator.random(states)), -np.inf).astype(np.float32)
    destination, source = np.nonzero(np.isfinite(arcs.T))
    return (
        StateGraph(
            generator.integers(0, pdfs, states).astype(np.int32),
            np.zeros(states, np.int32),
            start,
            end,
            np.searchsorted(destination, np.arange(states + 1)).astype(np.int32),
            source.astype(np.int32),
            arcs[source, destination],
            1,
            np.zeros(states, np.int32),
            ("A",),
            np.zeros(states, np.int32),
        ),
        arcs,
    )


def _random_case(seed: int, states: int, frames: int) -> tuple[StateGraph, np.ndarray, np.ndarray]:
    """A random graph, its arcs as a matrix, and scores (T, 3) of an utterance."""
    generator = np.random.default_rng(seed)
    graph, arcs = _random_graph(generator, states, 3)
    return graph, arcs, (4 * generator.standard_normal((frames, 3))).astype(np.float32)


def _score(graph: StateGraph, arcs: np.ndarray, scores: np.ndarray, path: Sequence[int]) -> float:
    """Log probability of a path by its definition."""
    total = float(graph.start[path[0]]) + float(graph.end[path[-1]])
    total += sum(float(arcs[i, j]) for i, j in itertools.pairwise(path))
    return total + sum(float(scores[t, graph.pdf[j]]) for t, j in enumerate(path))


@settings(max_examples=60)
@given(seed=st.integers(0, 100_000), states=st.integers(1, 5), frames=st.integers(1, 5))
def test_the_best_path_of_any_graph(seed, states, frames):
    graph, arcs, scores = _random_case(seed, states, frames)
    best = max(_score(graph, arcs, scores, path) for path in itertools.product(range(states), repeat=frames))
    (path,) = align([graph], [scores])
    if best == -np.inf:
        assert path is None
    else:
        assert path is not None
        assert path.log_prob == pytest.approx(best, rel=1e-9, abs=1e-9)
        # Two paths may be equally good.
        assert _score(graph, arcs, scores, path.states.tolist()) == pytest.approx(best, rel=1e-9, abs=1e-9)
        assert path.pdfs.tolist() == graph.pdf[path.states].tolist()


@settings(max_examples=60)
@given(seed=st.integers(0, 100_000), states=st.integers(1, 12), frames=st.integers(1, 12))
def test_a_narrow_beam_finds_a_path_wherever_there_is_one(seed, states, frames):
    graph, arcs, scores = _random_case(seed, states, frames)
    (best,), (narrow,) = (align([graph], [scores], beam=beam) for beam in (math.inf, 0.5))
    if best is None:
        assert narrow is None
    else:
        assert narrow is not None
        assert narrow.log_prob <= best.log_prob
        assert narrow.log_prob == pytest.approx(_score(graph, arcs, scores, narrow.states.tolist()), abs=1e-6)


def test_a_beam_drops_a_state_that_falls_behind_even_if_it_would_win_later():
    """Two states, the first of which fits worse for five frames and better for the next four."""
    half = np.float32(math.log(0.5))
    chain = StateGraph(
        pdf=np.array([0, 1], np.int32),
        word=np.zeros(2, np.int32),
        start=np.array([0, -np.inf], np.float32),
        end=np.array([-np.inf, half], np.float32),
        arc_first=np.array([0, 1, 3], np.int32),
        arc_source=np.array([0, 0, 1], np.int32),
        arc_log_prob=np.full(3, half),
        shortest=2,
        phone=np.zeros(2, np.int32),
        phones=("A",),
        position=np.arange(2, dtype=np.int32),
    )
    scores = np.zeros((11, 2), np.float32)
    scores[1:6, 1] = 3.0
    scores[6:10] = [20.0, -20.0]
    (wide,), (narrow,) = (align([chain], [scores], beam=beam) for beam in (20.0, 10.0))
    assert wide is not None
    assert narrow is not None
    assert wide.states.tolist() == [0] * 10 + [1]
    assert narrow.states.tolist() == [0] + [1] * 10


def _ways_of_saying(words: list[str]) -> list[tuple[float, list[str]]]:
    """Every choice of silences and variants: its log probability, and its phones."""
    choices: list[list[tuple[float, list[str]]]] = []
    silence = [(np.log(0.7), []), (np.log(0.3), ["SIL"])]
    for word in words:
        variants = LEXICON.pronunciations[word]
        choices += [silence, [(-np.log(len(variants)), list(variant)) for variant in variants]]
    choices.append(silence)
    return [
        (sum(score for score, _ in choice), [phone for _, phones in choice for phone in phones])
        for choice in itertools.product(*choices)
    ]


def _best_by_definition(words: list[str], scores: np.ndarray) -> tuple[float, list[int] | None]:
    """The best score and pdfs over all silences, variants and durations, without any graph."""
    frames, best, best_pdfs = len(scores), -np.inf, None
    for log_prob, phones in _ways_of_saying(words):
        states = [state for phone in phones for state in TOPOLOGY.states((phone,))]
        for borders in itertools.combinations(range(1, frames), len(states) - 1):
            durations = np.diff([0, *borders, frames])
            pdfs = np.repeat([state.pdf for state in states], durations)
            score = log_prob + scores[np.arange(frames), pdfs].astype(np.float64).sum()
            for state, duration in zip(states, durations, strict=True):
                score += (duration - 1) * np.log(state.self_loop) + np.log(1 - state.self_loop)
            if score > best:
                best, best_pdfs = score, pdfs.tolist()
    return best, best_pdfs


@pytest.mark.parametrize("words", [["a"], ["or"], ["a", "or"]])
@pytest.mark.parametrize("frames", [3, 6, 9, 12])
def test_the_best_way_of_saying_a_transcript(words, frames):
    generator = np.random.default_rng(100 * frames + len(words))
    scores = (3 * generator.standard_normal((frames, 11))).astype(np.float32)
    # Half of the time silence fits well, so that it is taken where it is optional.
    scores[:, :5] += generator.choice([0.0, 3.0])
    best, pdfs = _best_by_definition(words, scores)
    (path,) = align([transcript_graph(words, LEXICON, TOPOLOGY)], [scores])
    if pdfs is None:
        assert path is None
    else:
        assert path is not None
        assert path.log_prob == pytest.approx(best, abs=1e-4)
        assert path.pdfs.tolist() == pdfs


def test_an_utterance_that_is_exactly_long_enough_has_one_path():
    graph = transcript_graph(["a", "or"], LEXICON, TOPOLOGY)
    scores = np.zeros((graph.shortest, 11), np.float32)
    (path,) = align([graph], [scores])
    assert path is not None
    assert path.pdfs.tolist() == [5, 6, 7, 8, 9, 10]
    assert align([graph], [scores[:-1]]) == [None]
    assert align([graph], [scores[:0]]) == [None]


def test_states_that_no_frame_can_be_in_are_avoided():
    """Minus infinity is a valid log-likelihood: here it forbids silence."""
    scores = np.zeros((9, 11), np.float32)
    scores[:, :5] = -np.inf
    (path,) = align([transcript_graph(["a"], LEXICON, TOPOLOGY)], [scores])
    assert path is not None
    assert set(path.pdfs.tolist()) == {5, 6, 7}
    scores[4] = -np.inf
    assert align([transcript_graph(["a"], LEXICON, TOPOLOGY)], [scores]) == [None]


@pytest.mark.parametrize("frame", [0, 4, 8])
@pytest.mark.parametrize("pdf", [0, 6, slice(None)])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_not_numbers_are_told_wherever_they_are(frame, pdf, bad):
    """They are neither ignored nor mistaken for an utterance that is too short."""
    scores = np.zeros((9, 11), np.float32)
    scores[frame, pdf] = bad
    with pytest.raises(AlignmentError, match="not numbers; has the training diverged"):
        align([transcript_graph(["a"], LEXICON, TOPOLOGY)], [scores])


def test_too_few_pdfs_are_told():
    with pytest.raises(AlignmentError, match="uses pdf 7, the log-likelihoods have 7 columns"):
        align([transcript_graph(["a"], LEXICON, TOPOLOGY)], [np.zeros((9, 7), np.float32)])


def test_graphs_and_utterances_must_be_as_many():
    with pytest.raises(AlignmentError, match="1 graphs for 0 utterances"):
        align([transcript_graph(["a"], LEXICON, TOPOLOGY)], [])


def test_threads_change_nothing_and_keep_the_order():
    generator = np.random.default_rng(3)
    graphs = [transcript_graph(words, LEXICON, TOPOLOGY) for words in (["a"], ["or", "a"], ["a", "a", "or"])] * 4
    scores = [generator.standard_normal((generator.integers(2, 40), 11)).astype(np.float32) for _ in graphs]
    for one, other in zip(align(graphs, scores, 1), align(graphs, scores, 4), strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert one.log_prob == other.log_prob
            assert np.array_equal(one.states, other.states)
