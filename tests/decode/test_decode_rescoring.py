"""Rescored lattices against the models' own scores of each word sequence, and against a search with the other model."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_lattices import EVERYTHING, SCALE, WORDS, all_word_paths, random_lattice
from three_words import ARPA, LEXICON, TOPOLOGY, spoken

from lhuc_asr.base.errors import LatticeError
from lhuc_asr.decode.graph import build_graph
from lhuc_asr.decode.lattice_search import LatticeConfig, LatticeSearcher
from lhuc_asr.decode.rescoring import Rescorer
from lhuc_asr.decode.search import SearchConfig
from lhuc_asr.decode.word_lattice import WordLattice, WordLatticeConfig, determinized, problem_of
from lhuc_asr.lang.arpa import read_arpa
from lhuc_asr.lang.histories import HistoryModel
from lhuc_asr.lang.kneser_ney import estimate
from lhuc_asr.lang.ngram import NgramModel

WIDE = WordLatticeConfig(beam=EVERYTHING)
SEEDS = st.integers(0, 2**32 - 1)


def random_model(seed: int, order: int, words: str = "ABC", keep_unknown: bool = False) -> NgramModel:
    rng = np.random.default_rng(seed)
    text = [list(rng.choice(list(words), size=rng.integers(1, 6))) for _ in range(8)]
    return estimate([[str(word) for word in each] for each in text], order, tuple(words), keep_unknown=keep_unknown)


def rescorer(words: Sequence[str], old: NgramModel, new: NgramModel, **options: int) -> Rescorer:
    return Rescorer(words, HistoryModel.of(old), HistoryModel.of(new), **options)


def sequences(lattice: WordLattice) -> dict[tuple[str, ...], tuple[float, float, tuple[int, ...]]]:
    paths = all_word_paths(lattice)
    costs = {
        tuple(WORDS[word] for word in path.words): (path.graph_cost, path.log_likelihood, path.pdfs) for path in paths
    }
    assert len(costs) == len(paths)
    return costs


@settings(max_examples=60)
@given(SEEDS, st.integers(1, 4), st.integers(1, 4))
def test_each_word_sequence_gets_the_new_models_score_for_the_old_ones(seed, old_order, new_order):
    lattice = determinized("u", random_lattice(seed, 4), WIDE)
    old, new = random_model(seed + 1, old_order), random_model(seed + 2, new_order)
    rescored = rescorer(WORDS, old, new).rescored("u", lattice)
    assert problem_of(rescored) is None
    before, after = sequences(lattice), sequences(rescored)
    assert before.keys() == after.keys()
    for words, (graph_cost, log_likelihood, pdfs) in before.items():
        assert after[words][0] == pytest.approx(graph_cost + old.log_prob(words) - new.log_prob(words))
        assert after[words][1] == pytest.approx(log_likelihood)
        assert after[words][2] == pdfs


@settings(max_examples=40)
@given(SEEDS, st.integers(1, 4))
def test_the_same_model_changes_nothing(seed, order):
    lattice = determinized("u", random_lattice(seed, 4), WIDE)
    model = random_model(seed, order)
    before, after = sequences(lattice), sequences(rescorer(WORDS, model, model).rescored("u", lattice))
    assert {words: row[0] for words, row in after.items()} == pytest.approx({w: row[0] for w, row in before.items()})
    assert {words: row[2] for words, row in after.items()} == {words: row[2] for words, row in before.items()}


def test_incomplete_paths_have_no_sentence_end_to_rescore():
    lattice = determinized("u", random_lattice(3, 4, reached_final=False), WIDE)
    old, new = random_model(1, 2), random_model(2, 3)
    before, after = sequences(lattice), sequences(rescorer(WORDS, old, new).rescored("u", lattice))
    for words, row in before.items():
        context = ["<s>", *words]
        change = sum(
            old.score(context[:i], context[i]) - new.score(context[:i], context[i]) for i in range(1, len(context))
        )
        assert after[words][0] == pytest.approx(row[0] + change)


def test_a_word_that_a_model_lacks_is_its_unknown_word_or_an_error():
    lattice = determinized("u", random_lattice(2, 4), WIDE)
    old, knows_ab = random_model(1, 2), random_model(2, 2, "AB", keep_unknown=True)
    before, after = sequences(lattice), sequences(rescorer(WORDS, old, knows_ab).rescored("u", lattice))
    assert any("C" in words for words in before)
    for words, row in before.items():
        assert after[words][0] == pytest.approx(row[0] + old.log_prob(words) - knows_ab.log_prob(words))
    closed = random_model(2, 2, "AB")
    with pytest.raises(LatticeError, match=r"u-5: the new language model lacks 1 of the lattice's words, .* <unk>: C;"):
        rescorer(WORDS, old, closed).rescored("u-5", lattice)
    with pytest.raises(LatticeError, match="u-5: the old language model lacks 1 of the lattice's words"):
        rescorer(WORDS, closed, old).rescored("u-5", lattice)


def test_a_lattice_of_another_vocabulary_is_refused():
    lattice = determinized("u", random_lattice(2, 4), WIDE)
    model = random_model(1, 2)
    with pytest.raises(LatticeError, match="u-5: a lattice with word 3, a table of 2 words"):
        rescorer(WORDS[:2], model, model).rescored("u-5", lattice)


def test_a_lattice_that_would_grow_beyond_its_bound_is_refused():
    lattice = determinized("u", random_lattice(2, 4), WIDE)
    with pytest.raises(LatticeError, match=r"u-5: rescoring splits the lattice into more than 3 arcs; narrow the beam"):
        rescorer(WORDS, random_model(1, 2), random_model(2, 4), max_arcs=3).rescored("u-5", lattice)


def test_rescored_costs_are_those_of_a_search_with_the_other_model(graph, tmp_path):
    (tmp_path / "old.arpa").write_text(ARPA)
    (tmp_path / "new.arpa").write_text(ARPA.replace("-0.7\tab", "-1.3\tab").replace("-0.5\t</s>", "-0.2\t</s>"))
    old, new = read_arpa(tmp_path / "old.arpa"), read_arpa(tmp_path / "new.arpa")
    other = build_graph(LEXICON, tmp_path / "new.arpa", TOPOLOGY, tmp_path / "graph")
    rng = np.random.default_rng(7)
    scores = spoken(("ab", "cab", "ba"), rng)
    scores = 0.05 * (scores + rng.normal(scale=12.0, size=scores.shape).astype(np.float32))
    costs = {}
    for name, each in (("old", graph), ("new", other)):
        search = LatticeSearcher(each, SearchConfig(beam=60.0, acoustic_scale=SCALE), LatticeConfig(beam=20.0))
        lattice = determinized("u", search.search("u", scores), WordLatticeConfig(beam=20.0))
        if name == "old":
            lattice = rescorer(graph.words, old, new).rescored("u", lattice)
        costs[name] = {path.words: path.cost for path in all_word_paths(lattice)}
    shared = costs["old"].keys() & costs["new"].keys()
    assert len(shared) > 3
    assert {words: costs["old"][words] for words in shared} == pytest.approx(
        {words: costs["new"][words] for words in shared}, abs=2e-3
    )


def test_the_beam_and_the_scale_stay():
    lattice = replace(determinized("u", random_lattice(2, 4), WIDE), beam=7.5)
    rescored = rescorer(WORDS, random_model(1, 2), random_model(2, 3)).rescored("u", lattice)
    assert (rescored.beam, rescored.acoustic_scale, rescored.reached_final) == (7.5, SCALE, True)
