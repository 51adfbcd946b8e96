"""Words that a lexicon lacks: pronounced, replaced by <unk>, or refused."""

import logging

import pytest

from lhuc_asr.base.errors import LexiconError
from lhuc_asr.lang.coverage import aligned_words, cover
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
