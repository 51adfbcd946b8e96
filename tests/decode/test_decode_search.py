"""Searching: words are recovered, and failures are clear."""

import numpy as np
import pytest
from three_words import TOPOLOGY, spoken

from lhuc_asr.base.config import parse_config
from lhuc_asr.base.errors import ConfigError, SearchError
from lhuc_asr.decode.search import SearchConfig, Searcher


def test_words_and_alignment_are_recovered_from_noisy_scores(graph):
    words = ("cab", "ba", "ab", "ab", "cab")
    scores = spoken(words, np.random.default_rng(0))
    hypothesis = Searcher(graph, SearchConfig()).search("u", scores)
    assert hypothesis.words == words
    assert hypothesis.pdfs.tolist() == scores.argmax(axis=1).tolist()
    # Three states a phone, three frames a state: a word is emitted between its first and its last frame.
    starts = 9 * np.cumsum([0, 3, 2, 2, 2, 3])
    assert all(a <= frame < b for a, frame, b in zip(starts, hypothesis.word_frames, starts[1:], strict=False))


def test_a_prohibitive_insertion_penalty_and_a_bonus(graph):
    noise = np.random.default_rng(1).normal(size=(40, TOPOLOGY.pdf_count)).astype(np.float32)
    few, some, many = (
        Searcher(graph, SearchConfig(insertion_penalty=penalty)).search("u", noise)
        for penalty in (1000.0, 0.0, -1000.0)
    )
    assert few.words == ()
    assert len(some.words) <= len(many.words) == 40 // 6  # the shortest words take six frames
    assert few.reached_final
    assert many.reached_final


def test_an_utterance_without_frames_has_no_words(graph):
    hypothesis = Searcher(graph, SearchConfig()).search("u", np.zeros((0, TOPOLOGY.pdf_count), np.float32))
    assert (hypothesis.words, hypothesis.cost, hypothesis.reached_final) == ((), 0.0, False)
    assert len(hypothesis.pdfs) == 0


def test_too_few_frames_for_a_sentence_are_flagged(graph, caplog):
    scores = spoken(("ab",), np.random.default_rng(0))[:4]
    hypothesis = Searcher(graph, SearchConfig()).search("short", scores)
    assert not hypothesis.reached_final
    assert len(hypothesis.pdfs) == 4
    assert "short: no path ends a sentence; the best incomplete path was taken" in caplog.text


def test_a_narrow_beam_that_loses_the_end_is_widened(graph, caplog):
    """After seven frames another word's beginning is about 5 better: outside a beam of 4, inside one of 8."""
    caplog.set_level("INFO")
    scores = np.full((8, TOPOLOGY.pdf_count), -1000.0, np.float32)
    path = [pdf for phone in "AB" for pdf in (state.pdf for state in TOPOLOGY.states((phone,)))]
    scores[np.arange(6), path] = 0.0
    scores[6, path[-1]] = -10.0
    scores[7, path[-1]] = 0.0
    scores[[6, 7], [TOPOLOGY.first_pdf["C"], TOPOLOGY.first_pdf["C"] + 1]] = 0.0
    config = SearchConfig(beam=4.0, min_active=0, acoustic_scale=1.0)
    hypothesis = Searcher(graph, config).search("u", scores)
    assert "u: no path within beam 4 ends a sentence; widened" in caplog.text
    assert hypothesis.reached_final
    assert hypothesis.words == ("ab",)


def test_scores_of_another_model_are_refused(graph):
    with pytest.raises(SearchError, match=r"u-1: scores of shape \(5, 3\), expected \(frames, 14\); network and"):
        Searcher(graph, SearchConfig()).search("u-1", np.zeros((5, 3), np.float32))


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_scores_that_are_not_finite_are_refused(graph, value):
    scores = np.zeros((5, TOPOLOGY.pdf_count), np.float32)
    scores[3, 1] = value
    with pytest.raises(SearchError, match="u-1: scores of frame 3 are not finite"):
        Searcher(graph, SearchConfig()).search("u-1", scores)


@pytest.mark.parametrize(
    ("tree", "complaint"),
    [
        ({"beam": 0}, "beam"),
        ({"min_active": 9, "max_active": 9}, "min_active .* must be less"),
        ({"acoustic_scale": -1}, "acoustic_scale"),
        ({"bean": 13}, "did you mean 'beam'"),
    ],
)
def test_configurations_that_make_no_sense_are_refused(tree, complaint):
    with pytest.raises(ConfigError, match=complaint):
        parse_config(SearchConfig, tree, "config.yaml")


@pytest.mark.parametrize("parts", [1, 7, 1000])
def test_a_search_in_parts_is_the_search_of_the_whole(graph, parts):
    scores = spoken(("cab", "ba", "ab", "ab", "cab"), np.random.default_rng(0))
    searcher = Searcher(graph, SearchConfig())
    running = searcher.begin("u")
    assert running.best().words == ()
    so_far = []
    for first in range(0, len(scores), parts):
        running.advance(scores[first : first + parts])
        so_far.append(len(running.best().words))
    whole, in_parts = searcher.search("u", scores), running.best()
    assert (in_parts.words, in_parts.word_frames, in_parts.reached_final) == (whole.words, whole.word_frames, True)
    assert in_parts.pdfs.tolist() == whole.pdfs.tolist()
    assert in_parts.cost == pytest.approx(whole.cost)
    assert so_far[-1] == 5
    if parts == 7:  # words come while they are spoken, 18 or 27 frames each
        assert {1, 2, 3, 4} <= set(so_far)
