"""Searches spread over processes, and threads: they change nothing, are bounded, and fail clearly."""

import multiprocessing
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from three_words import LEXICON, TOPOLOGY, spoken

from lhuc_asr.base.errors import GraphError, LatticeError, SearchError
from lhuc_asr.decode.lattice_search import LatticeConfig
from lhuc_asr.decode.outputs import LatticeOutput
from lhuc_asr.decode.pool import MATRICES_A_PROCESS, SearchPool
from lhuc_asr.decode.search import SearchConfig
from lhuc_asr.decode.word_lattice import WordLatticeConfig

PROCESSES = 2


@pytest.fixture(scope="module")
def pool(graph):
    with SearchPool(graph.folder, PROCESSES) as pool:
        yield pool


def corpus(count: int) -> list[tuple[str, np.ndarray]]:
    rng = np.random.default_rng(2)
    return [(f"u{i}", spoken(tuple(rng.choice(LEXICON.words, size=1 + 5 * (i % 2))), rng)) for i in range(count)]


@pytest.mark.parametrize("penalty", [0.0, 2.5])
def test_workers_find_what_this_process_finds_in_order(graph, pool, penalty):
    config = SearchConfig(insertion_penalty=penalty)
    items = corpus(9)
    with SearchPool(graph.folder, processes=0) as here:
        expected = list(here.search_all(items, config))
    hypotheses = list(pool.search_all(items, config))
    assert [h.utterance for h in hypotheses] == [name for name, _ in items]
    assert [(h.words, h.cost, h.word_frames) for h in hypotheses] == [
        (h.words, h.cost, h.word_frames) for h in expected
    ]
    assert all(np.array_equal(a.pdfs, b.pdfs) for a, b in zip(hypotheses, expected, strict=True))


def test_workers_tell_of_the_same_lattices(graph, pool):
    items = corpus(5)
    with SearchPool(graph.folder, processes=0) as here:
        expected = list(here.lattices_all(items, SearchConfig(), LatticeConfig()))
    summaries = list(pool.lattices_all(items, SearchConfig(), LatticeConfig()))
    assert [summary.hypothesis.utterance for summary in summaries] == [name for name, _ in items]
    for mine, its in zip(summaries, expected, strict=True):
        assert mine.hypothesis.words == its.hypothesis.words
        assert mine.hypothesis.confidences == its.hypothesis.confidences
        np.testing.assert_array_equal(mine.frames.pdf, its.frames.pdf)
        np.testing.assert_array_equal(mine.frames.posterior, its.frames.posterior)


def test_workers_find_the_same_words_at_other_scales(graph, pool):
    items, settings = corpus(5), [SearchConfig(), SearchConfig(acoustic_scale=0.001, insertion_penalty=50.0)]
    arguments = (items, SearchConfig(), LatticeConfig(beam=60.0), settings)
    with SearchPool(graph.folder, processes=0) as here:
        expected = list(here.words_at_all(*arguments))
    assert list(pool.words_at_all(*arguments)) == expected
    assert any(len(set(words)) == 2 for words in expected)


def test_threads_that_search_at_once_find_what_one_finds(graph):
    """Two insertion penalties, from four threads, on a pool that has read nothing yet."""
    items, penalties = corpus(6), (0.0, 2.5) * 2
    with SearchPool(graph.folder, processes=0) as here:
        configs = [SearchConfig(insertion_penalty=penalty) for penalty in penalties]
        expected = [list(here.lattices_all(items, config, LatticeConfig())) for config in configs]
    fresh = SearchPool(graph.folder, processes=0)
    with ThreadPoolExecutor(len(configs)) as threads:
        searches = [threads.submit(lambda c: list(fresh.lattices_all(items, c, LatticeConfig())), c) for c in configs]
        paths = [threads.submit(lambda c: list(fresh.search_all(items, c)), c) for c in configs]
    for summaries, search, path in zip(expected, searches, paths, strict=True):
        hypotheses = [summary.hypothesis for summary in summaries]
        assert [s.hypothesis.words for s in search.result()] == [h.words for h in hypotheses]
        assert [s.hypothesis.confidences for s in search.result()] == [h.confidences for h in hypotheses]
        assert [s.hypothesis.cost for s in search.result()] == [h.cost for h in hypotheses]
        assert [h.utterance for h in path.result()] == [h.utterance for h in hypotheses]


