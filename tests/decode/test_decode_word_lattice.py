"""Word lattices against an enumeration of the state lattice's paths, and within their bounds."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_lattices import EVERYTHING, WORDS, Path, all_paths, all_word_paths, best_of_words, random_lattice
from three_words import LEXICON, TOPOLOGY, spoken

from lhuc_asr.base.errors import LatticeError
from lhuc_asr.decode.lattice import NO_PDF, Lattice, best_path, word_frames
from lhuc_asr.decode.lattice_search import LatticeConfig, LatticeSearcher
from lhuc_asr.decode.n_best import best_paths
from lhuc_asr.decode.search import SearchConfig
from lhuc_asr.decode.word_lattice import WordLattice, WordLatticeConfig, determinized, problem_of, trimmed

SEEDS = st.integers(0, 2**32 - 1)
WIDE = WordLatticeConfig(beam=EVERYTHING)


def in_order(paths: list[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: path.words)


@given(SEEDS, st.integers(1, 4))
def test_each_word_sequence_has_one_path_with_the_cost_and_the_pdfs_of_its_best(seed, frames):
    lattice = random_lattice(seed, frames)
    words = determinized("u", lattice, WIDE)
    assert problem_of(words) is None
    paths, every = in_order(all_word_paths(words)), all_paths(lattice)
    expected = in_order(list(best_of_words(every).values()))
    assert [path.words for path in paths] == [path.words for path in expected]
    assert [path.cost for path in paths] == pytest.approx([path.cost for path in expected])
    # Where several are equally good, any of them will do.
    good = {(path.words, path.pdfs, round(path.log_likelihood, 4), round(path.graph_cost, 4)) for path in every}
    assert good >= {(p.words, p.pdfs, round(p.log_likelihood, 4), round(p.graph_cost, 4)) for p in paths}


@given(SEEDS, st.sampled_from([0.001, 0.5, 1.0, 2.0, 4.0]))
def test_a_beam_keeps_the_word_sequences_within_it(seed, beam):
    lattice = random_lattice(seed)
    words = determinized("u", lattice, WordLatticeConfig(beam=beam))
    assert problem_of(words) is None
    assert words.beam == beam
    every = all_paths(lattice)
    best = best_of_words(every)
    limit = min(path.cost for path in every) + beam
    kept = {path.words: path for path in all_word_paths(words)}
    assert len(kept) == len(all_word_paths(words))
    for sequence, path in best.items():
        if path.cost < limit - 1e-6:
            assert kept[sequence].cost == pytest.approx(path.cost)
    # What else is there is a path of the state lattice too.
    real = {(path.words, path.pdfs) for path in every}
    assert {(path.words, path.pdfs) for path in kept.values()} <= real
    # Each arc is on a path within the beam.
    through = posterior_costs(words)
    assert through.max(initial=-np.inf) <= limit + 1e-6


def posterior_costs(words: WordLattice) -> np.ndarray:
    """Cost of the best path through each arc."""
    before, rest = np.full(len(words.frame), np.inf), words.final.copy()
    before[0] = 0.0
    cost = -words.log_weight
    for arc in range(len(cost)):
        target = words.target[arc]
        before[target] = min(before[target], before[words.source[arc]] + cost[arc])
    for arc in reversed(range(len(cost))):
        source = words.source[arc]
        rest[source] = min(rest[source], cost[arc] + rest[words.target[arc]])
    return before[words.source] + cost + rest[words.target]


@given(SEEDS)
def test_the_pdfs_of_each_arc_add_up_to_its_log_likelihood(seed):
    lattice = random_lattice(seed, 4)
    words = determinized("u", lattice, WIDE)
    taking = lattice.pdf != NO_PDF
    scores = {
        (int(frame), int(pdf)): float(score)
        for frame, pdf, score in zip(
            lattice.frame[lattice.source[taking]], lattice.pdf[taking], lattice.log_likelihood[taking], strict=True
        )
    }
    for arc in range(len(words.source)):
        pdfs = words.pdf[words.offset[arc] : words.offset[arc + 1]].tolist()
        first = int(words.frame[words.source[arc]])
        assert first + len(pdfs) == words.frame[words.target[arc]]
        expected = sum(scores[first + index, pdf] for index, pdf in enumerate(pdfs))
        assert words.log_likelihood[arc] == pytest.approx(expected, abs=1e-9)


@settings(max_examples=50)
@given(SEEDS, st.integers(6, 30))
def test_bounds_narrow_the_beam_and_all_within_it_is_there(seed, max_arcs):
    lattice = random_lattice(seed, 4)
    config = WordLatticeConfig(beam=EVERYTHING, max_arcs=max(2, max_arcs // 4), max_elements=2000, max_steps=1000)
    words = determinized("u", lattice, config)
    assert problem_of(words) is None
    every = all_paths(lattice)
    limit = min(path.cost for path in every) + words.beam
    kept, best = {path.words: path.cost for path in all_word_paths(words)}, best_of_words(every)
    assert all(cost >= best[sequence].cost - 1e-6 for sequence, cost in kept.items())
    assert posterior_costs(words).max(initial=-np.inf) <= limit + 1e-6
    for sequence, path in best.items():
        if path.cost < limit - 1e-6:
            assert kept[sequence] == pytest.approx(path.cost)


def test_flat_scores_end_in_a_narrowed_lattice_within_its_bounds(graph, caplog):
    scores = np.random.default_rng(1).normal(scale=0.01, size=(300, TOPOLOGY.pdf_count)).astype(np.float32)
    lattice = LatticeSearcher(graph, SearchConfig(beam=50.0), LatticeConfig(beam=50.0)).search("u-7", scores)
    bounds = WordLatticeConfig(beam=50.0, max_arcs=2)
    words = determinized("u-7", lattice, bounds)
    assert problem_of(words) is None
    assert 100 < len(words.source) <= 2 * 300
    assert words.beam < 50.0
    assert f"u-7: word lattice narrowed to stay within its bounds: beam {words.beam:.3g} (asked for 50)" in caplog.text
    best = best_path(lattice)[1]
    assert best_path(words)[1] == pytest.approx(best)
    # Arcs that were made before the beam was narrowed are not there if their paths are beyond it.
    assert posterior_costs(words).max() <= best + words.beam + 1e-6
    few_steps = determinized("u-7", lattice, WordLatticeConfig(beam=50.0, max_steps=20_000))
    few_elements = determinized("u-7", lattice, WordLatticeConfig(beam=50.0, max_elements=2000))
    assert 0.0 < few_steps.beam < 50.0
    assert 0.0 < few_elements.beam < 50.0


def test_an_utterance_that_no_bound_suffices_for_is_refused(graph):
    scores = np.zeros((1200, TOPOLOGY.pdf_count), np.float32)
    lattice = LatticeSearcher(graph, SearchConfig(), LatticeConfig()).search("u-1", scores)
    with pytest.raises(
        LatticeError, match=r"u-1: its best path takes more than 1000 elements, 200 arcs a frame or 300000000 steps"
    ):
        determinized("u-1", lattice, WordLatticeConfig(max_elements=1000))


def test_the_best_path_of_a_search_stays_word_for_word(graph):
    rng = np.random.default_rng(3)
    for _ in range(10):
        scores = spoken(tuple(rng.choice(LEXICON.words, size=4)), rng)
        scores += rng.normal(scale=15.0, size=scores.shape).astype(np.float32)
        lattice = LatticeSearcher(graph, SearchConfig(), LatticeConfig()).search("u", scores)
        words = determinized("u", lattice, WordLatticeConfig())
        path, cost = best_path(lattice)
        word_path, word_cost = best_path(words)
        spoken_words = lattice.word[path][lattice.word[path] > 0]
        begins = words.begin[word_path][words.word[word_path] > 0]
        assert words.words_of(word_path, graph.words) == tuple(graph.words[word] for word in spoken_words)
        assert begins.tolist() == word_frames(lattice, path).tolist()
        assert words.pdfs_of(word_path).tolist() == lattice.pdf[path][lattice.pdf[path] != NO_PDF].tolist()
        assert word_cost == pytest.approx(cost)


def test_states_that_are_reached_at_other_costs_from_each_other_are_other_subsets():
    """After A both states are as good, after B the second costs 3 more, with the same strings of pdfs behind."""
    arcs = [
        *((0, 1, NO_PDF, 1, 0.0), (0, 1, NO_PDF, 2, 0.0), (0, 2, NO_PDF, 1, 0.0), (0, 2, NO_PDF, 2, 3.0)),
        *((1, 3, 0, 3, 2.0), (2, 3, 1, 3, 0.0)),
    ]
    source, target, pdf, word = (np.array([arc[place] for arc in arcs], np.int32) for place in range(4))
    costs = np.array([arc[4] for arc in arcs], np.float32)
    lattice = Lattice(
        np.array([0, 0, 0, 1], np.int32), np.array([np.inf, np.inf, np.inf, 0.0]), source, target, pdf, word, costs,
        np.zeros(len(arcs), np.float32), 1.0, True, EVERYTHING, 100,
    )  # fmt: skip
    paths = {path.words: (path.graph_cost, path.pdfs) for path in all_word_paths(determinized("u", lattice, WIDE))}
    assert paths == {(1, 3): (0.0, (1,)), (2, 3): (2.0, (0,))}


def test_an_empty_lattice_is_refused():
    lattice = random_lattice(1)
    nowhere = replace(lattice, final=np.full_like(lattice.final, np.inf))
    with pytest.raises(LatticeError, match="u-3: an empty lattice: no path leads to an end"):
        determinized("u-3", nowhere, WIDE)


def test_a_lattice_without_arcs_is_refused():
    lattice = random_lattice(1)
    arcs = ("source", "target", "pdf", "word", "graph_cost", "log_likelihood")
    without = replace(lattice, **{name: getattr(lattice, name)[:0] for name in arcs})
    with pytest.raises(LatticeError, match="u-3: an empty lattice, without arcs or without frames"):
        determinized("u-3", without, WIDE)


@pytest.mark.parametrize("seed", range(5))
def test_a_lattice_that_outgrows_its_first_room_gets_more(seed, monkeypatch, caplog):
    lattice = random_lattice(seed, 4)
    expected = determinized("u", lattice, WIDE)
    monkeypatch.setattr("lhuc_asr.decode.word_lattice.LEAST_ELEMENTS", 2)
    monkeypatch.setattr("lhuc_asr.decode.word_lattice.ELEMENTS_AN_ARC", 0)
    again = determinized("u", lattice, WIDE)
    assert [path.cost for path in all_word_paths(again)] == [path.cost for path in all_word_paths(expected)]
    assert again.beam == EVERYTHING
    assert not caplog.records


def test_words_of_another_vocabulary_are_refused():
    words = determinized("u", random_lattice(2, words=3), WIDE)
    path = np.flatnonzero(words.word == words.word.max())[:1]
    assert words.words_of(path, WORDS) == (WORDS[words.word.max()],)
    with pytest.raises(LatticeError, match="a table of 1 words"):
        words.words_of(path, WORDS[:1])


# "A" or "B", then the rest of the frames, or "C" from the first frame to the last.
BY_HAND = WordLattice(
    frame=np.array([0, 1, 2, 2], np.int32),
    final=np.array([np.inf, np.inf, 0.5, 0.0]),
    source=np.array([0, 0, 0, 1], np.int32),
    target=np.array([1, 1, 2, 3], np.int32),
    word=np.array([1, 2, 3, 0], np.int32),
    begin=np.array([1, 0, 0, 1], np.int32),
    graph_cost=np.array([1.0, 2.0, -3.0, 0.0]),
    log_likelihood=np.array([-1.0, -2.0, -3.0, -4.0]),
    pdf=np.array([4, 5, 6, 7, 8], np.int32),
    offset=np.array([0, 1, 2, 4, 5]),
    acoustic_scale=0.5,
    reached_final=True,
    beam=8.0,
)
BAD = [
    ("final", [np.inf] * 4, "no path leads to an end"),
    ("final", [np.inf, np.nan, 0.5, 0.0], "node 1 has a final cost that is not a number"),
    ("final", [np.inf, 0.5, 0.5, 0.0], "node 1 ends paths before the last frame"),
    ("final", [np.inf, np.inf, 0.5, 0.1], "arc 3 has no word, and the end has a cost"),
    ("frame", [0, 2, 1, 2], "node 2 is at an earlier frame than the node before"),
    ("frame", [1, 2, 3, 3], "node 0 is the start, but not at frame 0"),
    ("source", [0, 0, 1, 0], "arc 3 leaves a lower node than the arc before"),
    ("target", [1, 0, 2, 3], "arc 1 does not lead to a higher node"),
    ("target", [1, 1, 3, 3], "arc 2 has a word, and leads to the end of arcs without"),
    ("word", [-1, 2, 3, 0], "arc 0 has a negative word"),
    ("word", [1, 3, 3, 0], "arc 1 has no lower word than the next arc of its node"),
    ("word", [0, 2, 3, 1], "arc 0 has no word, and does not lead to the last node"),
    ("graph_cost", [0.0, 0.0, 0.0, np.nan], "arc 3 has a score that is not finite"),
    ("offset", [0, 1, 3, 4, 5], "arc 1 has a pdf too few or many"),
    ("begin", [1, 2, 0, 1], "arc 1 emits its word at none of the frames"),
    ("begin", [1, 0, -1, 1], "arc 2 emits its word at none of the frames"),
    ("pdf", [4, 5, 6, -7, 8], "pdf 3 is negative"),
]


@pytest.mark.parametrize(("name", "values", "problem"), BAD)
def test_what_is_not_a_word_lattice_is_told(name, values, problem):
    assert problem_of(BY_HAND) is None
    assert problem_of(replace(BY_HAND, **{name: np.array(values)})) == problem


def test_an_end_that_no_path_leads_to_is_told():
    """The last node has a cost, and the arcs lead to nodes that have none."""
    arcs = ("source", "target", "word", "begin", "graph_cost", "log_likelihood")
    cut = replace(BY_HAND, **{name: getattr(BY_HAND, name)[:3] for name in arcs})
    cut = replace(cut, pdf=cut.pdf[:4], offset=cut.offset[:4])
    assert problem_of(cut) is None
    nowhere = replace(cut, final=np.array([np.inf, np.inf, np.inf, 0.0]))
    assert problem_of(nowhere) == "no path leads from the start to an end"
    assert best_paths(nowhere, 3) == []


def test_a_path_that_could_end_before_it_ends_is_told():
    ended = replace(BY_HAND, frame=np.array([0, 2, 2, 2]), offset=np.array([0, 2, 4, 6, 6]))
    assert problem_of(replace(ended, final=np.array([np.inf, 0.3, 0.5, 0.0]), pdf=np.zeros(6, np.int32))) == (
        "arc 3 has no word, and its path could end before it"
    )


def test_trimming_keeps_whole_paths():
    kept = trimmed(BY_HAND, np.array([True, False, True, False]))
    assert [(path.words, path.pdfs) for path in all_word_paths(kept)] == [((3,), (6, 7))]
    assert problem_of(kept) is None
    assert kept.frame.tolist() == [0, 2]
