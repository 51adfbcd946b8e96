"""Two hypotheses of an utterance beside its reference, word by word: what was mended, broken, or stays wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import zip_longest

import jiwer


class Fate(StrEnum):
    """What became of a word."""

    RIGHT = "right"  # in both hypotheses
    MENDED = "mended"  # wrong before, right after
    BROKEN = "broken"  # right before, wrong after
    WRONG = "wrong"  # in both


@dataclass(frozen=True)
class Column:
    """A word of the reference with what each hypothesis has for it, or a place where one has a word too many.

    Attributes:
        reference: The word that was said; None where nothing was.
        before: The word of the first hypothesis; None where it has none.
        after: The word of the second hypothesis; None where it has none.
        place: Number of the second hypothesis's word among its words, from 0; None where it has none.
    """

    reference: str | None
    before: str | None
    after: str | None
    place: int | None

    @property
    def fate(self) -> Fate:
        """What became of the word."""
        right = self.before == self.reference, self.after == self.reference
        return {
            (True, True): Fate.RIGHT,
            (False, True): Fate.MENDED,
            (True, False): Fate.BROKEN,
            (False, False): Fate.WRONG,
        }[right]


def word_columns(reference: Sequence[str], before: Sequence[str], after: Sequence[str]) -> list[Column]:
    """Align two hypotheses with one reference, each at minimum edit distance, as ``score`` does.

    Args:
        reference: Words that were said.
        before: Words of the first hypothesis.
        after: Words of the second hypothesis.

    Returns:
        A column for each word of the reference, and between them one for each word too many; such words of the two
        hypotheses stand in one column where both have one at the same place.

    Example:
        >>> [str(each.fate) for each in word_columns(["go", "on"], ["no", "on"], ["go", "on", "now"])]
        ['mended', 'right', 'broken']
    """
    instead, too_many = zip(*(_aligned(reference, words) for words in (before, after)), strict=True)
    columns: list[Column] = []
    for position in range(len(reference) + 1):
        places = zip_longest(*(extra.get(position, []) for extra in too_many))
        columns += [_column(None, place, before, after) for place in places]
        if position < len(reference):
            columns.append(_column(reference[position], [each[position] for each in instead], before, after))
    return columns


def _column(word: str | None, place: Sequence[int | None], before: Sequence[str], after: Sequence[str]) -> Column:
    first, second = place
    return Column(word, None if first is None else before[first], None if second is None else after[second], second)


def _aligned(reference: Sequence[str], words: Sequence[str]) -> tuple[list[int | None], dict[int, list[int]]]:
    """For each reference word the number of the word in its place; and numbers of words too many, by position."""
    instead: list[int | None] = [None] * len(reference)
    too_many: dict[int, list[int]] = {}
    output = jiwer.process_words([" ".join(reference)], [" ".join(words)])
    for chunk in output.alignments[0]:
        hypothesis = range(chunk.hyp_start_idx, chunk.hyp_end_idx)
        if chunk.type == "insert":
            too_many.setdefault(chunk.ref_start_idx, []).extend(hypothesis)
        elif chunk.type != "delete":
            for position, place in zip(range(chunk.ref_start_idx, chunk.ref_end_idx), hypothesis, strict=True):
                instead[position] = place
    return instead, too_many
