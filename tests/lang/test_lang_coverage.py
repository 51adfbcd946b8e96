"""Words that a lexicon lacks: pronounced, replaced by <unk>, or refused."""

import logging
import re

import pytest

from lhuc_asr.base.errors import LexiconError
from lhuc_asr.lang.coverage import aligned_words, cover, warn_of_unknown_words
from lhuc_asr.lang.lexicon import Lexicon
from lhuc_asr.lang.phones import PhoneSet

PHONES = PhoneSet(("SIL",), ("A", "B", "C"))


def lexicon_of(**words):
    return Lexicon({word: (tuple(phones.split()),) for word, phones in words.items()}, PHONES)


def test_cover_pronounces(caplog):
    lexicon = lexicon_of(X="A")
    asked = []

    def pronounce(words):
        asked.append(words)
        return dict.fromkeys(words, ("B", "C"))

    with caplog.at_level(logging.INFO):
        coverage = cover(lexicon, ["Z", "X", "Y"], "pronounce", pronounce)
    assert asked == [["Y", "Z"]]
    assert coverage.added == {"Y": ("B", "C"), "Z": ("B", "C")}
    assert coverage.unknown == ()
    assert coverage.lexicon.pronunciations == {"X": (("A",),), "Y": (("B", "C"),), "Z": (("B", "C"),)}
    assert "2 words not in the lexicon, pronunciations made: Y Z" in caplog.text


def test_cover_with_unknown_word(caplog):
    coverage = cover(lexicon_of(X="A"), ["X", "Y"], "unk")
    assert coverage.lexicon.pronunciations == {"X": (("A",),), "<unk>": (("SPN",),)}
    assert coverage.lexicon.phones == PhoneSet(("SIL", "SPN"), ("A", "B", "C"))
    assert coverage.added == {"<unk>": ("SPN",)}
    assert coverage.unknown == ("Y",)
    assert "1 word not in the lexicon, treated as <unk>: Y" in caplog.text
    again = cover(coverage.lexicon, ["Y"], "unk")
    assert again.lexicon == coverage.lexicon
    assert again.added == {}


def test_cover_needs_nothing():
    lexicon = lexicon_of(X="A")
    for policy in ("pronounce", "unk", "error"):
        assert cover(lexicon, ["X"], policy).lexicon is lexicon


def test_cover_refuses():
    lexicon = lexicon_of(X="A")
    many = [f"W{index:02}" for index in range(12)]
    with pytest.raises(LexiconError, match=r"12 words not in the lexicon: W00 .* W09 \.\.\.; add them"):
        cover(lexicon, many, "error")
    with pytest.raises(LexiconError, match="1 word could not be pronounced: Y; add"):
        cover(lexicon, ["Y", "Z"], "pronounce", lambda _: {"Z": ("A",)})
    with pytest.raises(LexiconError, match="'Z': its pronunciation has phones outside the phone set: Q"):
        cover(lexicon, ["Z"], "pronounce", lambda _: {"Z": ("Q",)})
    with pytest.raises(LexiconError, match="needs a function that pronounces them"):
        cover(lexicon, ["Z"], "pronounce")
    with pytest.raises(LexiconError, match="policy 'guess': expected one of pronounce, unk, error"):
        cover(lexicon, ["Z"], "guess")


def test_aligned_words_are_unknown_only_if_the_lexicon_has_that_word():
    lexicon = lexicon_of(X="A")
    assert aligned_words(["X", "Y"], lexicon) == ("X", "Y")
    assert aligned_words(["X", "Y"], cover(lexicon, ["Z"], "unk").lexicon) == ("X", "<unk>")


def test_sounds_of_a_text_get_phones_of_their_own_under_every_policy() -> None:
    for policy in ("pronounce", "unk", "error"):
        covered = cover(lexicon_of(X="A"), ["X", "<NOISE>", "<unk>"], policy)
        assert covered.lexicon.pronunciations == {"X": (("A",),), "<NOISE>": (("NSN",),), "<unk>": (("SPN",),)}
        assert covered.lexicon.phones.silence == ("SIL", "SPN", "NSN")
        assert covered.added == {"<NOISE>": ("NSN",), "<unk>": ("SPN",)}
    assert cover(lexicon_of(X="A"), ["<NOISE>"], "error").lexicon.phones.silence == ("SIL", "NSN")


def test_a_tag_that_the_lexicon_lacks_is_unknown_or_left_out_and_a_word_is_neither() -> None:
    said = ["X", "<NOISE>", "[LAUGHTER]", "Y"]
    assert aligned_words(said, lexicon_of(X="A")) == ("X", "Y")
    assert aligned_words(said, lexicon_of(**{"X": "A", "<unk>": "B", "[LAUGHTER]": "C"})) == (
        "X", "<unk>", "[LAUGHTER]", "<unk>",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("said", "level", "message"),
    [
        ("X X Y <unk>", logging.INFO, "test: 66.7 % of 3 words are in the vocabulary"),
        ("x y x X", logging.WARNING, "test: only 1 of 4 words (25.0 %) are in the vocabulary; .* such as x y; .* X Z;"),
        ("x", logging.WARNING, "test: only 0 of 1 words (0.0 %)"),
    ],
)
def test_a_text_outside_the_vocabulary_is_a_warning(said: str, level: int, message: str, caplog) -> None:
    with caplog.at_level(logging.INFO, "lhuc_asr"):
        warn_of_unknown_words("test", [said.split()], lexicon_of(X="A", Z="B"))
    (record,) = caplog.records
    assert record.levelno == level
    assert re.search(message.replace("(", r"\(").replace(")", r"\)"), record.getMessage())
    caplog.clear()
    warn_of_unknown_words("test", [["<unk>", "<NOISE>"]], lexicon_of(X="A"))
    assert not caplog.records
