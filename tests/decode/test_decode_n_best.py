"""The n best word sequences against an enumeration of all paths."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_lattices import EVERYTHING, SCALE, WORDS, all_paths, best_of_words, random_lattice

from lhuc_asr.base.errors import LatticeError
from lhuc_asr.decode.heap import push
from lhuc_asr.decode.lattice import best_path
from lhuc_asr.decode.n_best import MOST, _best_paths, best_paths
from lhuc_asr.decode.word_lattice import WordLattice, WordLatticeConfig, determinized, problem_of


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 5, 1000]))
def test_the_best_paths_are_the_best_word_sequences_in_order(seed, count):
    state_lattice = random_lattice(seed, 4)
    lattice = determinized("u", state_lattice, WordLatticeConfig(beam=EVERYTHING))
    expected = sorted(best_of_words(all_paths(state_lattice)).values(), key=lambda path: path.cost)
    paths = best_paths(lattice, count)
    assert len(paths) == min(count, len(expected))
    assert [path.cost for path in paths] == pytest.approx([path.cost for path in expected[:count]])
    spoken = [lattice.words_of(path.arcs, WORDS) for path in paths]
    assert len(set(spoken)) == len(spoken)
    costs = {tuple(WORDS[word] for word in path.words): path.cost for path in expected}
    for words, path in zip(spoken, paths, strict=True):
        assert path.cost == pytest.approx(costs[words])
        assert path.cost == pytest.approx(path.graph_cost - SCALE * path.log_likelihood)


def chain(length: int, choices: int) -> WordLattice:
    """``length`` words in a row, each with the same choice of words that cost 0, 1, 2 and so on."""
    arcs = length * choices
    frame = np.arange(length + 1, dtype=np.int32)
    source = np.repeat(frame[:-1], choices)
    final = np.full(length + 1, np.inf)
    final[-1] = 0.0
    return WordLattice(
        frame, final, source, source + 1, np.tile(np.arange(1, choices + 1, dtype=np.int32), length), source,
        np.tile(np.arange(choices, dtype=np.float64), length), np.zeros(arcs), np.zeros(arcs, np.int32),
        np.arange(arcs + 1), 1.0, True, EVERYTHING,
    )  # fmt: skip


def test_there_is_one_of_no_cost_and_one_of_cost_one_for_each_place():
    lattice = chain(length=60, choices=3)
    assert problem_of(lattice) is None
    costs = [path.cost for path in best_paths(lattice, 2000)]
    # Cost 2: one word at cost 2, or two at cost 1.
    assert costs[: 1 + 60 + 60 + math.comb(60, 2)] == [0.0] + [1.0] * 60 + [2.0] * (60 + math.comb(60, 2))
    assert costs[-1] == 3.0


def test_equally_good_paths_take_no_longer_than_others(monkeypatch):
    """No node is left more often than paths are asked for.

    Rounding makes beginnings the dearer the longer they are here: of all 2 ** 39, none would be the last to be tried.
    """
    length, count, pushes = 40, 10, 0
    lattice = chain(length, choices=2)
    lattice.graph_cost[:-2], lattice.graph_cost[-2:] = 1e-16, 1.0

    def counted(heap, waiting, keys, item):
        nonlocal pushes
        pushes += 1
        assert pushes <= (length + 1) * count * 2
        push(heap, waiting, keys, item)

    monkeypatch.setattr("lhuc_asr.decode.n_best.push", counted)
    monkeypatch.setattr("lhuc_asr.decode.n_best._best_paths", _best_paths.py_func)
    paths = best_paths(lattice, count)
    assert len({tuple(path.arcs.tolist()) for path in paths}) == count


def test_the_first_is_the_best_path():
    lattice = determinized("u", random_lattice(5, 4), WordLatticeConfig(beam=EVERYTHING))
    arcs, cost = best_path(lattice)
    first = best_paths(lattice, 1)[0]
    assert first.arcs.tolist() == arcs.tolist()
    assert first.cost == pytest.approx(cost)


@pytest.mark.parametrize("count", [0, -3, MOST + 1])
def test_a_number_out_of_range_is_refused(count):
    with pytest.raises(LatticeError, match=f"the best {count} paths: ask for 1 to {MOST}"):
        best_paths(chain(2, 2), count)