def test_narrowed_lattices_are_counted(graph, caplog):
    flat = np.zeros((60, TOPOLOGY.pdf_count), np.float32)
    clear = spoken(("ab",), np.random.default_rng(0))
    with SearchPool(graph.folder, processes=0) as here:
        items = [("flat-1", flat), ("clear", clear), ("flat-2", flat)]
        summaries = list(here.lattices_all(items, SearchConfig(), LatticeConfig(beam=20.0, max_arcs=20)))
    assert [summary.narrowed for summary in summaries] == [True, False, True]
    assert caplog.records[-1].getMessage() == "2 of 3 lattices had to be narrowed: flat-1, flat-2"


def test_word_lattices_are_counted_where_they_are_narrowed_or_missing(graph, caplog):
    """The processes that make them have no log."""
    flat, empty = np.zeros((60, TOPOLOGY.pdf_count), np.float32), np.zeros((0, TOPOLOGY.pdf_count), np.float32)
    items = [("flat", flat), ("clear", spoken(("ab",), np.random.default_rng(0))), ("empty", empty), ("flat-2", flat)]
    options = SearchConfig(), LatticeConfig(beam=20.0, max_arcs=20), WordLatticeConfig(beam=20.0)
    with SearchPool(graph.folder, processes=0) as here:
        made = list(here.word_lattices_all(items, *options, max_failed=0.25))
        assert [lattice is None for lattice in made] == [False, False, True, False]
        assert [record.getMessage() for record in caplog.records[-2:]] == [
            "1 of 4 utterances have no lattice; the first: empty: an utterance without frames has no lattice; leave it "
            "out",
            "2 of 4 lattices had to be narrowed: flat, flat-2",
        ]
        # The word lattice alone.
        options = SearchConfig(), LatticeConfig(beam=20.0), WordLatticeConfig(beam=20.0, max_steps=2000)
        list(here.word_lattices_all(items, *options, max_failed=0.25))
        assert caplog.records[-1].getMessage() == "2 of 4 lattices had to be narrowed: flat, flat-2"
        with pytest.raises(
            LatticeError, match=r"1 of 4 utterances have no lattice \(limit 24%\); the first: empty: an"
        ):
            list(here.word_lattices_all(items, *options, max_failed=0.24))


def test_words_of_the_best_path_stand_for_an_output_that_takes_too_much(graph, caplog, monkeypatch):
    items = corpus(4)  # every second one is six words long
    outputs = [(LatticeOutput(), None), (LatticeOutput(words="least_risk"), None)]
    with SearchPool(graph.folder, processes=0) as here:
        best = list(here.search_all(items, SearchConfig()))
        free = list(here.outputs_all(items, SearchConfig(), outputs))
        assert not caplog.records
        monkeypatch.setattr("lhuc_asr.decode.minimum_risk.MOST_CELLS", 100)
        bound = list(here.outputs_all(items, SearchConfig(), outputs))
    assert [each[0].words for each in bound] == [each[0].words for each in free]
    assert [bool(each[1].confidences) for each in free] == [True] * 4
    # Those of least risk have confidences, those of the best path have none.
    assert [bool(each[1].confidences) for each in bound] == [True, False, True, False]
    assert [bound[place][1].words for place in (1, 3)] == [best[place].words for place in (1, 3)]
    [record] = caplog.records
    assert "2 of 4 utterances have words of the best path in place of an output: u1, u3; the first: u1: " in (
        record.getMessage()
    )


def test_matrices_in_flight_are_bounded(pool):
    taken = 0

    def count():
        nonlocal taken
        for item in corpus(30):
            taken += 1
            yield item

    for done, _ in enumerate(pool.search_all(count(), SearchConfig())):
        assert taken <= done + MATRICES_A_PROCESS * PROCESSES
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
        SearchPool(graph.folder, 2) as pool,
        pytest.raises(SearchError, match=r"a worker process died before it had searched u\d+"),
    ):
        list(pool.search_all(kill_after_two(), SearchConfig()))


def test_pools_that_cannot_work_say_so(graph, tmp_path):
    with pytest.raises(SearchError, match="-1 processes"):
        SearchPool(graph.folder, -1)
    with pytest.raises(GraphError, match=r"graph\.json: no such file"):
        SearchPool(tmp_path, 1)
    with pytest.raises(GraphError, match=r"graph\.json: no such file"):
        SearchPool(tmp_path, 2)
    with pytest.raises(SearchError, match="the pool is not open"):
        list(SearchPool(graph.folder, 2).search_all(corpus(1), SearchConfig()))
