"""Words of a text that a lexicon lacks: they are pronounced, stand for ``<unk>``, or are an error.

Tags (``<NOISE>``, ``<unk>``) that the text has get phones of their own in any case.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from lhuc_asr.base.errors import LexiconError
from lhuc_asr.lang.lexicon import Lexicon, Phones, list_words
from lhuc_asr.lang.phones import NON_SPEECH_NOISE, SILENCE_LIKE, SPOKEN_NOISE, PhoneSet
from lhuc_asr.lang.tags import NOISE, is_tag, without_tags
from lhuc_asr.lang.text import UNKNOWN

logger = logging.getLogger(__name__)

UnknownWordPolicy = Literal["pronounce", "unk", "error"]

_MISSING = "not in the lexicon"

# Phone of each word that tags become.
_PHONE_OF_SOUND = {UNKNOWN: SPOKEN_NOISE, NOISE: NON_SPEECH_NOISE}
# Share of a text's words in the vocabulary below which something is wrong with the one or the other: texts of the same
# language share more than nine words in ten, also across subjects.
_USUAL_SHARE = 0.5
_EXAMPLES = 5


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
    words = set(words)
    given, lexicon = lexicon, with_sounds(lexicon, words)
    missing = lexicon.missing(words)
    if not missing:
        return _coverage(lexicon, given)
    if policy == "error":
        raise LexiconError(
            f"{list_words(missing, _MISSING)}; "
            "add them to the lexicon, or use the unknown-word policy 'pronounce' or 'unk'"
        )
    if policy == "unk":
        logger.warning(list_words(missing, f"{_MISSING}, treated as {UNKNOWN}"))
        return _coverage(with_sounds(lexicon, [UNKNOWN]), given, tuple(missing))
    if pronounce is None:
        raise LexiconError(
            f"{list_words(missing, _MISSING)}; the policy 'pronounce' needs a function that pronounces them "
            "(espeak-ng: pip install lhuc_asr[voices])"
        )
    added = _pronounced(missing, pronounce)
    logger.info(list_words(missing, f"{_MISSING}, pronunciations made"))
    return _coverage(_with_added(lexicon, added), given)


def aligned_words(words: Sequence[str], lexicon: Lexicon) -> tuple[str, ...]:
    """The words of a transcript as they are aligned: words that the lexicon lacks become ``<unk>`` if it has that.

    If it does not, tags are left out, and their sound is aligned with silence; words are kept.
    """
    if UNKNOWN not in lexicon.pronunciations:
        return tuple(word for word in words if word in lexicon.pronunciations or not is_tag(word))
    return tuple(word if word in lexicon.pronunciations else UNKNOWN for word in words)


def warn_of_unknown_words(title: str, transcripts: Iterable[Sequence[str]], lexicon: Lexicon) -> None:
    """Log how many words of transcripts the lexicon has, and warn if that is not even half of them.

    Args:
        title: What has the transcripts, for the log: a split, a file.
        transcripts: Words of each utterance; tags do not count.
        lexicon: The words that can be recognised.
    """
    counts = Counter(word for words in transcripts for word in without_tags(words))
    total = counts.total()
    lacking = Counter({word: count for word, count in counts.items() if word not in lexicon.pronunciations})
    known = total - lacking.total()
    if not total:
        return
    if known >= _USUAL_SHARE * total:
        logger.info("%s: %.1f %% of %d words are in the vocabulary", title, 100 * known / total, total)
        return
    logger.warning(
        "%s: only %d of %d words (%.1f %%) are in the vocabulary; none of the others can be recognised, such as %s; "
        "the vocabulary has words such as %s; check that transcripts and lexicon agree in language and spelling",
        *(title, known, total, 100 * known / total),
        " ".join(word for word, _ in lacking.most_common(_EXAMPLES)),
        " ".join([word for word in lexicon.words if not is_tag(word)][:_EXAMPLES]),
    )


def _coverage(lexicon: Lexicon, given: Lexicon, unknown: tuple[str, ...] = ()) -> Coverage:
    added = {word: lexicon.pronunciations[word][0] for word in given.missing(lexicon.words)}
    return Coverage(lexicon, added, unknown)


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


def with_sounds(lexicon: Lexicon, words: Collection[str]) -> Lexicon:
    """The lexicon with those of ``<NOISE>`` and ``<unk>`` that are among the words, each spelt with its own phone."""
    added = {
        word: (phone,)
        for word, phone in _PHONE_OF_SOUND.items()
        if word in words and word not in lexicon.pronunciations
    }
    used = {*lexicon.phones.silence, *(phone for (phone,) in added.values())}
    silence = tuple(phone for phone in SILENCE_LIKE if phone in used)
    return _with_added(replace(lexicon, phones=PhoneSet(silence, lexicon.phones.speech)), added) if added else lexicon


def _with_added(lexicon: Lexicon, added: Mapping[str, Phones]) -> Lexicon:
    return lexicon.with_pronunciations({word: (phones,) for word, phones in added.items()})
