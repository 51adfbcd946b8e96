"""A lexicon in a folder: its words in one file, its phone set and silence probability in another."""

from __future__ import annotations

from pathlib import Path

from lhuc_asr.base.atomic import read_json, write_json
from lhuc_asr.base.errors import LexiconError
from lhuc_asr.lang.lexicon import Lexicon, read_lexicon, write_lexicon
from lhuc_asr.lang.phones import PhoneSet

LEXICON_FILE, PHONES_FILE = "lexicon.txt", "phones.json"


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
    tree = read_json(folder / PHONES_FILE)
    try:
        pronunciations = read_lexicon(folder / LEXICON_FILE, strip_stress=False).pronunciations
        phones = PhoneSet(tuple(tree["silence"]), tuple(tree["speech"]))
        return Lexicon(pronunciations, phones, tree["silence_probability"])
    except (LexiconError, KeyError, TypeError) as error:
        raise LexiconError(
            f"{folder}: {LEXICON_FILE} and {PHONES_FILE} are damaged or from different runs ({error}); "
            "delete both and run again"
        ) from error
