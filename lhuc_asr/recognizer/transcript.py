"""Transcripts of recordings with times and confidences, written as text, JSON, SRT or CTM, and read from text."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from lhuc_asr.base.destinations import shown
from lhuc_asr.base.errors import CorpusError
from lhuc_asr.lang.lines import read_lines
from lhuc_asr.lang.tags import spoken_words
from lhuc_asr.lang.text import normalise_name

Format = Literal["txt", "json", "srt", "ctm"]

# Fields of a recording in JSON, in every version; those of later ones are left_out and channel.
_JSON_KEYS = frozenset({"recording", "path", "seconds", "text", "words"})

# A caption has at most this many characters and seconds, and ends at a pause of this length.
CAPTION_CHARACTERS, CAPTION_SECONDS, CAPTION_PAUSE_SECONDS = 80, 6.0, 0.7


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
class Span:
    """A part of a recording.

    Attributes:
        start, end: Times in the recording, in seconds.
    """

    start: float
    end: float


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
    """

    recording: str
    path: Path
    seconds: float
    words: tuple[Word, ...]
    left_out: tuple[Span, ...] = ()
    channel: int | None = None

    @property
    def text(self) -> str:
        """The words, separated by spaces."""
        return " ".join(word.word for word in self.words)


def write(transcripts: Sequence[Transcript], form: Format) -> str:
    """Transcripts in a format; the text ends with a line break.

    ``txt`` has one line per recording, the recording's name first, as ``read_transcripts`` reads it. ``ctm`` is NIST's
    format: recording, channel, start, length, word, confidence.

    Raises:
        CorpusError: There are several recordings for SRT, which has no place for their names.
    """
    match form:
        case "txt":
            return "".join(f"{transcript.recording} {transcript.text}".rstrip() + "\n" for transcript in transcripts)
        case "json":
            return json.dumps([_tree(transcript) for transcript in transcripts], indent=2, ensure_ascii=False) + "\n"
        case "ctm":
            return "".join(line for transcript in transcripts for line in _ctm_lines(transcript))
        case "srt":
            if len(transcripts) != 1:
                raise CorpusError(
                    f"SRT holds one recording, found {len(transcripts)}; write them to a folder: --output FOLDER"
                )
            return "\n".join(_captions(transcripts[0]))


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


def recording_name(text: str) -> str:
    r"""The name of a recording: NFC, without white space, invisible characters, or bytes that cannot be shown.

    A second application changes nothing.

    Example:
        >>> recording_name("my talk\x1b")
        'my_talk\\x1b'
    """
    name = "_".join(normalise_name(shown(text)).split()) or "_"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def is_written(text: str, form: Format, names: Collection[str], vocabulary: Collection[str]) -> bool:
    """Whether a text is what ``write`` gives for some recordings.

    Args:
        text: Content of a file.
        form: The format.
        names: Names of the recordings; SRT has none.
        vocabulary: Words that transcripts can have.
    """
    lines: list[tuple[str, str]]  # name and words
    match form:
        case "json":
            lines = _json_lines(text)
        case "srt":
            captions = re.sub(r"(^|\n)\d+\n[\d:,]+ --> [\d:,]+\n", r"\n", text)
            lines = [("", captions)] if captions != text else []
        case "txt":
            lines = [(line.partition(" ")[0], line.partition(" ")[2]) for line in text.splitlines()]
        case "ctm":
            fields = [re.fullmatch(r"(\S+) \d+ [\d.]+ [\d.]+ (\S+) [\d.]+", line) for line in text.splitlines()]
            lines = [(line[1], line[2]) if line else (" ", "") for line in fields]
    return bool(lines) and all(
        (form == "srt" or name in names) and all(word in vocabulary for word in words.split()) for name, words in lines
    )


def recordings_in(text: str, form: Format) -> set[str]:
    """Names of the recordings whose transcripts a text in ``txt`` or ``json`` has; none if it is something else."""
    if form == "json":
        return {name for name, _ in _json_lines(text)}
    return {line.partition(" ")[0] for line in text.splitlines()}


def _json_lines(text: str) -> list[tuple[str, str]]:
    """The recordings and their words in JSON; none if it is something else."""
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError):
        return []
    if not isinstance(rows, list) or not all(isinstance(row, dict) and row.keys() >= _JSON_KEYS for row in rows):
        return []
    return [(str(row["recording"]), str(row["text"])) for row in rows]


def _tree(transcript: Transcript) -> dict[str, object]:
    return {
        "recording": transcript.recording,
        "path": shown(transcript.path),
        "seconds": round(transcript.seconds, 3),
        **({} if transcript.channel is None else {"channel": transcript.channel}),
        "text": transcript.text,
        "left_out": [_rounded(span) for span in transcript.left_out],
        "words": [_rounded(word) for word in transcript.words],
    }


def _rounded(part: Word | Span) -> dict[str, object]:
    return {key: round(value, 3) if isinstance(value, float) else value for key, value in asdict(part).items()}


def _ctm_lines(transcript: Transcript) -> Iterator[str]:
    for word in transcript.words:
        # The end is rounded, not the length, so that a word does not overlap with the next one.
        start, end = round(word.start, 3), round(word.end, 3)
        place = f"{transcript.recording} {transcript.channel or 1} {start:.3f} {end - start:.3f}"
        yield f"{place} {word.word} {word.confidence:.3f}\n"


def _captions(transcript: Transcript) -> Iterator[str]:
    groups: list[list[Word]] = []
    for word in transcript.words:
        caption = groups[-1] if groups else []
        if (
            not caption
            or sum(len(other.word) + 1 for other in caption) + len(word.word) > CAPTION_CHARACTERS
            or word.end - caption[0].start > CAPTION_SECONDS
            or word.start - caption[-1].end > CAPTION_PAUSE_SECONDS
        ):
            groups.append([])
        groups[-1].append(word)
    for number, caption in enumerate(groups, start=1):
        times = f"{_srt_time(caption[0].start)} --> {_srt_time(caption[-1].end)}"
        yield f"{number}\n{times}\n{' '.join(word.word for word in caption)}\n"


def _srt_time(seconds: float) -> str:
    """A time as hours, minutes, seconds and milliseconds.

    Example:
        >>> _srt_time(3723.45)
        '01:02:03,450'
    """
    milliseconds = round(1000 * seconds)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d},{rest % 1000:03d}"
