"""Words of a text that a lexicon lacks: they are pronounced, stand for ``<unk>``, or are an error."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from lhuc_asr.base.errors import LexiconError
from lhuc_asr.lang.lexicon import Lexicon, Phones, list_words
from lhuc_asr.lang.phones import SPOKEN_NOISE, PhoneSet
from lhuc_asr.lang.text import UNKNOWN

logger = logging.getLogger(__name__)

UnknownWordPolicy = Literal["pronounce", "unk", "error"]

_MISSING = "not in the lexicon"


@dataclass(frozen=True)
class Coverage:
    """A lexicon that covers a text, and what was done to make it so.

    Attributes:
        lexicon: The lexicon to use.
        added: The pronunciation of each word that was added.
        unknown: Words without a pronunciation of their own, which stand for ``<unk>``.
    """

    lexicon: Lexicon
    added: dict[str, Phones]
    unknown: tuple[str, ...]


def cover(
    lexicon: Lexicon,
    words: Iterable[str],
    policy: UnknownWordPolicy,
    pronounce: Callable[[list[str]], Mapping[str, Phones]] | None = None,
) -> Coverage:
    """Make a lexicon cover the words of a text; a lexicon that already covers them is returned as it is.

    Args:
        lexicon: The lexicon.
        words: The words to cover.
        policy: What to do with words that the lexicon lacks. ``pronounce`` adds the pronunciations that
            ``pronounce`` returns; ``unk`` leaves the words out and adds the word ``<unk>``, spelt with the
            silence-like phone ``SPN``; ``error`` raises an error.
        pronounce: A function from words to a pronunciation of each, in the lexicon's phone set.

    Raises:
        LexiconError: Words are missing under ``error``, or cannot be pronounced under ``pronounce``.
    """
    if policy not in get_args(UnknownWordPolicy):
        raise LexiconError(f"unknown-word policy {policy!r}: expected one of {', '.join(get_args(UnknownWordPolicy))}")
    missing = lexicon.missing(words)
    if not missing:
        return Coverage(lexicon, {}, ())
    if policy == "error":
        raise LexiconError(
            f"{list_words(missing, _MISSING)}; "
            "add them to the lexicon, or use the unknown-word policy 'pronounce' or 'unk'"
        )
    if policy == "unk":
        logger.warning(list_words(missing, f"{_MISSING}, treated as {UNKNOWN}"))
        added: dict[str, Phones] = {} if UNKNOWN in lexicon.pronunciations else {UNKNOWN: (SPOKEN_NOISE,)}
        return Coverage(_with_added(_with_spoken_noise(lexicon), added), added, tuple(missing))
    if pronounce is None:
        raise LexiconError(
            f"{list_words(missing, _MISSING)}; the policy 'pronounce' needs a function that pronounces them "
            "(espeak-ng: pip install lhuc_asr[voices])"
        )
    added = _pronounced(missing, pronounce)
    logger.info(list_words(missing, f"{_MISSING}, pronunciations made"))
    return Coverage(_with_added(lexicon, added), added, ())


def aligned_words(words: Sequence[str], lexicon: Lexicon) -> tuple[str, ...]:
    """The words of a transcript as they are aligned: words that the lexicon lacks become ``<unk>`` if it has that."""
    if UNKNOWN not in lexicon.pronunciations:
        return tuple(words)
    return tuple(word if word in lexicon.pronunciations else UNKNOWN for word in words)


def _pronounced(words: list[str], pronounce: Callable[[list[str]], Mapping[str, Phones]]) -> dict[str, Phones]:
    pronunciations = pronounce(words)
    added = {word: tuple(pronunciations[word]) for word in words if pronunciations.get(word)}
    silent = [word for word in words if word not in added]
    if silent:
        raise LexiconError(
            f"{list_words(silent, 'could not be pronounced')}; "
            "add them to the lexicon, correct the transcripts, or use the unknown-word policy 'unk'"
        )
    return added


def _with_spoken_noise(lexicon: Lexicon) -> Lexicon:
    phones = lexicon.phones
    if SPOKEN_NOISE in phones.names:
        return lexicon
    return replace(lexicon, phones=PhoneSet((*phones.silence, SPOKEN_NOISE), phones.speech))


def _with_added(lexicon: Lexicon, added: Mapping[str, Phones]) -> Lexicon:
    return lexicon.with_pronunciations({word: (phones,) for word, phones in added.items()})
