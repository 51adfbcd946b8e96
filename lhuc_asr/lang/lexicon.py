"""Pronunciation lexica: words and the phones that spell them, and the word table of a graph.

Lexicon files are lines of a word and its phones, as CMUdict, Sphinx (AN4) and Kaldi write them; or of a word, the
probability of the pronunciation and the phones (Kaldi's ``lexiconp.txt``). A silence phone may be the only phone of a
word (``<unk> SPN``), but not one of several: the graph adds pauses between words, with ``silence_probability``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from lhuc_asr.base.atomic import write_text
from lhuc_asr.base.errors import LexiconError
from lhuc_asr.lang.lines import quoted, read_lines
from lhuc_asr.lang.phones import SILENCE, SILENCE_LIKE, STRESSED_VOWEL, WORD_POSITIONS, PhoneSet
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

_VARIANT = re.compile(r"(.+)\(\d+\)")
# A probability, not a phone: a phone may be called 1, as tones are.
_DECIMAL = re.compile(r"\d*\.\d+([eE][-+]?\d+)?|\d+[eE][-+]?\d+")

# Messages and log lines name this many words; the rest are counted.
_WORDS_SHOWN = 10


@dataclass(frozen=True)
class Lexicon:
    """Words, their pronunciations, and their phone set.

    Attributes:
        pronunciations: The variants of each word, each a tuple of phones.
        phones: The phone set of the acoustic model; a lexicon of few words need not use all of it.
        silence_probability: Probability of an optional silence between two words, in (0, 1).
        probabilities: Probability of each pronunciation, by word and phones, in (0, 1); of one that is not listed it is
            1. As in Kaldi they need not sum to one over the variants of a word.
    """

    pronunciations: Mapping[str, tuple[Phones, ...]]
    phones: PhoneSet
    silence_probability: float = 0.5
    probabilities: Mapping[tuple[str, Phones], float] = field(default_factory=dict)

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
        for (word, phones), probability in self.probabilities.items():
            if phones not in self.pronunciations.get(word, ()) or not 0.0 < probability < 1.0:
                raise LexiconError(
                    f"{word!r}: probability {probability} of {' '.join(phones)}; expected one in (0, 1), of a "
                    "pronunciation of the lexicon"
                )

    @cached_property
    def words(self) -> tuple[str, ...]:
        """All words, sorted by code point."""
        return tuple(sorted(self.pronunciations))

    def probability(self, word: str, phones: Phones) -> float:
        """Probability of a pronunciation of a word."""
        return self.probabilities.get((word, phones), 1.0)

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
        kept = {word: self.pronunciations[word] for word in words}
        probabilities = {key: value for key, value in self.probabilities.items() if key[0] in kept}
        return replace(self, pronunciations=kept, probabilities=probabilities)

    def with_pronunciations(self, more: Mapping[str, Iterable[Phones]]) -> Lexicon:
        """The lexicon with more words, or more variants of words that it has, all of them of probability 1.

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
        speech = tuple(f"{phone}_{position}" for phone in self.phones.speech for position in WORD_POSITIONS)

        def positioned(phones: Phones) -> Phones:
            return phones if phones[0] in silence else _positioned(phones)

        return Lexicon(
            {word: tuple(map(positioned, variants)) for word, variants in self.pronunciations.items()},
            PhoneSet(silence, speech),
            self.silence_probability,
            {(word, positioned(phones)): value for (word, phones), value in self.probabilities.items()},
        )


def read_lexicon(path: Path, *, strip_stress: bool = True) -> Lexicon:
    """Read a lexicon: lines of a word and its phones, separated by white space.

    Variants are repeated words or ``WORD(2)``. Comments are lines that start with ``;;;`` or a lone ``#``, and
    anything after a ``#`` behind the phones. Empty lines are skipped. Words are normalised. Repeated variants count
    once, with the largest of their probabilities. The phone set has the phones of the file and ``SIL``.

    A file whose every line has a number up to 1 behind the word, and phones behind that, has probabilities.

    Args:
        path: UTF-8 text, plain or compressed.
        strip_stress: Whether to remove the digits on ARPABET's vowels (``AH0``).

    Raises:
        LexiconError: The file is missing, empty or malformed; the message names the line.
    """
    silence = set(SILENCE_LIKE)
    rows = _read_rows(path, strip_stress)
    with_probabilities = all(len(row.phones) > 1 and _is_probability(row.phones[0]) for row in rows)
    pronunciations: dict[str, dict[Phones, float]] = {}
    for row in rows:
        phones, probability = (row.phones[1:], float(row.phones[0])) if with_probabilities else (row.phones, 1.0)
        problem = _word_problem(row.word) or _phones_problem(phones, silence)
        if problem:
            raise LexiconError(f"{path}:{row.number}: {problem}")
        variants = pronunciations.setdefault(row.word, {})
        variants[phones] = max(probability, variants.get(phones, 0.0))
    used = {phone for variants in pronunciations.values() for phones in variants for phone in phones}
    return Lexicon(
        {word: tuple(variants) for word, variants in pronunciations.items()},
        PhoneSet.of(used, (phone for phone in SILENCE_LIKE if phone == SILENCE or phone in used)),
        probabilities={
            (word, phones): probability
            for word, variants in pronunciations.items()
            for phones, probability in variants.items()
            if probability < 1.0
        },
    )


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of a lexicon; its first phone is a probability where the file has those."""

    number: int
    word: str
    phones: Phones


def _read_rows(path: Path, strip_stress: bool) -> list[_Row]:
    rows = []
    for number, line in read_lines(path, LexiconError):
        fields = line.split()
        if not fields[0].startswith(";;;") and fields[0].strip("#"):
            rows.append(_Row(number, _read_word(fields[0]), _read_phones(fields[1:], strip_stress)))
    if not rows:
        raise LexiconError(f"{path}: no words; expected lines of a word and its phones")
    return rows


def _is_probability(text: str) -> bool:
    return (text == "1" or _DECIMAL.fullmatch(text) is not None) and 0.0 < float(text) <= 1.0


def write_lexicon(path: Path, lexicon: Lexicon) -> None:
    """Write ``WORD PHONE ...`` lines, one for each variant, words sorted; with probabilities if it has some.

    The file has neither the silence probability nor the phones that no word uses; see ``lexicon_folder``.
    """

    def line(word: str, phones: Phones) -> str:
        probability = [repr(lexicon.probability(word, phones))] if lexicon.probabilities else []
        return f"{' '.join([word, *probability, *phones])}\n"

    lines = [line(word, phones) for word in lexicon.words for phones in lexicon.pronunciations[word]]
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
    return tuple(p[:-1] if strip_stress and STRESSED_VOWEL.fullmatch(p) else p for p in phones)


def _word_problem(word: str) -> str | None:
    if is_reserved(word):
        return f"{word!r} is reserved for graphs and language models and cannot be a word"
    if not word or word.split() != [word]:
        return f"{quoted(word)}: expected a word, found an empty one or white space"
    return None


def _phones_problem(phones: Phones, silence: set[str]) -> str | None:
    if not phones:
        return "a word without phones; expected a word and its phones"
    if _DECIMAL.fullmatch(phones[0]):
        return (
            f"expected a phone, found the number {phones[0]}; probabilities are above 0 and at most 1, and stand on "
            "every line or on none"
        )
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
