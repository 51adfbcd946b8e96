"""Searching: what it does when it cannot succeed, and that worker processes change nothing."""

import multiprocessing
import os
import signal

import numpy as np
import pytest

from lhuc_asr.base.config import parse_config
from lhuc_asr.base.errors import ConfigError, GraphError, SearchError
from lhuc_asr.decode.graph import DecodingGraph, build_graph
from lhuc_asr.decode.search import MATRICES_A_WORKER, SearchConfig, Searcher, SearchPool
from lhuc_asr.hmm.topology import MonophoneTopology
from lhuc_asr.lang.lexicon import Lexicon
from lhuc_asr.lang.phones import PhoneSet

WORKERS = 2
LEXICON = Lexicon({"ab": (("A", "B"),), "ba": (("B", "A"),), "cab": (("C", "A", "B"),)}, PhoneSet.of("ABC"))
TOPOLOGY = MonophoneTopology.initial(LEXICON.phones)
ARPA = """
\\data\\
ngram 1=5

\\1-grams:
-99\t<s>
-0.5\t</s>
-0.7\tab
-0.8\tba
-0.9\tcab

\\end\\
"""


@pytest.fixture(scope="module")
def graph(tmp_path_factory) -> DecodingGraph:
    folder = tmp_path_factory.mktemp("graph")
    (folder / "lm.arpa").write_text(ARPA)
    return build_graph(LEXICON, folder / "lm.arpa", TOPOLOGY, folder)


@pytest.fixture(scope="module")
def pool(graph):
    with SearchPool(graph.folder, WORKERS) as pool:
        yield pool


def spoken(words: tuple[str, ...], rng: np.random.Generator, frames_a_state: int = 3) -> np.ndarray:
    """Scores (T, K) of someone who says these words, every state equally long."""
    phones = [phone for word in words for phone in LEXICON.pronunciations[word][0]]
    pdfs = [state.pdf for phone in phones for state in TOPOLOGY.states((phone,))]
    scores = rng.normal(scale=3.0, size=(frames_a_state * len(pdfs), TOPOLOGY.pdf_count))
    scores[np.arange(len(scores)), np.repeat(pdfs, frames_a_state)] += 30.0
    return scores.astype(np.float32)


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


def test_no_frames_give_no_words(graph):
    hypothesis = Searcher(graph, SearchConfig()).search("u", np.zeros((0, TOPOLOGY.pdf_count), np.float32))
    assert (hypothesis.words, hypothesis.cost, hypothesis.reached_final) == ((), 0.0, False)
    assert len(hypothesis.pdfs) == 0


def test_too_few_frames_for_a_sentence_are_flagged(graph, caplog):
    scores = spoken(("ab",), np.random.default_rng(0))[:4]
    hypothesis = Searcher(graph, SearchConfig()).search("short", scores)
    assert not hypothesis.reached_final
    assert len(hypothesis.pdfs) == 4
    assert "short: no path ends a sentence; the best that stops short was taken" in caplog.text


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


def corpus(count: int) -> list[tuple[str, np.ndarray]]:
    rng = np.random.default_rng(2)
    return [(f"u{i}", spoken(tuple(rng.choice(LEXICON.words, size=1 + 5 * (i % 2))), rng)) for i in range(count)]


@pytest.mark.parametrize("penalty", [0.0, 2.5])
def test_workers_find_what_this_process_finds_in_order(graph, pool, penalty):
    config = SearchConfig(insertion_penalty=penalty)
    items = corpus(9)
    with SearchPool(graph.folder, workers=0) as here:
        expected = list(here.search_all(items, config))
    found = list(pool.search_all(items, config))
    assert [h.utterance for h in found] == [name for name, _ in items]
    assert [(h.words, h.cost, h.word_frames) for h in found] == [(h.words, h.cost, h.word_frames) for h in expected]
    assert all(np.array_equal(a.pdfs, b.pdfs) for a, b in zip(found, expected, strict=True))


def test_matrices_in_flight_are_bounded(pool):
    taken = 0

    def count():
        nonlocal taken
        for item in corpus(30):
            taken += 1
            yield item

    for done, _ in enumerate(pool.search_all(count(), SearchConfig())):
        assert taken <= done + MATRICES_A_WORKER * WORKERS
    assert taken == 30


def test_an_error_in_a_worker_arrives_and_the_pool_goes_on(pool):
    bad = ("bad", np.zeros((5, 3), np.float32))
    with pytest.raises(SearchError, match="bad: scores of shape"):
        list(pool.search_all([*corpus(3), bad, *corpus(3)], SearchConfig()))
    assert len(list(pool.search_all(corpus(3), SearchConfig()))) == 3


def test_a_worker_that_dies_is_an_error_and_no_hang(graph):
    def kill_after_two():
        for index, item in enumerate(corpus(20)):
            if index == 2:
                for child in set(multiprocessing.active_children()) - others:
                    os.kill(child.pid, signal.SIGKILL)
            yield item

    others = set(multiprocessing.active_children())
    with (
        SearchPool(graph.folder, 1) as pool,
        pytest.raises(SearchError, match=r"a worker process died before it had searched u\d+"),
    ):
        list(pool.search_all(kill_after_two(), SearchConfig()))


def test_pools_that_cannot_work_say_so(graph, tmp_path):
    with pytest.raises(SearchError, match="-1 workers"):
        SearchPool(graph.folder, -1)
    with pytest.raises(GraphError, match=r"graph\.json: no such file"):
        SearchPool(tmp_path, 1)
    with pytest.raises(SearchError, match="the pool is not open"):
        list(SearchPool(graph.folder, 1).search_all(corpus(1), SearchConfig()))
