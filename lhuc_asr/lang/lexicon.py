"""Pronunciation lexica: words and the phones that spell them, and the word table of a graph.

Lexicon files are lines of a word and its phones, as CMUdict, Sphinx (AN4) and Kaldi write them. Pronunciation
probabilities (Kaldi's ``lexiconp.txt``) are not supported. A silence phone may be the only phone of a word
(``<unk> SPN``), but not one of several: the graph adds pauses between words, with ``silence_probability``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from lhuc_asr.base.atomic import write_text
from lhuc_asr.base.errors import LexiconError
from lhuc_asr.lang.lines import quoted, read_lines
from lhuc_asr.lang.phones import SILENCE, SILENCE_LIKE, PhoneSet
from lhuc_asr.lang.text import (
    BACKOFF,
    EPSILON,
    SENTENCE_BEGIN,
    SENTENCE_END,
    UNKNOWN,
    is_reserved,
    normalise,
    normalise_name,
)

Phones = tuple[str, ...]

# CMUdict marks stress on vowels only; a digit on any other phone, for example a tone, is part of its name.
_STRESSED_VOWEL = re.compile(r"(AA|AE|AH|AO|AW|AX|AXR|AY|EH|ER|EY|IH|IX|IY|OW|OY|UH|UW|UX)[012]")
_VARIANT = re.compile(r"(.+)\(\d+\)")
_PROBABILITY = re.compile(r"\d*\.\d+([eE][-+]?\d+)?")

NO_PROBABILITIES = "pronunciation probabilities are not supported, take the second column out"

# Messages and log lines name this many words; the rest are counted.
_WORDS_SHOWN = 10


@dataclass(frozen=True)
class Lexicon:
    """Words, their pronunciations, and their phone set.

    Attributes:
        pronunciations: The variants of each word, each a tuple of phones.
        phones: The phone set of the acoustic model; a lexicon of few words need not use all of it.
        silence_probability: Probability of an optional silence between two words, in (0, 1).
    """

    pronunciations: Mapping[str, tuple[Phones, ...]]
    phones: PhoneSet
    silence_probability: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 < self.silence_probability < 1.0:
            raise LexiconError(f"silence_probability: expected 0 < p < 1, found {self.silence_probability}")
        known, silence = set(self.phones.names), set(self.phones.silence)
        for word, variants in self.pronunciations.items():
            if not variants:
                raise LexiconError(f"{word!r}: no pronunciation; give it at least one, or leave the word out")
            for phones in variants:
                problem = _word_problem(word) or _phones_problem(phones, silence)
                if problem:
                    raise LexiconError(problem)
                if not known.issuperset(phones):
                    unknown = " ".join(sorted(set(phones) - known))
                    raise LexiconError(
                        f"{word!r}: its pronunciation has phones outside the phone set: {unknown}; "
                        f"known phones: {' '.join(self.phones.names)}"
                    )

    @cached_property
    def words(self) -> tuple[str, ...]:
        """All words, sorted by code point."""
        return tuple(sorted(self.pronunciations))

    def missing(self, words: Iterable[str]) -> list[str]:
        """The words that the lexicon lacks, sorted, each once."""
        return sorted(set(words) - self.pronunciations.keys())

    def restricted_to(self, words: Iterable[str]) -> Lexicon:
        """The lexicon of some words only, with the same phone set.

        Raises:
            LexiconError: Words are missing; the message names them.
        """
        words = sorted(set(words))
        missing = self.missing(words)
        if missing:
            raise LexiconError(list_words(missing, "not in the lexicon"))
        return replace(self, pronunciations={word: self.pronunciations[word] for word in words})

    def with_pronunciations(self, more: Mapping[str, Iterable[Phones]]) -> Lexicon:
        """The lexicon with more words, or more variants of words that it has.

        Args:
            more: The variants of each word, in the lexicon's phone set.

        Raises:
            LexiconError: A pronunciation is empty or uses a phone outside the phone set.
        """
        merged = dict(self.pronunciations)
        for word, variants in more.items():
            merged[word] = tuple(dict.fromkeys((*merged.get(word, ()), *variants)))
        return replace(self, pronunciations=merged)

    def with_word_positions(self) -> Lexicon:
        """The lexicon in position-dependent phones, as Kaldi's: begin, internal, end and single.

        Phone ``AA`` becomes ``AA_B``, ``AA_I``, ``AA_E`` or ``AA_S``; silence phones keep their names. The
        phone set has all four of each phone, whether a word uses them or not.
        """
        silence = self.phones.silence
        speech = tuple(f"{phone}_{position}" for phone in self.phones.speech for position in "BIES")
        pronunciations = {
            word: tuple(phones if phones[0] in silence else _positioned(phones) for phones in variants)
            for word, variants in self.pronunciations.items()
        }
        return replace(self, pronunciations=pronunciations, phones=PhoneSet(silence, speech))


def read_lexicon(path: Path, *, strip_stress: bool = True) -> Lexicon:
    """Read a lexicon: lines of a word and its phones, separated by white space.

    Variants are repeated words or ``WORD(2)``. Comments are lines that start with ``;;;`` or a lone ``#``, and
    anything after a ``#`` behind the phones. Empty lines are skipped. Words are normalised, and repeated variants
    count once. The phone set has the phones of the file and ``SIL``.

    Args:
        path: UTF-8 text, plain or compressed.
        strip_stress: Whether to remove the digits on ARPABET's vowels (``AH0``).

    Raises:
        LexiconError: The file is missing, empty or malformed; the message names the line.
    """
    silence = set(SILENCE_LIKE)
    pronunciations: dict[str, dict[Phones, None]] = {}
    for number, line in read_lines(path, LexiconError):
        fields = line.split()
        if fields[0].startswith(";;;") or not fields[0].strip("#"):
            continue
        word, phones = _read_word(fields[0]), _read_phones(fields[1:], strip_stress)
        problem = _word_problem(word) or _phones_problem(phones, silence)
        if problem:
            raise LexiconError(f"{path}:{number}: {problem}")
        pronunciations.setdefault(word, {})[phones] = None
    if not pronunciations:
        raise LexiconError(f"{path}: no words; expected lines of a word and its phones")
    every = [phones for variants in pronunciations.values() for phones in variants]
    if all(phones[0] == "1" and len(phones) > 1 for phones in every):
        raise LexiconError(f"{path}: every word begins with the phone 1; {NO_PROBABILITIES}")
    used = {phone for phones in every for phone in phones}
    phone_set = PhoneSet.of(used, (phone for phone in SILENCE_LIKE if phone == SILENCE or phone in used))
    return Lexicon({word: tuple(variants) for word, variants in pronunciations.items()}, phone_set)


def write_lexicon(path: Path, lexicon: Lexicon) -> None:
    """Write ``WORD PHONE ...`` lines, one for each variant, words sorted.

    The file has neither the silence probability nor the phones that no word uses; see ``lexicon_folder``.
    """
    lines = [f"{word} {' '.join(phones)}\n" for word in lexicon.words for phones in lexicon.pronunciations[word]]
    write_text(path, "".join(lines))


@dataclass(frozen=True)
class DisambiguatedPronunciation:
    """A pronunciation with its disambiguation symbol.

    Attributes:
        word: The word.
        phones: Its phones.
        disambiguation: k for the symbol ``#k``; 0 for none.
    """

    word: str
    phones: Phones
    disambiguation: int


def disambiguate(lexicon: Lexicon) -> tuple[list[DisambiguatedPronunciation], int]:
    """Number pronunciations that others share or begin with, so that the lexicon's FST can be determinized.

    The k-th word with such a sequence of phones gets ``#k``, as in Kaldi's add_lex_disambig (Mohri, Pereira and Riley
    2002, on auxiliary symbols).

    Returns:
        All pronunciations, words sorted, and the largest k (0 if none is needed).
    """
    pairs = [(word, phones) for word in lexicon.words for phones in lexicon.pronunciations[word]]
    spelt = Counter(phones for _, phones in pairs)
    prefixes = {phones[:length] for phones in spelt for length in range(1, len(phones))}
    used: Counter[Phones] = Counter()
    result = []
    for word, phones in pairs:
        if spelt[phones] > 1 or phones in prefixes:
            used[phones] += 1
        result.append(DisambiguatedPronunciation(word, phones, used[phones]))
    return result, max(used.values(), default=0)


@dataclass(frozen=True)
class WordTable:
    """The numbers of words in graphs: 0 for ``<eps>``, from 1 for words, then ``#0``, ``<s>``, ``</s>``.

    Attributes:
        words: The words, each once, sorted by code point, without the symbols around them.

    Example:
        >>> WordTable(("A", "B")).ids
        {'<eps>': 0, 'A': 1, 'B': 2, '#0': 3, '<s>': 4, '</s>': 5}
    """

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        for word in self.words:
            problem = _word_problem(word)
            if problem:
                raise LexiconError(problem)
        for word, following in zip(self.words, self.words[1:], strict=False):
            if word >= following:
                raise LexiconError(f"word table: expected each word once, sorted; found {word!r} before {following!r}")

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """All symbols in the order of their numbers."""
        return (EPSILON, *self.words, BACKOFF, SENTENCE_BEGIN, SENTENCE_END)

    @cached_property
    def ids(self) -> dict[str, int]:
        """Number of each symbol."""
        return {symbol: number for number, symbol in enumerate(self.symbols)}

    def save(self, path: Path) -> None:
        """Write Kaldi's ``words.txt``: lines ``WORD number``."""
        write_text(path, "".join(f"{symbol} {number}\n" for symbol, number in self.ids.items()))

    @classmethod
    def load(cls, path: Path) -> WordTable:
        """Read a ``words.txt`` that ``save`` wrote.

        Raises:
            LexiconError: A line is not a word and the next number, or a symbol around the words is missing.
        """
        symbols = []
        for number, line in read_lines(path, LexiconError):
            fields = line.split()
            if len(fields) != 2 or fields[1] != str(number - 1):
                raise LexiconError(
                    f"{path}:{number}: expected a word and its number {number - 1}, found {quoted(line)}"
                )
            symbols.append(fields[0])
        try:
            table = cls(tuple(symbols[1:-3]))
        except LexiconError as error:
            raise LexiconError(f"{path}: {error}") from error
        if tuple(symbols) != table.symbols:
            raise LexiconError(
                f"{path}: expected {EPSILON}, the words, {BACKOFF}, {SENTENCE_BEGIN}, {SENTENCE_END}; "
                f"found {' '.join(symbols[:1])} ... {' '.join(symbols[-3:])}"
            )
        return table


