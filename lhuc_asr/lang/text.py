"""Transcripts and text: reading text files, and one normalisation for corpora, lexicon and language model.

Normalisation changes as little as possible, because a changed word may no longer match an entry of the user's lexicon:
Unicode NFC, ``'`` for the typographic apostrophe, upper case, single spaces. It does not remove punctuation, spell out
numbers or split hyphens. A token that the lexicon lacks is reported by name later, which is better than a guess here.
"""

from __future__ import annotations

import gzip
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lhuc_asr.base.errors import CorpusError, LhucError

# Symbols of graphs and language models, which a transcript may not use as words.
EPSILON = "<eps>"
SENTENCE_BEGIN = "<s>"
SENTENCE_END = "</s>"
# Label of the language model's back-off arcs. The lexicon's disambiguation symbols are #1, #2 and so on.
BACKOFF = "#0"
# Any word outside the vocabulary. A lexicon may have a pronunciation for it, so it is not reserved.
UNKNOWN = "<unk>"

_APOSTROPHES = str.maketrans({"\N{RIGHT SINGLE QUOTATION MARK}": "'", "\N{MODIFIER LETTER APOSTROPHE}": "'"})
_DISAMBIGUATION = re.compile(r"#\d+")


def normalise(text: str) -> str:
    """Unicode NFC, ``'`` for the typographic apostrophe, upper case, words separated by single spaces.

    A second application changes nothing.

    Example:
        >>> normalise("  Don\N{RIGHT SINGLE QUOTATION MARK}t  look\\tback ")
        "DON'T LOOK BACK"
    """
    if text.isascii():
        return " ".join(text.upper().split())
    # Compose first, so that each letter has a single upper-case form, and again afterwards, because upper() may
    # decompose.
    upper = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).upper())
    # Apostrophes are replaced only after upper(), because it turns U+0149 into a modifier apostrophe and N.
    return " ".join(upper.translate(_APOSTROPHES).split())


def is_reserved(word: str) -> bool:
    """Whether ``word`` is a symbol of graphs: ``<eps>``, ``<s>``, ``</s>``, ``#0``, ``#1`` and so on."""
    return word in (EPSILON, SENTENCE_BEGIN, SENTENCE_END) or _DISAMBIGUATION.fullmatch(word) is not None


def word_counts(sentences: Iterable[Sequence[str]]) -> Counter[str]:
    """The number of occurrences of each word.

    Args:
        sentences: Sequences of words, as ``read_sentences`` gives them.
    """
    counts: Counter[str] = Counter()
    for words in sentences:
        counts.update(words)
    return counts


def read_sentences(path: Path, *, utterance_ids: bool = False) -> Iterator[tuple[str, ...]]:
    """Read the normalised words of each line of a text file; lines without words are skipped.

    Args:
        path: UTF-8 text, one sentence on each line; compressed if the name ends in ``.gz``.
        utterance_ids: Whether each line starts with an utterance id, as in Kaldi's ``text``.

    Raises:
        CorpusError: The file is missing, damaged or not UTF-8.
    """
    for _, line in numbered_lines(path, CorpusError):
        words = normalise(line).split()
        if utterance_ids:
            words = words[1:]
        if words:
            yield tuple(words)


def numbered_lines(path: Path, error: type[LhucError]) -> Iterator[tuple[int, str]]:
    """Yield the lines of a UTF-8 file, numbered from 1, without line ends or byte-order mark.

    Args:
        path: The file; compressed if the name ends in ``.gz``.
        error: Class of the errors to raise.

    Raises:
        LhucError: The file is missing, damaged or not UTF-8; the error has the class ``error``.
    """
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                encoding = "utf-8-sig" if number == 1 else "utf-8"
                yield number, raw.decode(encoding).rstrip("\r\n")
    except FileNotFoundError as problem:
        raise error(f"{path}: no such file") from problem
    except UnicodeDecodeError as problem:
        raise error(
            f"{path}:{number}: expected UTF-8 text, found byte 0x{problem.object[problem.start]:02x}; "
            "convert the file, for example with iconv -t UTF-8"
        ) from problem
    except (gzip.BadGzipFile, EOFError, zlib.error) as problem:
        raise error(f"{path}:{number + 1}: cannot be read further ({problem}); the file is damaged") from problem
    except OSError as problem:
        raise error(f"{path}: cannot be read ({problem.strerror or problem})") from problem
