import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhuc_asr.lang.text import is_reserved, normalise, normalise_name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hello  world\t\n", "HELLO WORLD"),
        ("cafe\N{COMBINING ACUTE ACCENT}", "CAF\N{LATIN CAPITAL LETTER E WITH ACUTE}"),
        ("stra\N{LATIN SMALL LETTER SHARP S}e STRA\N{LATIN CAPITAL LETTER SHARP S}E", "STRASSE STRASSE"),
        ("a-b, c.", "A-B, C."),
        ("well\u2011known \u2010", "WELL-KNOWN -"),
        (" \u00a0\u2003 ", ""),
        ("a\u00a0b\u202fc\u3000d\u2028e\x85f\vg", "A B C D E F G"),
        # zero-width space, joiners, soft hyphen, byte-order mark, mark of direction, word joiner
        ("al\u200bpha br\u00adavo\ufeff \u200ee\u200dc\u200cho\u2060", "ALPHA BRAVO ECHO"),
        ("\u200b \ufeff", ""),
        # An invisible character between a letter and its accent.
        ("cafe\u034f\N{COMBINING ACUTE ACCENT}", "CAF\N{LATIN CAPITAL LETTER E WITH ACUTE}"),
    ],
)
def test_normalise(text: str, expected: str) -> None:
    assert normalise(text) == expected


@pytest.mark.parametrize("apostrophe", "'`\u00b4\u2018\u2019\u201b\u02bc\u02bb\u2032\uff07")
def test_whatever_stands_for_an_apostrophe_is_one(apostrophe: str) -> None:
    assert normalise(f"don{apostrophe}t") == "DON'T"


@given(st.text())
def test_normalise_is_idempotent_composed_and_single_spaced(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert unicodedata.is_normalized("NFC", once)
    assert once.split() == [word for word in once.split(" ") if word]


@given(st.text())
def test_both_unicode_forms_of_a_text_and_of_a_name_are_one(text: str) -> None:
    composed, decomposed = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
    assert normalise(composed) == normalise(decomposed)
    assert normalise_name(composed) == normalise_name(decomposed)
    assert normalise_name(normalise_name(text)) == normalise_name(text)


def test_a_name_keeps_its_case() -> None:
    assert normalise_name("spk\ufeffA-Zoe\N{COMBINING DIAERESIS}") == "spkA-Zo\N{LATIN SMALL LETTER E WITH DIAERESIS}"


def test_reserved_words() -> None:
    assert all(is_reserved(word) for word in ("<eps>", "<s>", "</s>", "#0", "#12"))
    assert not any(is_reserved(word) for word in ("<unk>", "#HASH", "S", ""))
