"""Kaldi's text format: what is written is read again, files made by hand, and files that are damaged."""

import gzip
import re
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_lattices import EVERYTHING, SCALE, WORDS, all_word_paths, random_lattice

from lhuc_asr.base.errors import LatticeError
from lhuc_asr.decode.lattice_file import read_lattices, write_lattices
from lhuc_asr.decode.word_lattice import WordLattice, WordLatticeConfig, determinized, problem_of

WIDE = WordLatticeConfig(beam=EVERYTHING)
BY_HAND = """utt-1
0 1 A 1.5,-2.25,3_4
0 2 B 0.5,4,5
1 0.25,0.0,1
2 3 C -1,8,1_1
3 0.75,0,

utt-2
5 7 B 0,1,2
7 0,0,
"""


def read(path, **options):
    return dict(read_lattices(path, WORDS, **{"acoustic_scale": SCALE, **options}))


@settings(max_examples=40)
@given(st.lists(st.integers(0, 2**32 - 1), max_size=4), st.booleans())
def test_what_is_written_is_read_again(tmp_path_factory, seeds, as_numbers):
    path = tmp_path_factory.mktemp("lattices") / "lat.txt"
    lattices = {f"utt-{i}": determinized("u", random_lattice(seed, 4), WIDE) for i, seed in enumerate(seeds)}
    write_lattices(path, lattices.items(), WORDS, as_numbers=as_numbers)
    again = read(path, as_numbers=as_numbers, beam=EVERYTHING)
    assert list(again) == list(lattices)
    for utterance, lattice in lattices.items():
        assert problem_of(again[utterance]) is None
        for each in fields(WordLattice):
            expected, value = getattr(lattice, each.name), getattr(again[utterance], each.name)
            if each.name == "begin":  # which has no place in the file
                expected = np.minimum(lattice.frame[lattice.target], lattice.frames - 1)
            np.testing.assert_array_equal(value, expected, err_msg=each.name)
            assert np.asarray(value).dtype == np.asarray(expected).dtype


def hand_written(tmp_path, text=BY_HAND):
    path = tmp_path / "lat.txt"
    path.write_text(text)
    return path


def test_a_file_made_by_hand_is_read(tmp_path):
    lattices = read(hand_written(tmp_path))
    assert list(lattices) == ["utt-1", "utt-2"]
    first = sorted(all_word_paths(lattices["utt-1"]), key=lambda path: path.words)
    assert [(path.words, path.pdfs) for path in first] == [((1,), (2, 3, 0)), ((2, 3), (4, 0, 0))]
    assert [(path.graph_cost, path.log_likelihood) for path in first] == [(1.75, 2.25), (0.25, -12.0)]
    assert lattices["utt-1"].frames == 3
    assert lattices["utt-2"].frames == 1
    assert all(problem_of(each) is None for each in lattices.values())
    assert lattices["utt-1"].acoustic_scale == SCALE


def test_a_compressed_file_is_read_too(tmp_path):
    path = tmp_path / "lat.gz"
    path.write_bytes(gzip.compress(hand_written(tmp_path).read_bytes()))
    assert list(read(path)) == ["utt-1", "utt-2"]


def test_a_weight_that_is_left_out_is_one_of_no_cost(tmp_path):
    lattice = read(hand_written(tmp_path, "u\n0 1 A\n1 2 B 0,0,1\n2\n"))["u"]
    assert [(path.words, path.pdfs, path.cost) for path in all_word_paths(lattice)] == [((1, 2), (0,), 0.0)]


def test_the_score_of_an_end_without_frames_is_read(tmp_path):
    lattice = read(hand_written(tmp_path, "u\n0 1 A 0,2,1\n1 0.5,3,\n"))["u"]
    assert problem_of(lattice) is None
    [path] = all_word_paths(lattice)
    assert (path.words, path.pdfs, path.graph_cost, path.log_likelihood) == ((1,), (0,), 0.5, -5.0)


