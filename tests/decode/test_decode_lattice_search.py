"""Lattice search: it has the best path of the plain search, keeps its bounds, and fails clearly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from three_words import LEXICON, TOPOLOGY, spoken

from lhuc_asr.base.errors import GraphError, SearchError
from lhuc_asr.decode.const_fst import ArcTable
from lhuc_asr.decode.lattice import NO_PDF, best_path, forward_backward
from lhuc_asr.decode.lattice_search import LatticeConfig, LatticeSearcher
from lhuc_asr.decode.packed_graph import PackedGraph
from lhuc_asr.decode.search import SearchConfig, Searcher
from lhuc_asr.decode.token_passing import pass_tokens, smallest

CONFIGS = [
    SearchConfig(),
    SearchConfig(beam=3.0, min_active=0),
    SearchConfig(max_active=12, min_active=5),
    SearchConfig(beam=0.5, min_active=15),
    SearchConfig(insertion_penalty=-4.0, acoustic_scale=0.3),
    SearchConfig(insertion_penalty=6.0),
]


def noise(frames: int, seed: int, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=scale, size=(frames, TOPOLOGY.pdf_count)).astype(np.float32)


@pytest.mark.parametrize("config", CONFIGS)
def test_the_best_path_is_that_of_the_plain_search(graph, config):
    rng = np.random.default_rng(3)
    for trial in range(20):
        words = tuple(rng.choice(LEXICON.words, size=rng.integers(1, 6)))
        scores = spoken(words, rng) + noise(len(spoken(words, rng)), trial, 12.0)
        expected = Searcher(graph, config).search("u", scores)
        summary = LatticeSearcher(graph, config, LatticeConfig()).summarise("u", scores)
        hypothesis = summary.hypothesis
        assert (hypothesis.words, hypothesis.word_frames) == (expected.words, expected.word_frames)
        assert hypothesis.pdfs.tolist() == expected.pdfs.tolist()
        assert hypothesis.cost == pytest.approx(expected.cost, rel=1e-5)
        assert hypothesis.reached_final == expected.reached_final
        assert len(hypothesis.confidences) == len(hypothesis.words)
        assert not summary.narrowed


def test_the_words_at_other_scales_and_penalties_are_those_of_searches_with_them(graph):
    rng, wide = np.random.default_rng(4), LatticeConfig(beam=60.0, max_arcs=100_000)
    settings = [
        SearchConfig(beam=60.0, acoustic_scale=scale, insertion_penalty=penalty)
        for scale in (0.05, 0.1, 0.2)
        for penalty in (-8.0, 0.0, 12.0)
    ]
    searcher = LatticeSearcher(graph, settings[4], wide)
    differing = 0
    for trial in range(10):
        scores = spoken(tuple(rng.choice(LEXICON.words, size=3)), rng)
        scores += noise(len(scores), trial, 20.0)
        expected = [Searcher(graph, each).search("u", scores).words for each in settings]
        assert searcher.words_at("u", scores, settings) == expected
        differing += len(set(expected)) > 1
    assert differing > 3
    assert searcher.words_at("u", scores[:0], settings) == [()] * len(settings)


def test_the_agreement_is_the_share_of_words_that_searches_with_other_scales_find(graph):
    rng, wide = np.random.default_rng(4), LatticeConfig(beam=60.0, max_arcs=100_000)
    searcher = LatticeSearcher(graph, SearchConfig(beam=60.0, acoustic_scale=0.1), wide)
    found = []
    for trial in range(10):
        scores = spoken(tuple(rng.choice(LEXICON.words, size=3)), rng)
        scores += noise(len(scores), trial, 30.0)
        own, *others = [
            Searcher(graph, SearchConfig(beam=60.0, acoustic_scale=0.1 * factor)).search("u", scores).words
            for factor in (1.0, 0.7, 1.4)
        ]
        # Words are equal in their order: the longest common subsequence of two so short sequences.
        expected = np.mean([2 * _longest_common(own, each) / (len(own) + len(each)) for each in others])
        found.append(searcher.summarise("u", scores).agreement)
        assert found[-1] == pytest.approx(expected)
    assert min(found) < 1.0 == max(found)
    assert searcher.summarise("u", scores[:0]).agreement == 1.0


def _longest_common(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    if not one or not other:
        return 0
    if one[0] == other[0]:
        return 1 + _longest_common(one[1:], other[1:])
    return max(_longest_common(one[1:], other), _longest_common(one, other[1:]))


def test_clear_words_are_certain_and_ambiguous_ones_as_probable_as_the_language_model_says(graph):
    scores = np.zeros((7 * 9, TOPOLOGY.pdf_count), np.float32)
    for words in (("cab", "ab", "ab"), ("cab", "ba", "ab")):
        scores[np.arange(len(scores)), spoken(words, np.random.default_rng(0)).argmax(axis=1)] = 50.0
    hypothesis = LatticeSearcher(graph, SearchConfig(), LatticeConfig()).summarise("u", scores).hypothesis
    assert hypothesis.words == ("cab", "ab", "ab")
    # log10 probabilities -0.7 and -0.8; all else of the two is equal.
    assert hypothesis.confidences == pytest.approx((1.0, 1.0 / (1.0 + 10.0**-0.1), 1.0), abs=0.01)


def test_flat_scores_end_in_a_narrowed_lattice_within_its_bounds(graph, caplog):
    scores = noise(300, 1, 0.01)
    bounds = LatticeConfig(beam=50.0, max_arcs=25)
    lattice = LatticeSearcher(graph, SearchConfig(beam=50.0), bounds).search("u-7", scores)
    assert 0.5 * 25 * 300 <= len(lattice.source) <= 25 * 300
    assert lattice.beam < 50.0
    assert "u-7: lattice narrowed to stay within its bounds: beam" in caplog.text
    # The rest is a whole lattice: every arc is on a path, every frame is covered, and the best path is kept.
    posterior = forward_backward(lattice).arc
    assert posterior.min() > 0.0
    taking = lattice.pdf != NO_PDF
    np.testing.assert_allclose(np.bincount(lattice.frame[lattice.source[taking]], posterior[taking]), 1.0, atol=1e-9)
    assert best_path(lattice)[1] == pytest.approx(
        Searcher(graph, SearchConfig(beam=50.0)).search("u-7", scores).cost, rel=1e-4
    )


def test_too_many_tokens_are_searched_again_with_fewer_active_states(graph, caplog):
    scores = noise(300, 1, 0.01)
    wide = LatticeSearcher(graph, SearchConfig(beam=50.0), LatticeConfig(max_arcs=10_000)).search("u", scores)
    lattice = LatticeSearcher(
        graph, SearchConfig(beam=50.0, max_active=64, min_active=2), LatticeConfig(max_tokens=6000)
    ).search("u", scores)
    assert wide.max_active == 7000
    assert lattice.max_active == 16
    assert "16 active states (asked for 64)" in caplog.text


def test_an_utterance_too_long_for_any_search_is_refused(graph):
    searcher = LatticeSearcher(graph, SearchConfig(), LatticeConfig(max_tokens=1000))
    with pytest.raises(
        SearchError, match=r"u-1: with \d+ active states its 2000 frames still take more than 1000 tokens"
    ):
        searcher.search("u-1", noise(2000, 2))


@pytest.mark.parametrize("max_active", [3, 10, 30])
def test_active_states_are_bounded_whatever_the_scores(graph, max_active):
    packed = graph.packed(0.0)
    for scores in (noise(50, 3), np.zeros((50, TOPOLOGY.pdf_count), np.float32)):
        tokens = pass_tokens(packed, scores, 1000.0, max_active, 1, 10**6)
        for t in range(50):
            costs = tokens.cost[tokens.first[t] : tokens.first[t + 1]]
            onwards = costs < tokens.cutoff[t]
            assert 1 <= onwards.sum() <= max_active or np.ptp(costs[onwards]) == 0.0


def test_an_utterance_without_frames_gives_an_empty_summary(graph):
    searcher = LatticeSearcher(graph, SearchConfig(), LatticeConfig())
    summary = searcher.summarise("u", np.zeros((0, TOPOLOGY.pdf_count), np.float32))
    assert (summary.hypothesis.words, summary.arcs, len(summary.frames.pdf)) == ((), 0, 0)
    with pytest.raises(SearchError, match="u: an utterance without frames has no lattice"):
        searcher.search("u", np.zeros((0, TOPOLOGY.pdf_count), np.float32))


def test_too_few_frames_for_a_sentence_are_flagged(graph, caplog):
    scores = spoken(("ab",), np.random.default_rng(0))[:4]
    summary = LatticeSearcher(graph, SearchConfig(), LatticeConfig()).summarise("short", scores)
    assert not summary.hypothesis.reached_final
    assert len(summary.hypothesis.pdfs) == len(summary.frames.pdf) == 4
    assert "short: no path ends a sentence; the best incomplete paths were taken" in caplog.text


def test_scores_that_no_search_can_use_are_refused(graph):
    searcher = LatticeSearcher(graph, SearchConfig(), LatticeConfig())
    with pytest.raises(SearchError, match=r"u-1: scores of shape \(5, 3\)"):
        searcher.search("u-1", np.zeros((5, 3), np.float32))
    with pytest.raises(SearchError, match="u-1: scores of frame 0 are not finite"):
        searcher.search("u-1", np.full((5, TOPOLOGY.pdf_count), np.nan, np.float32))


def test_a_graph_with_a_circle_of_epsilons_is_refused():
    arcs = [(0, 1, 0, 0.0, 1), (1, 0, 0, 0.0, 2), (2, 0, 0, 0.0, 1), (2, 0, 0, 0.0, 3)]
    with pytest.raises(GraphError, match="3 of the graph's 4 states lie on or behind a circle of epsilons"):
        PackedGraph.of(ArcTable.of(arcs, {3: 0.0}), np.array([0], np.int32))


@given(st.lists(st.sampled_from([-1.5, 0.0, 2.0, 3.0, np.inf]) | st.floats(-1e3, 1e3), min_size=1), st.data())
def test_the_smallest_of_a_rank_is_where_sorting_puts_it(values, data):
    rank, array = data.draw(st.integers(0, len(values) - 1)), np.array(values)
    assert smallest(array, rank) == sorted(values)[rank]
    assert array.tolist() == values
