"""Making a lexicon: the pronunciations of a vocabulary, from a file or from espeak-ng."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from pydantic import Field

from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.local_path import InputFile
from lhuc_asr.lang.coverage import UnknownWordPolicy, cover, with_sounds
from lhuc_asr.lang.lexicon import Lexicon, Phones, read_lexicon
from lhuc_asr.lang.phones import SILENCE, PhoneSet
from lhuc_asr.lang.pronounce import pronounce, pronounce_native
from lhuc_asr.lang.tags import SOUNDS
from lhuc_asr.lang.text import UNKNOWN

logger = logging.getLogger(__name__)


class LexiconConfig(StrictModel):
    """Options of the lexicon.

    Attributes:
        path: File of ``word phones`` lines; None for the corpus's own dictionary, or, if there is none, for espeak-ng's
            pronunciation of every word.
        language: Language of espeak-ng, which pronounces words of the training transcripts that the file lacks, or all
            words if there is no file.
        unknown_words: What to do with words of the training transcripts that the file lacks: ``pronounce``, ``unk`` or
            ``error``. Other words that the file lacks are left out.
        word_positions: Whether phones at the beginning, inside and at the end of a word are different phones.
        silence_probability: Probability of a pause between two words.
    """

    path: InputFile | None = None
    language: str = "en-us"
    unknown_words: UnknownWordPolicy = "pronounce"
    word_positions: bool = False
    silence_probability: float = Field(0.5, gt=0.0, lt=1.0)


def make_lexicon(
    vocabulary: Sequence[str], required: Iterable[str], config: LexiconConfig, dictionary: Path | None = None
) -> Lexicon:
    """Make the lexicon of a vocabulary.

    A word of the vocabulary that the file lacks is left out, unless it is required: then ``config.unknown_words`` says
    what to do with it. Phones that no word uses are left out, because there would be no data to train them.

    Args:
        vocabulary: Candidate words.
        required: Words of the training transcripts, part of the vocabulary. Recordings cannot be aligned without them.
        config: The options.
        dictionary: The corpus's own dictionary, used if the options name no file.

    Raises:
        LexiconError: The file is damaged, or a word cannot be pronounced.
        ConfigError: espeak-ng does not know the language.
        MissingExtraError: espeak-ng is needed and not installed.
    """
    path = config.path or dictionary
    if path is None:
        lexicon = _pronounced(vocabulary, config.language)
    else:
        lexicon = _looked_up(vocabulary, required, read_lexicon(path), config)
    lexicon = replace(lexicon, silence_probability=config.silence_probability)
    return lexicon.with_word_positions() if config.word_positions else lexicon


def _looked_up(
    vocabulary: Sequence[str], required: Iterable[str], dictionary: Lexicon, config: LexiconConfig
) -> Lexicon:
    """The dictionary's entries for the vocabulary, completed for required words."""
    pronounce_missing = partial(_pronounce_like, dictionary, config.language)
    covering = cover(dictionary, required, config.unknown_words, pronounce_missing).lexicon
    words = [word for word in vocabulary if word in covering.pronunciations]
    logger.info("lexicon: %d of %d words have a pronunciation", len(words), len(vocabulary))
    extra = [UNKNOWN] if UNKNOWN in covering.pronunciations else []
    return _without_unused_phones(covering.restricted_to([*words, *extra]))


def _pronounced(words: Sequence[str], language: str) -> Lexicon:
    """Words as espeak-ng pronounces them: English in CMUdict's phones, other languages in their own.

    ``<NOISE>`` and ``<unk>`` are not pronounced, and have phones of their own.
    """
    english = language.partition("-")[0] == "en"
    spoken = [word for word in words if word not in SOUNDS]
    spellings = pronounce(spoken, language) if english else pronounce_native(spoken, language)
    phones = PhoneSet.of({phone for spelling in spellings.values() for phone in spelling}, (SILENCE,))
    return with_sounds(Lexicon({word: (spelling,) for word, spelling in spellings.items()}, phones), words)


def _pronounce_like(dictionary: Lexicon, language: str, words: list[str]) -> Mapping[str, Phones]:
    return pronounce(words, language, dictionary.phones)


def _without_unused_phones(lexicon: Lexicon) -> Lexicon:
    used = {phone for variants in lexicon.pronunciations.values() for phones in variants for phone in phones}
    silence = [phone for phone in lexicon.phones.silence if phone == SILENCE or phone in used]
    return replace(lexicon, phones=PhoneSet.of(used, silence))