def test_the_lines_are_those_of_kaldi(tmp_path):
    lattice = WordLattice(
        frame=np.array([0, 2, 3], np.int32), final=np.array([np.inf, np.inf, 0.0]),
        source=np.array([0, 1], np.int32), target=np.array([1, 2], np.int32), word=np.array([3, 0], np.int32),
        begin=np.array([1, 2], np.int32), graph_cost=np.array([1.5, 0.25]), log_likelihood=np.array([-8.0, 2.0]),
        pdf=np.array([6, 6, 0], np.int32), offset=np.array([0, 2, 3]), acoustic_scale=0.1, reached_final=True, beam=8.0,
    )  # fmt: skip
    write_lattices(tmp_path / "text", [("a-1", lattice)], WORDS)
    assert (tmp_path / "text").read_text() == "a-1\n0 1 C 1.5,8.0,7_7\n1 0.25,-2.0,1\n\n"
    write_lattices(tmp_path / "numbers", [("a-1", lattice)], WORDS, as_numbers=True)
    assert (tmp_path / "numbers").read_text().splitlines()[1] == "0 1 3 1.5,8.0,7_7"


DAMAGED = [
    ("u\n0 1 A 0,0,1\n", "1: u: no line for node 1, to which an arc leads; the file is cut off"),
    ("u\n0 1 A 0,0,1\n1 0,0\n", "3: expected graph,acoustic,ids, found '0,0'; the file may be cut off"),
    ("u\n0 1 A 0,0,1 9\n1\n", "2: expected 'from to word graph,acoustic,ids' or .*, found 5 fields"),
    ("u\n\n", "1: u: an empty lattice"),
    ("u\n\nu\n0 0,0,1\n", "1: u: an empty lattice"),
    (
        "u\n0 0,0,1\n\nu\n0 0,0,1\n",
        "4: expected the id of the next utterance, found 'u'; each lattice has an id of its",
    ),
    ("u\n0 0,0,1\n\n0 1 A 0,0,1\n1\n", "4: expected the id of the next utterance, found '0 1 A 0,0,1'"),
    ("u\n-1 1 A 0,0,1\n1\n", "2: expected a node from 0 to 2147483646, found '-1'"),
    ("u\n0 99999999999 A 0,0,1\n1\n", "2: expected a node from 0 to 2147483646, found '99999999999'"),
    ("u\n0 1_0 A 0,0,1\n1\n", "2: expected a node from 0 to 2147483646, found '1_0'"),
    ("u\n0 1 A 0,0,1_-2\n1\n", "2: expected ids from 1 to 2147483646, pdfs counted from 1, found '-2'"),
    ("u\n0 1 A 0,0,1__2\n1\n", "2: expected ids from 1 to 2147483646, pdfs counted from 1, found ''"),
    ("u\n0 1 A 0,0,1_0\n1\n", "2: expected ids from 1 to 2147483646, pdfs counted from 1, found '0'"),
    ("u\n0 1 A 0,0,1_2147483647\n1\n", "2: expected ids from 1 to 2147483646, .*, found '2147483647'"),
    ("u\n0 1 A nan,0,1\n1\n", "2: expected a cost up to 1e.09, found 'nan'"),
    ("u\n0 1 A 0,inf,1\n1\n", "2: expected a cost up to 1e.09, found 'inf'"),
    ("u\n0 1 A 0,1e999,1\n1\n", "2: expected a cost up to 1e.09, found '1e999'"),
    ("u\n0 1 A 0,-3e9,1\n1\n", "2: expected a cost up to 1e.09, found '-3e9'"),
    ("u\n0 1 A 0,1_0,1\n1\n", "2: expected a cost up to 1e.09, found '1_0'"),
    ("u\n0 1 D 0,0,1\n1\n", "2: the word 'D' is not in the table"),
    ("u\n0 1 <eps> 0,0,1\n1\n", "2: an arc without a word; determinize the lattice first"),
    ("u\n0 1 A 0,0,1\n0 1 A 0,0,2\n1\n", "3: the second arc with 'A' of node 0; determinize the lattice first"),
    ("u\n0 1 A 0,0,1\n1 0,0,\n1 0,0,2\n", "4: the second end of node 1"),
    ("u\n0 0 A 0,0,1\n0 0,0,1\n", "2: an arc from node 0 to itself"),
    ("u\n0 1 A 0,0,1\n1 2 A 0,0,\n2 1 A 0,0,\n2 0,0,1\n", "3: node 1 is in a cycle or behind one"),
    ("u\n0 1 A 0,0,1\n1 0 A 0,0,\n1 0,0,1\n", "2: node 0 is in a cycle or behind one"),
    ("u\n0 1 A 0,0,1\n1\n3 1 A 0,0,1\n", "4: no arc leads to node 3, and the first line starts from 0"),
    ("u\n3\n0 1 A 0,0,1\n1\n", "3: no arc leads to node 0, and the first line starts from 3"),
    ("u\n0 1 A 0,0,1\n0 1 B 0,0,1_2\n1\n", "3: node 1 is reached after 2 frames, and elsewhere after 1"),
    ("u\n0 1 A 0,0,1\n0 2 B 0,0,1\n1 0,0,3\n2\n", "5: paths end after 1 frames, others after 2"),
    ("u\n0 1 A 0,0,\n1\n", "1: u: a lattice without frames"),
]


