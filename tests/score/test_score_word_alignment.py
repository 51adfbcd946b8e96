"""Words beside each other: counts are those of ``score``, and every word of every text is there in order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhuc_asr.score.wer import score
from lhuc_asr.score.word_alignment import Column, Fate, word_columns

WORDS = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=8)


@given(WORDS.filter(bool), WORDS, WORDS)
def test_the_columns_have_every_word_and_the_errors_of_the_score(reference, before, after):
    columns = word_columns(reference, before, after)
    for which, words in (("reference", reference), ("before", before), ("after", after)):
        assert [each for column in columns if (each := getattr(column, which)) is not None] == words
    assert [column.place for column in columns if column.place is not None] == list(range(len(after)))
    for which, words in (("before", before), ("after", after)):
        errors = sum(getattr(column, which) != column.reference for column in columns)
        assert errors == score({"u": " ".join(reference)}, {"u": " ".join(words)}, {"u": "s"}).errors
    assert all((each.reference, each.before, each.after) != (None, None, None) for each in columns)


@pytest.mark.parametrize(
    ("before", "after", "fates"),
    [
        (["go", "on"], ["go", "on"], [Fate.RIGHT, Fate.RIGHT]),
        (["no", "on"], ["go", "on"], [Fate.MENDED, Fate.RIGHT]),
        (["go", "on"], ["go"], [Fate.RIGHT, Fate.BROKEN]),
        (["no", "on"], ["so", "on"], [Fate.WRONG, Fate.RIGHT]),
        (["go", "up", "on"], ["go", "on"], [Fate.RIGHT, Fate.MENDED, Fate.RIGHT]),
        (["go", "up", "on"], ["go", "in", "on"], [Fate.RIGHT, Fate.WRONG, Fate.RIGHT]),
        ([], [], [Fate.WRONG, Fate.WRONG]),
    ],
)
def test_what_became_of_each_word(before, after, fates):
    assert [column.fate for column in word_columns(["go", "on"], before, after)] == fates


def test_words_too_many_at_one_place_stand_in_one_column():
    assert word_columns(["a"], ["a", "x", "y"], ["a", "z"]) == [
        Column("a", "a", "a", 0),
        Column(None, "x", "z", 1),
        Column(None, "y", None, None),
    ]


def test_nothing_was_said():
    assert word_columns([], ["x"], []) == [Column(None, "x", None, None)]
    assert word_columns([], [], []) == []
