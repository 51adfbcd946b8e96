"""Phones of alignments against a frame-by-frame walk, and the pdfs of other topologies against alignment with them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lhuc_asr.base.errors import AlignmentError
from lhuc_asr.hmm.aligned_phones import AlignedPhones, distinct_rows
from lhuc_asr.hmm.states import HmmState
from lhuc_asr.hmm.topology import MonophoneTopology
from lhuc_asr.hmm.transcript import transcript_graph
from lhuc_asr.hmm.viterbi import align
from lhuc_asr.lang.lexicon import Lexicon
from lhuc_asr.lang.phones import SILENCE, PhoneSet

LEXICON = Lexicon({"a": (("A",),), "aa": (("A", "A"),), "ab": (("A", "B"), ("B",))}, PhoneSet.of(["A", "B"]))
TOPOLOGY = MonophoneTopology.initial(LEXICON.phones)


class Windows:
    """A pdf for each state of each window, of any width up to three."""

    def __init__(self, width: int, central: int) -> None:
        self.context_width, self.central_position, self.phones = width, central, LEXICON.phones
        self.pdf_of: dict[tuple[tuple[str, ...], int], int] = {}

    def states(self, window: tuple[str, ...]) -> tuple[HmmState, ...]:
        assert len(window) == self.context_width
        count = 5 if window[self.central_position] == SILENCE else 3
        return tuple(HmmState(self.pdf_of.setdefault((window, k), len(self.pdf_of)), 0.75) for k in range(count))


def walked(words: list[str], scores: np.ndarray) -> tuple[AlignedPhones, list[tuple[str, str, str, int]]]:
    """The phones of the best path, and the same by going through its pdfs one by one."""
    graph = transcript_graph(words, LEXICON, TOPOLOGY)
    (path,) = align([graph], [scores])
    assert path is not None
    owner = {
        TOPOLOGY.first_pdf[phone] + position: (phone, position)
        for phone in LEXICON.phones.names
        for position in range(5 if phone == SILENCE else 3)
    }
    phones: list[tuple[str, list[int]]] = []
    before = -1
    for state, pdf in zip(path.states.tolist(), path.pdfs.tolist(), strict=True):
        phone, position = owner[pdf]
        if state != before and position == 0:
            phones.append((phone, []))
        phones[-1][1].append(position)
        before = state
    names = ["", *(phone for phone, _ in phones), ""]
    expected = [
        (names[index], names[index + 1], names[index + 2], position)
        for index, (_, positions) in enumerate(phones)
        for position in positions
    ]
    return AlignedPhones.of(path, graph, LEXICON.phones), expected


@settings(max_examples=60)
@given(words=st.lists(st.sampled_from(LEXICON.words), min_size=1, max_size=4), seed=st.integers(0, 10_000))
def test_the_phones_are_those_of_a_walk_along_the_path(words, seed):
    generator = np.random.default_rng(seed)
    scores = generator.normal(scale=4.0, size=(generator.integers(45, 70), TOPOLOGY.pdf_count)).astype(np.float32)
    aligned, expected = walked(words, scores)
    names = ("", *LEXICON.phones.names)
    rows = [(names[left], names[phone], names[right], position) for left, phone, right, position in aligned.table]
    assert rows == expected
    assert aligned.table.dtype == np.int32


def test_a_phone_that_is_said_twice_is_two_phones():
    scores = np.zeros((9, TOPOLOGY.pdf_count), np.float32)
    scores[:, TOPOLOGY.silence_pdfs] = -100.0
    aligned, _ = walked(["a", "aa"], scores)
    a = LEXICON.phones.ids["A"]
    assert aligned.left.tolist() == [0, 0, 0, a, a, a, a, a, a]
    assert aligned.right.tolist() == [a, a, a, a, a, a, 0, 0, 0]
    assert aligned.position.tolist() == [0, 1, 2] * 3


@pytest.mark.parametrize(("width", "central"), [(1, 0), (2, 0), (2, 1), (3, 1)])
def test_the_pdfs_of_another_topology_are_those_of_its_states(width, central):
    scores = np.random.default_rng(width).normal(scale=4.0, size=(80, TOPOLOGY.pdf_count)).astype(np.float32)
    aligned, expected = walked(["ab", "a", "aa"], scores)
    other = Windows(width, central)
    pdfs = aligned.pdfs(other)
    windows = [row[1 - central : 1 - central + width] for row in expected]
    assert pdfs.tolist() == [
        other.states(window)[position].pdf for window, (*_, position) in zip(windows, expected, strict=True)
    ]
    assert pdfs.dtype == np.int32
    assert len(set(pdfs)) > 5


def test_the_pdfs_of_the_same_topology_are_those_of_the_path():
    scores = np.random.default_rng(0).normal(scale=4.0, size=(80, TOPOLOGY.pdf_count)).astype(np.float32)
    graph = transcript_graph(["ab", "aa"], LEXICON, TOPOLOGY)
    (path,) = align([graph], [scores])
    assert path is not None
    assert np.array_equal(AlignedPhones.of(path, graph, LEXICON.phones).pdfs(TOPOLOGY), path.pdfs)


@pytest.mark.parametrize(
    ("phones", "message"),
    [
        (PhoneSet.of(["A"]), "has the phone 3, the topology 2 phones"),
        (PhoneSet((), ("X", "Y", "Z")), "in state 3 of X, which has 3 states"),
    ],
)
def test_an_alignment_of_another_phone_set_is_an_error(phones, message):
    scores = np.zeros((40, TOPOLOGY.pdf_count), np.float32)
    scores[:, TOPOLOGY.silence_pdfs] = 1.0
    aligned, _ = walked(["ab", "ab"], scores)
    with pytest.raises(AlignmentError, match=message):
        aligned.pdfs(MonophoneTopology.initial(phones))


def test_wider_windows_are_an_error():
    aligned, _ = walked(["ab"], np.zeros((30, 11), np.float32))
    with pytest.raises(AlignmentError, match="windows of 3 phones"):
        aligned.pdfs(Windows(3, 0))


@given(st.lists(st.tuples(*[st.integers(0, 300)] * 3, st.integers(0, 4)), min_size=1, max_size=40))
def test_distinct_rows_are_those_of_a_set(rows):
    table = np.array(rows, np.int32)
    distinct, which = distinct_rows(table)
    assert distinct.tolist() == [list(row) for row in sorted(set(rows))]
    assert np.array_equal(distinct[which], table)
