"""Words placed in time, on scores that leave one path only."""

from __future__ import annotations

import numpy as np
import pytest

from lhuc_asr.base.errors import CorpusError
from lhuc_asr.hmm.topology import MonophoneTopology
from lhuc_asr.lang.lexicon import Lexicon
from lhuc_asr.lang.phones import PhoneSet
from lhuc_asr.recognizer.known_words import PlacedPhone, place, place_transcript

LEXICON = Lexicon({"a": (("A",),), "or": (("A", "B"), ("B",))}, PhoneSet(("SIL",), ("A", "B")))
TOPOLOGY = MonophoneTopology.initial(LEXICON.phones)


def certain(*phones: tuple[str, int]) -> np.ndarray:
    """Scores of phones that last so many frames each, the last state of a phone the longest."""
    pdfs: list[int] = []
    for phone, frames in phones:
        states = [state.pdf for state in TOPOLOGY.states((phone,))]
        pdfs += states[:-1] + states[-1:] * (frames - len(states) + 1)
    scores = np.full((len(pdfs), TOPOLOGY.pdf_count), -100.0, np.float32)
    scores[np.arange(len(pdfs)), pdfs] = 0.0
    return scores


def test_words_lie_where_their_phones_do() -> None:
    scores = certain(("SIL", 9), ("A", 5), ("SIL", 6), ("A", 4), ("B", 7), ("B", 3), ("SIL", 5))
    placed = place(["a", "or", "or"], scores, LEXICON, TOPOLOGY)
    assert placed is not None
    assert placed.spans == ((9, 14), (20, 31), (31, 34))
    assert placed.phones == (
        (PlacedPhone("A", 9, 14),),
        (PlacedPhone("A", 20, 24), PlacedPhone("B", 24, 31)),
        (PlacedPhone("B", 31, 34),),
    )
    np.testing.assert_array_equal(placed.pdfs, scores.argmax(1))


def test_a_phone_that_is_said_twice_is_two_phones() -> None:
    placed = place(["a", "a"], certain(("A", 4), ("A", 6)), LEXICON, TOPOLOGY)
    assert placed is not None
    assert placed.phones == ((PlacedPhone("A", 0, 4),), (PlacedPhone("A", 4, 10),))


def test_too_few_frames_for_the_words_are_told() -> None:
    assert place(["a", "a"], certain(("A", 5)), LEXICON, TOPOLOGY) is None


def test_a_transcript_is_placed_with_its_words_as_it_spells_them() -> None:
    scores = certain(("SIL", 9), ("A", 5), ("SIL", 6), ("B", 7))
    words, placed = place_transcript("x.wav", ("a", "<NOISE>", "or"), scores, LEXICON, TOPOLOGY)
    assert words == ("a", "or")  # the lexicon lacks the tag: its sound is silence
    assert placed.spans == ((9, 14), (20, 27))
    lexicon = Lexicon({**LEXICON.pronunciations, "<unk>": (("B",),)}, LEXICON.phones)
    words, placed = place_transcript("x.wav", ("a", "zebra"), scores, lexicon, TOPOLOGY)
    assert words == ("a", "zebra")
    assert placed.spans == ((9, 14), (20, 27))


@pytest.mark.parametrize(
    ("transcript", "message"),
    [
        (("a", "zebra"), r"x\.wav: .*not in the lexicon: zebra; correct the transcript"),
        (("<NOISE>",), r"x\.wav: its transcript has no words; write them, or leave the recording out"),
        (("a",) * 20, r"x\.wav: too short for its transcript; correct the transcript"),
    ],
)
def test_a_transcript_that_does_not_fit_is_refused(transcript: tuple[str, ...], message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        place_transcript("x.wav", transcript, certain(("A", 5), ("B", 7)), LEXICON, TOPOLOGY)
