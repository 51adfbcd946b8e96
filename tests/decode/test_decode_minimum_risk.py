"""Words of least risk against expected edit distances over all paths."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_lattices import EVERYTHING, WORDS, all_word_paths, random_lattice

from lhuc_asr.base.errors import LatticeError
from lhuc_asr.decode.lattice import best_path
from lhuc_asr.decode.minimum_risk import least_risk
from lhuc_asr.decode.word_lattice import WordLattice, WordLatticeConfig, determinized, problem_of

SEEDS = st.integers(0, 2**32 - 1)
Words = tuple[str, ...]


def edit_distance(one: Words, other: Words) -> int:
    row = list(range(len(other) + 1))
    for index, word in enumerate(one, start=1):
        above, row[0] = row[0], index
        for place, there in enumerate(other, start=1):
            above, row[place] = row[place], min(above + (word != there), row[place] + 1, row[place - 1] + 1)
    return row[-1]


def probabilities(lattice: WordLattice) -> dict[Words, float]:
    paths = all_word_paths(lattice)
    log_total = np.logaddexp.reduce([-path.cost for path in paths])
    return {tuple(WORDS[word] for word in path.words): float(np.exp(-path.cost - log_total)) for path in paths}


def expected_distance(words: Words, distribution: dict[Words, float]) -> float:
    return sum(probability * edit_distance(words, other) for other, probability in distribution.items())


def tree(distribution: dict[Words, float]) -> WordLattice:
    """A lattice whose paths share their beginnings only: all words at frame 0, then a frame without a word."""
    nodes = sorted({words[:length] for words in distribution for length in range(len(words) + 1)})
    number = {words: index for index, words in enumerate(nodes)}
    end = len(nodes)
    arcs = [(number[words[:-1]], number[words], WORDS.index(words[-1]), 0.0) for words in nodes if words]
    arcs += [(number[words], end, 0, -float(np.log(probability))) for words, probability in distribution.items()]
    source, target, word, cost = (np.array(column) for column in zip(*sorted(arcs, key=lambda a: a[::2]), strict=True))
    frame = np.append(np.zeros(end, np.int32), np.int32(1))
    silent = word == 0
    return WordLattice(
        frame, np.append(np.full(end, np.inf), 0.0), source.astype(np.int32), target.astype(np.int32),
        word.astype(np.int32), np.zeros(len(arcs), np.int32), cost, np.zeros(len(arcs)),
        np.zeros(silent.sum(), np.int32), np.append(0, np.cumsum(silent)), 1.0, True, EVERYTHING,
    )  # fmt: skip


def random_tree(seed: int) -> WordLattice:
    rng = np.random.default_rng(seed)
    sequences = {tuple(str(w) for w in rng.choice(WORDS[1:], size=rng.integers(0, 4))) for _ in range(6)}
    shares = rng.dirichlet(np.ones(len(sequences)))
    return tree(dict(zip(sorted(sequences), shares.tolist(), strict=True)))


def test_the_most_probable_word_of_each_place_is_not_always_on_the_best_path():
    lattice = tree({("A", "B"): 0.4, ("C", "B"): 0.3, ("C", "A"): 0.3})
    assert problem_of(lattice) is None
    assert lattice.words_of(best_path(lattice)[0], WORDS) == ("A", "B")
    result = least_risk("u", lattice, WORDS)
    assert result.words == ("C", "B")
    assert result.confidences == pytest.approx((0.6, 0.7))
    # Of "A B": 0.3 x 1 + 0.3 x 2.
    assert (result.risk, result.best_path_risk) == pytest.approx((0.7, 0.9))


def test_words_are_put_in_and_left_out():
    assert least_risk("u", tree({("A",): 0.4, ("A", "B"): 0.3, ("C", "B"): 0.3}), WORDS).words == ("A", "B")
    assert least_risk("u", tree({("A", "B"): 0.4, ("A",): 0.3, ("C",): 0.3}), WORDS).words == ("A",)
    assert least_risk("u", tree({(): 0.6, ("A",): 0.4}), WORDS).words == ()


@given(SEEDS)
def test_where_paths_meet_at_the_end_only_the_risk_is_the_expected_distance(seed):
    lattice = random_tree(seed)
    distribution = probabilities(lattice)
    result = least_risk("u", lattice, WORDS)
    assert result.risk == pytest.approx(expected_distance(result.words, distribution))
    best = lattice.words_of(best_path(lattice)[0], WORDS)
    assert result.best_path_risk == pytest.approx(expected_distance(best, distribution))
    assert result.risk <= result.best_path_risk + 1e-9


@given(SEEDS, st.integers(1, 4))
def test_elsewhere_it_is_an_upper_bound_and_no_higher_than_that_of_the_best_path(seed, frames):
    lattice = determinized("u", random_lattice(seed, frames), WordLatticeConfig(beam=EVERYTHING))
    distribution = probabilities(lattice)
    result = least_risk("u", lattice, WORDS)
    assert result.risk >= expected_distance(result.words, distribution) - 1e-9
    assert result.risk <= result.best_path_risk + 1e-9
    assert all(0.0 <= confidence <= 1.0 for confidence in result.confidences)
    assert len(result.words) == len(result.confidences) == len(result.begins)
    assert list(result.begins) == sorted(result.begins)
    assert all(0 <= begin < lattice.frames for begin in result.begins)


def test_few_are_worse_than_the_best_path_and_most_are_the_best_of_all_sequences():
    candidates = [words for length in range(5) for words in itertools.product(WORDS[1:], repeat=length)]
    worse, better, best, count = 0, 0, 0, 150
    for seed in range(count):
        lattice = determinized("u", random_lattice(seed, 3), WordLatticeConfig(beam=EVERYTHING))
        distribution = probabilities(lattice)
        risk = expected_distance(least_risk("u", lattice, WORDS).words, distribution)
        of_path = expected_distance(lattice.words_of(best_path(lattice)[0], WORDS), distribution)
        least = min(expected_distance(words, distribution) for words in candidates)
        worse += risk > of_path + 1e-9
        better += risk < of_path - 1e-9
        best += risk < least + 1e-9
    assert worse <= 0.01 * count
    assert better >= 0.1 * count
    assert best >= 0.9 * count


@pytest.mark.parametrize("seed", [66, 82, 159])
def test_words_are_aligned_again_until_nothing_gets_better(seed):
    """After one round these are not yet the best of all sequences."""
    lattice = random_tree(seed)
    distribution = probabilities(lattice)
    candidates = [words for length in range(5) for words in itertools.product(WORDS[1:], repeat=length)]
    least = min(expected_distance(words, distribution) for words in candidates)
    assert least_risk("u", lattice, WORDS).risk == pytest.approx(least)


def test_certain_words_begin_where_the_graph_emits_them():
    lattice = determinized("u", random_lattice(4, 4), WordLatticeConfig(beam=0.001))
    path = best_path(lattice)[0]
    result = least_risk("u", lattice, WORDS)
    spoken = path[lattice.word[path] > 0]
    assert result.words == lattice.words_of(path, WORDS)
    assert result.begins == tuple(lattice.begin[spoken].tolist())
    assert result.confidences == pytest.approx((1.0,) * len(spoken))
    assert result.risk == pytest.approx(0.0, abs=1e-9)


def test_a_lattice_of_another_vocabulary_is_refused():
    lattice = tree({("A", "C"): 1.0})
    with pytest.raises(LatticeError, match="u-9: a lattice with word 3, a table of 3 words"):
        least_risk("u-9", lattice, WORDS[:3])


def test_a_lattice_too_large_for_the_table_is_refused(monkeypatch):
    monkeypatch.setattr("lhuc_asr.decode.minimum_risk.MOST_CELLS", 20)
    with pytest.raises(LatticeError, match="u-9: 4 nodes and 2 words take tables of 84 cells, more than 20"):
        least_risk("u-9", tree({("A", "C"): 1.0}), WORDS)