@pytest.mark.parametrize(("text", "problem"), DAMAGED)
def test_what_is_damaged_is_named(tmp_path, text, problem):
    (tmp_path / "lat.txt").write_text(text)
    with pytest.raises(LatticeError, match=re.escape(f"{tmp_path / 'lat.txt'}:") + problem):
        read(tmp_path / "lat.txt")


def test_numbers_and_words_are_not_mixed_up(tmp_path):
    path = hand_written(tmp_path)
    with pytest.raises(LatticeError, match=r"the word 'A' is not in the table; .* say whether words are numbers"):
        read(path, as_numbers=True)
    path = hand_written(tmp_path, "u\n0 1 4 0,0,1\n1\n")
    with pytest.raises(LatticeError, match="the word '4' is not in the table"):
        read(path, as_numbers=True)


@settings(max_examples=300)
@given(st.data())
def test_whatever_is_changed_in_a_file_is_a_lattice_or_an_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "changed.txt"
    text = BY_HAND
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(text)))
        length = data.draw(st.integers(0, 6))
        new = data.draw(st.text("0123456789 ,_.-eABCn\n", max_size=4))
        text = text[:place] + new + text[place + length :]
    path.write_text(text)
    try:
        lattices = read(path)
    except LatticeError:
        return
    assert all(problem_of(each) is None for each in lattices.values())


def test_what_cannot_be_written_is_refused(tmp_path):
    lattice = determinized("u", random_lattice(2, 4), WIDE)
    path = tmp_path / "lat.txt"
    for utterance in ("", "a b", "a\n"):
        with pytest.raises(LatticeError, match=r"the id .* is empty, has white space, or occurs twice"):
            write_lattices(path, [(utterance, lattice)], WORDS)
    with pytest.raises(LatticeError, match="the id 'a' is empty, has white space, or occurs twice"):
        write_lattices(path, [("a", lattice), ("a", lattice)], WORDS)
    with pytest.raises(LatticeError, match="a: a lattice with word 3, a table of 2 words"):
        write_lattices(path, [("a", lattice)], WORDS[:2])
    empty = replace(lattice, final=np.full_like(lattice.final, np.inf))
    with pytest.raises(LatticeError, match="a: not a word lattice: no path leads to an end"):
        write_lattices(path, [("a", empty)], WORDS)
    assert not path.exists()