def _read_word(field: str) -> str:
    variant = _VARIANT.fullmatch(field)
    word = variant[1] if variant else field
    return UNKNOWN if word.lower() == UNKNOWN else word if is_reserved(word) else normalise(word)


def _read_phones(fields: list[str], strip_stress: bool) -> Phones:
    comment = next((index for index, field in enumerate(fields) if field.startswith("#")), len(fields))
    # Signs of phonetics have accents too, and two phones must not look the same.
    phones = [normalise_name(field) for field in fields[:comment]]
    return tuple(p[:-1] if strip_stress and _STRESSED_VOWEL.fullmatch(p) else p for p in phones)


def _word_problem(word: str) -> str | None:
    if is_reserved(word):
        return f"{word!r} is reserved for graphs and language models and cannot be a word"
    if not word or word.split() != [word]:
        return f"{quoted(word)}: expected a word, found an empty one or white space"
    return None


def _phones_problem(phones: Phones, silence: set[str]) -> str | None:
    if not phones:
        return "a word without phones; expected a word and its phones"
    if _PROBABILITY.fullmatch(phones[0]):
        return f"expected a phone, found the number {phones[0]}; {NO_PROBABILITIES}"
    if len(phones) > 1 and not silence.isdisjoint(phones):
        shown = " ".join(phones[:_WORDS_SHOWN])
        return f"silence phone inside a word: {shown}; take it out, pauses between words are added anyway"
    return None


def _positioned(phones: Phones) -> Phones:
    if len(phones) == 1:
        return (f"{phones[0]}_S",)
    return (f"{phones[0]}_B", *(f"{phone}_I" for phone in phones[1:-1]), f"{phones[-1]}_E")


def list_words(words: list[str], what: str) -> str:
    """A line about some words: their number, what they have in common, and the first ten of them.

    Example:
        >>> list_words(["A", "B"], "not in the lexicon")
        '2 words not in the lexicon: A B'
    """
    count = "1 word" if len(words) == 1 else f"{len(words)} words"
    return f"{count} {what}: {' '.join(words[:_WORDS_SHOWN])}" + (" ..." if len(words) > _WORDS_SHOWN else "")
