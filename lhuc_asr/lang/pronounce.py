"""Pronunciations from espeak-ng's rules, for words that are not in a dictionary.

For English, espeak-ng's International Phonetic Alphabet is mapped to the 39 phones of CMUdict (ARPABET without stress,
also AN4's). Any other language has espeak-ng's own phonemes as its phones, so that a lexicon can be made for a language
without a dictionary.

The accents differ more in espeak-ng than ARPABET can express. "en-us" fits CMUdict best; non-rhotic accents lose their
r, as in speech.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping

from lhuc_asr.base.errors import LexiconError
from lhuc_asr.base.espeak import PHONEME_SEPARATOR, phonemes
from lhuc_asr.lang.phones import SPOKEN_NOISE, PhoneSet

# The longest match wins. The phonemes come from all of espeak-ng's English accents.
_ARPABET = {
    # consonants
    "b": "B", "d": "D", "dʒ": "JH", "ð": "DH", "f": "F", "ɡ": "G", "g": "G", "h": "HH", "j": "Y", "k": "K",
    "l": "L", "ɫ": "L", "m": "M", "n": "N", "ŋ": "NG", "p": "P", "ɹ": "R", "r": "R", "s": "S", "ʃ": "SH",
    "t": "T", "tʃ": "CH", "θ": "TH", "v": "V", "w": "W", "z": "Z", "ʒ": "ZH",
    # the tap of "butter", the stop of "button", Scottish "which", dental stops, sounds of borrowed words
    "ɾ": "T", "ʔ": "T", "ʍ": "W", "t̪": "TH", "d̪": "DH", "x": "K", "ç": "HH", "ɬ": "L",
    # syllabic consonants
    "n̩": "AH N", "l̩": "AH L", "m̩": "AH M", "ɹ̩": "ER",
    # vowels; length marks are skipped except where they tell vowels apart
    "ɑ": "AA", "ɒ": "AA", "æ": "AE", "a": "AE", "ɐ": "AH", "ʌ": "AH", "ə": "AH", "ɔ": "AO", "e": "EY",
    "ɛ": "EH", "ɜ": "AH", "ɜː": "ER", "ɝ": "ER", "ɚ": "ER", "əɹ": "ER", "ɪ": "IH", "ᵻ": "IH", "ɨ": "IH",
    "i": "IY", "o": "OW", "ʊ": "UH", "ᵿ": "UH", "u": "UW", "ʉ": "UW", "y": "UW", "ɑː": "AA", "aː": "AA",
    "aa": "AA", "a:": "AA",
    # diphthongs
    "aɪ": "AY", "ʌɪ": "AY", "aʊ": "AW", "æʊ": "AW", "ʌʉ": "AW", "eɪ": "EY", "ei": "IY", "eʲ": "EY",
    "ɔɪ": "OY", "oɪ": "OY", "oʊ": "OW", "əʊ": "OW", "ʌʊ": "OW", "əu": "UW", "əɪ": "ER",
    "iə": "IY AH", "aɪə": "AY AH", "aɪɚ": "AY ER", "eə": "EH R", "ɛə": "EH R", "ʊə": "UH R", "ɑə": "AA R",
    "ɔə": "AO R", "oə": "AO R", "ʌɹ": "ER",
    # nasal vowels of French words
    "ɑ̃": "AA N", "ɔ̃": "AO N", "ɛ̃": "AE N", "œ̃": "AH N",
}  # fmt: skip

# Stress, length, syllable breaks, ties, linking and palatalisation: ARPABET without stress has none of them.
_SKIPPED = frozenset("ˈˌːˑ:.-‿͜͡ʲʰ")
_TIES = {ord("͡"): None, ord("͜"): None}
_LONGEST_KEY = max(map(len, _ARPABET))

# The mark of a switch to another language's rules: "(en)".
_SWITCH = re.compile(r"\([^)]*\)")
_SEPARATORS = re.compile(rf"[\s{PHONEME_SEPARATOR}]+")
_STRESS = re.compile(r"[ˈˌ]")


def ipa_to_arpabet(ipa: str) -> tuple[str, ...]:
    """English phonemes of the International Phonetic Alphabet as CMUdict's phones, without stress.

    Args:
        ipa: Phonemes, with or without ``_`` between them, stress and length marks.

    Raises:
        LexiconError: A symbol is not an English phone; the message names it.

    Example:
        >>> ipa_to_arpabet("h_ə_l_ˈoʊ w_ˈɜː_l_d")
        ('HH', 'AH', 'L', 'OW', 'W', 'ER', 'L', 'D')
    """
    phones: list[str] = []
    for segment in _SEPARATORS.split(_STRESS.sub("", ipa.translate(_TIES))):
        phones.extend(_segment_phones(segment, ipa))
    # "hurry" is HH ER IY, because the vowel already has the r; "eə_ɹ" has its r twice.
    return tuple(
        phone for phone, last in zip(phones, ["", *phones], strict=False) if phone != "R" or last not in ("ER", "R")
    )


def pronounce(
    words: Iterable[str], language: str = "en-us", phones: PhoneSet | None = None
) -> Mapping[str, tuple[str, ...]]:
    """CMUdict phones of English words.

    Args:
        words: Words of any case; capitals are not read as abbreviations.
        language: An English accent of espeak-ng.
        phones: Phones of the lexicon that the words will be added to; other phones are an error.

    Returns:
        Word -> phones, in the words' order.

    Raises:
        LexiconError: The language is not English, a word has no pronunciation (it has no letter), or a pronunciation
            has phones that ``phones`` lacks.
        ConfigError: espeak-ng does not know the language.
        MissingExtraError: espeak-ng is not installed.
    """
    if language.partition("-")[0] != "en":
        raise LexiconError(
            f"language: expected English, which has CMUdict phones, found {language!r}; use pronounce_native"
        )
    lexicon = {word: ipa_to_arpabet(_spoken(word, language)) for word in words}
    _require_phones(lexicon, language)
    if phones is not None:
        _require_known(lexicon, phones)
    return lexicon


def pronounce_native(words: Iterable[str], language: str) -> Mapping[str, tuple[str, ...]]:
    """Phones of words in any language: espeak-ng's own phonemes with length, nasality and tone, without stress.

    Args:
        words: Words in the language's script; a word in another script gets that script's phonemes.
        language: One of espeak-ng's ``languages()``.

    Returns:
        Word -> phones, in the words' order. A phone is a printable token without white space.

    Raises:
        LexiconError: A word has no pronunciation.
        ConfigError: espeak-ng does not know the language.
        MissingExtraError: espeak-ng is not installed.
    """
    lexicon = {word: _native_phones(_spoken(word, language)) for word in words}
    _require_phones(lexicon, language)
    return lexicon


def _spoken(word: str, language: str) -> str:
    # espeak-ng spells short words in capitals letter by letter, and transcripts often are in capitals.
    return _SWITCH.sub(" ", phonemes(word.lower() if word.isupper() else word, language))


def _segment_phones(segment: str, ipa: str) -> list[str]:
    phones: list[str] = []
    start = 0
    while start < len(segment):
        for end in range(min(len(segment), start + _LONGEST_KEY), start, -1):
            if segment[start:end] in _ARPABET:
                phones.extend(_ARPABET[segment[start:end]].split())
                start = end
                break
        else:
            if segment[start] not in _SKIPPED:
                raise LexiconError(
                    f"{ipa!r}: {segment[start]!r} (U+{ord(segment[start]):04X}) is not an English phone; "
                    "use pronounce_native for another language"
                )
            start += 1
    return phones


def _native_phones(ipa: str) -> tuple[str, ...]:
    text = unicodedata.normalize("NFC", _STRESS.sub("", ipa.translate(_TIES)).replace(":", "ː"))
    phones = ("".join(filter(_is_phonetic, segment)) for segment in _SEPARATORS.split(text))
    return tuple(phone for phone in phones if phone)


def _is_phonetic(character: str) -> bool:
    # Letters, combining marks, tones as digits, rhotic hooks, the dot of Mandarin's retroflexes. Other signs, which
    # some languages' rules emit ("#", "["), have meanings of their own in symbol tables.
    return character == "." or unicodedata.category(character)[0] in "LMN" or character == "˞"


def _require_phones(lexicon: Mapping[str, tuple[str, ...]], language: str) -> None:
    empty = [word for word, phones in lexicon.items() if not phones]
    if empty:
        raise LexiconError(
            f"espeak-ng has no pronunciation of {_some(empty)} in {language!r}; "
            f"correct the transcript, or give such words {SPOKEN_NOISE} in the lexicon"
        )


def _require_known(lexicon: Mapping[str, tuple[str, ...]], phones: PhoneSet) -> None:
    known = set(phones.names)
    strange = {word: sorted(set(spelt) - known) for word, spelt in lexicon.items()}
    strange = {word: lacking for word, lacking in strange.items() if lacking}
    if strange:
        names = " ".join(phones.speech)
        shown = [f"{word} ({' '.join(lacking)})" for word, lacking in strange.items()]
        raise LexiconError(
            f"pronunciations with phones that the lexicon lacks: {_some(shown)}; it has {names}; "
            "add these words to the lexicon, or leave them out"
        )


def _some(items: list[str], most: int = 10) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
