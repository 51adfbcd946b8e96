"""Transcripts of recordings with times and confidences; those that a user knows are read from text."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from lhuc_asr.base.destinations import shown
from lhuc_asr.base.errors import CorpusError
from lhuc_asr.decode.word_lattice import WordLattice
from lhuc_asr.lang.lines import read_lines
from lhuc_asr.lang.tags import spoken_words
from lhuc_asr.lang.text import normalise_name


@dataclass(frozen=True)
class Word:
    """A word.

    Attributes:
        word: The word, as in the lexicon.
        start, end: Times in the recording, in seconds.
        confidence: Probability that the word was said, 0 to 1.
    """

    word: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True)
class Phone:
    """A phone of a word.

    Attributes:
        phone: The phone, as in the lexicon.
        start, end: Times in the recording, in seconds.
    """

    phone: str
    start: float
    end: float


@dataclass(frozen=True)
class Span:
    """A part of a recording.

    Attributes:
        start, end: Times in the recording, in seconds.
    """

    start: float
    end: float


@dataclass(frozen=True, eq=False)
class PieceLattice:
    """The word lattice of a piece of a recording.

    Attributes:
        start, end: Times of the piece in the recording, in seconds.
        lattice: The lattice.
        words: Word of each number in the lattice.
    """

    start: float
    end: float
    lattice: WordLattice
    words: tuple[str, ...]


@dataclass(frozen=True)
class Transcript:
    """The words of a recording.

    Attributes:
        recording: Name of the recording.
        path: File of the recording, as it was named; ``-`` for standard input.
        seconds: Length of the recording.
        words: Words in the order of their times.
        left_out: Parts that were taken for silence or steady noise and not searched, in the order of their times.
        channel: Number of the channel that was taken, from 1; None for the mean of all.
        speaker: Name of the speaker whose amplitudes were used; "" without adaptation.
        phones: Phones of the words, from ``align``; empty from ``transcribe``.
        lattices: Word lattices of the pieces that were searched, in the order of their times, if they were asked for.
    """

    recording: str
    path: Path
    seconds: float
    words: tuple[Word, ...]
    left_out: tuple[Span, ...] = ()
    channel: int | None = None
    speaker: str = ""
    phones: tuple[Phone, ...] = ()
    lattices: tuple[PieceLattice, ...] = ()

    @property
    def text(self) -> str:
        """The words, separated by spaces."""
        return " ".join(word.word for word in self.words)


def read_transcripts(path: Path, own_tags: Collection[str] = ()) -> dict[str, tuple[str, ...]]:
    """The words of each recording, from a file with one line per recording: its name and its words.

    Args:
        path: The file.
        own_tags: Tags that the model's lexicon lists (``Recognizer.own_tags``); they stay as they are.

    Raises:
        CorpusError: The file is missing, empty or not UTF-8 text, names a recording twice, or has an unknown tag.
    """
    transcripts: dict[str, tuple[str, ...]] = {}
    for number, line in read_lines(path):
        first, *rest = line.split(maxsplit=1)
        name = recording_name(first)
        if name in transcripts:
            raise CorpusError(f"{path}:{number}: {name!r} already has an earlier line; delete one of the two")
        transcripts[name] = spoken_words(" ".join(rest), f"{path}:{number}", own_tags)
    if not transcripts:
        raise CorpusError(f"{path}: no transcript in this file; expected lines with a recording's name and its words")
    return transcripts


def read_text(path: Path, own_tags: Collection[str] = ()) -> tuple[str, ...]:
    """The words of one recording, from a file that has nothing else.

    Args:
        path: The file.
        own_tags: Tags that the model's lexicon lists (``Recognizer.own_tags``); they stay as they are.

    Raises:
        CorpusError: The file is missing or not UTF-8 text, or has an unknown tag.
    """
    return tuple(word for number, line in read_lines(path) for word in spoken_words(line, f"{path}:{number}", own_tags))


def recording_name(text: str) -> str:
    r"""The name of a recording: NFC, without white space, invisible characters, or bytes that cannot be shown.

    A second application changes nothing.

    Example:
        >>> recording_name("my talk\x1b")
        'my_talk\\x1b'
    """
    name = "_".join(normalise_name(shown(text)).split()) or "_"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
