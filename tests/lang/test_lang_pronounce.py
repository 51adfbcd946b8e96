"""espeak-ng's pronunciations: known words, every accent covered, errors that name the word."""

import os
import random
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhuc_asr.base.errors import ConfigError, LexiconError
from lhuc_asr.base.espeak import languages, phonemes
from lhuc_asr.lang import pronounce as module
from lhuc_asr.lang.phones import PhoneSet
from lhuc_asr.lang.pronounce import ipa_to_arpabet, pronounce, pronounce_native

ARPABET = set(
    "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH".split()  # noqa: SIM905
)
ENGLISH = [name for name in languages() if name.startswith("en") and name != "en-shaw"]


# Pronunciations as CMUdict has them.
@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("house", "HH AW S"),
        ("judge", "JH AH JH"),
        ("church", "CH ER CH"),
        ("measure", "M EH ZH ER"),
        ("thing", "TH IH NG"),
        ("boy", "B OY"),
        ("butter", "B AH T ER"),
        ("button", "B AH T AH N"),
        ("little", "L IH T AH L"),
        ("fire", "F AY ER"),
        ("hurry", "HH ER IY"),
        ("near", "N IH R"),
        ("yellow", "Y EH L OW"),
        ("whether", "W EH DH ER"),
        ("IT", "IH T"),  # not spelled out
    ],
)
def test_known_words(word: str, expected: str):
    assert " ".join(pronounce([word])[word]) == expected


@pytest.mark.parametrize(
    ("ipa", "expected"),
    [
        ("tʃɜːtʃ", "CH ER CH"),  # no separators: the longest phoneme wins
        ("t͡ʃ_ɜː_t͡ʃ", "CH ER CH"),
        ("t_ʃ", "T SH"),
        ("ˈa͡ɪ", "AY"),
        ("ɝ", "ER"),
        ("l̩", "AH L"),
        ("skˈeə_ɹ_i", "S K EH R IY"),
        ("", ""),
    ],
)
def test_ipa(ipa: str, expected: str):
    assert " ".join(ipa_to_arpabet(ipa)) == expected


def test_the_table_holds_the_39_phones_and_no_other():
    assert {phone for phones in module._ARPABET.values() for phone in phones.split()} == ARPABET
    assert len(ARPABET) == 39


@pytest.mark.parametrize("language", ENGLISH)
def test_every_english_accent_is_covered(language: str):
    text = "queue fire sure here there poor father thought lot goat price choice mouth nurse north trap bath dress "
    text += "butter button bottle which loch happy comma letter singing vision judge yacht genre restaurant llama"
    lexicon = pronounce(text.split(), language)
    assert {phone for phones in lexicon.values() for phone in phones} <= ARPABET


@given(st.lists(st.sampled_from(sorted(module._ARPABET)), max_size=8))
def test_segments_between_separators_are_mapped_one_by_one(segments: list[str]):
    phones = ipa_to_arpabet("_".join(segments))
    apart = [phone for segment in segments for phone in module._ARPABET[segment].split()]
    # Only an r that the vowel before it holds already may go.
    assert [p for p in phones if p != "R"] == [p for p in apart if p != "R"]
    assert "ER R" not in " ".join(phones)


def test_an_unknown_symbol_is_an_error():
    with pytest.raises(LexiconError, match=r"'ʘ' \(U\+0298\) is not an English phone"):
        ipa_to_arpabet("ʘ_a")


def test_errors_name_the_words():
    with pytest.raises(LexiconError, match=r"no pronunciation of --- in 'en-us'"):
        pronounce(["box", "---"])
    with pytest.raises(LexiconError, match=r"phones that the lexicon lacks: vision \(V ZH\); it has AA AH B IH K N S"):
        pronounce(["box", "vision"], phones=PhoneSet.of(["B", "AA", "K", "S", "IH", "AH", "N"]))
    with pytest.raises(LexiconError, match=r"expected English, .* found 'de'; use pronounce_native"):
        pronounce(["Haus"], "de")
    with pytest.raises(ConfigError, match="no language 'en-uss'"):
        pronounce(["box"], "en-uss")


def test_native_phones_keep_what_distinguishes_and_drop_stress():
    assert pronounce_native(["Schiff", "Zeit"], "de") == {"Schiff": ("ʃ", "ɪ", "f"), "Zeit": ("ts", "aɪ", "t")}
    assert pronounce_native(["bon"], "fr") == {"bon": ("b", "ɔ̃")}
    # A tone is part of the vowel: two words that differ in nothing else stay two.
    assert len(set(pronounce_native(["妈", "马"], "cmn").values())) == 2


def test_native_phones_are_safe_tokens_in_every_language():
    for language in languages():
        for word in ("casa", "Haus", "жизнь", "中文", "भारत", "שלום"):
            phones = module._native_phones(module._spoken(word, language))
            assert all(phone.isprintable() and not set(phone) & set(" #<>()[]{}\"'") for phone in phones), language


def test_native_words_without_a_sound_are_an_error():
    with pytest.raises(LexiconError, match=r"no pronunciation of \?! in 'fr'"):
        pronounce_native(["?!"], "fr")
    assert phonemes("", "fr") == ""


@pytest.mark.corpus
def test_close_to_cmudict():
    variants = defaultdict(list)
    source = Path(os.environ["LHUC_ASR_DATA"]) / "cmudict" / "cmudict.dict"
    for line in source.read_text().splitlines():
        word, *phones = line.split("#")[0].split()
        variants[word.split("(")[0]].append([phone.rstrip("012") for phone in phones])
    words = random.Random(0).sample(sorted(word for word in variants if word.isalpha()), 500)
    errors = total = 0
    for word, guess in pronounce(words).items():
        nearest = min(variants[word], key=lambda phones: _distance(phones, guess))
        errors += _distance(nearest, guess)
        total += len(nearest)
    assert errors / total < 0.12


def _distance(one: list[str], other: tuple[str, ...]) -> int:
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, start=1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(other, start=1):
            diagonal, row[j] = row[j], min(diagonal + (a != b), row[j] + 1, row[j - 1] + 1)
    return row[-1]
