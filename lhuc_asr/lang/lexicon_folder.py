"""A lexicon in a folder: its words in one file, its phone set and silence probability in another."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from lhuc_asr.base.atomic import write_json
from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.documents import DocumentKind, Symbol
from lhuc_asr.base.errors import LexiconError
from lhuc_asr.base.plain_file import check_plain_file
from lhuc_asr.lang.lexicon import Lexicon, read_lexicon, write_lexicon
from lhuc_asr.lang.phones import PhoneSet

LEXICON_FILE, PHONES_FILE = "lexicon.txt", "phones.json"


class _Description(StrictModel):
    """Content of ``phones.json``."""

    silence: tuple[Symbol, ...]
    speech: tuple[Symbol, ...]
    silence_probability: float = Field(gt=0.0, lt=1.0)


_DESCRIPTIONS = DocumentKind(_Description, "a phone set", LexiconError, "delete it and run again")


def write_lexicon_folder(folder: Path, lexicon: Lexicon) -> None:
    """Write a lexicon with its phone set and silence probability into a folder."""
    write_lexicon(folder / LEXICON_FILE, lexicon)
    write_json(
        folder / PHONES_FILE,
        {
            "silence": lexicon.phones.silence,
            "speech": lexicon.phones.speech,
            "silence_probability": lexicon.silence_probability,
        },
    )


def read_lexicon_folder(folder: Path) -> Lexicon:
    """Read the lexicon that ``write_lexicon_folder`` wrote.

    Raises:
        LexiconError: A file is damaged, or the two do not belong together.
    """
    try:
        check_plain_file(folder / LEXICON_FILE)
        words = read_lexicon(folder / LEXICON_FILE, strip_stress=False)
        description = _DESCRIPTIONS.read(folder / PHONES_FILE)
        phones = PhoneSet(description.silence, description.speech)
        return Lexicon(words.pronunciations, phones, description.silence_probability, words.probabilities)
    except (LexiconError, OSError) as error:
        raise LexiconError(
            f"{folder}: {LEXICON_FILE} and {PHONES_FILE} are damaged or from different runs ({error}); "
            "delete both and run again"
        ) from error
