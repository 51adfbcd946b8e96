"""Transcripts of recordings with times and confidences, written as text, JSON, SRT or CTM, and read from text."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from lhuc_asr.base.errors import CorpusError
from lhuc_asr.lang.lines import read_lines
from lhuc_asr.lang.tags import spoken_words
from lhuc_asr.lang.text import normalise_name

Format = Literal["txt", "json", "srt", "ctm"]

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
class Transcript:
    """The words of a recording.

    Attributes:
        recording: Name of the recording.
        path: File of the recording.
        seconds: Length of the recording.
        words: Words in the order of their times.
    """

    recording: str
    path: Path
    seconds: float
    words: tuple[Word, ...]

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
        CorpusError: The file is missing or not UTF-8 text, names a recording twice, or has an unknown tag.
    """
    transcripts: dict[str, tuple[str, ...]] = {}
    for number, line in read_lines(path):
        name, *rest = line.split(maxsplit=1)
        name = normalise_name(name)
        if name in transcripts:
            raise CorpusError(f"{path}:{number}: {name!r} already has an earlier line; delete one of the two")
        transcripts[name] = spoken_words(" ".join(rest), f"{path}:{number}", own_tags)
    return transcripts


def _tree(transcript: Transcript) -> dict[str, object]:
    return {
        "recording": transcript.recording,
        "path": str(transcript.path),
        "seconds": round(transcript.seconds, 3),
        "text": transcript.text,
        "words": [
            {key: round(value, 3) if isinstance(value, float) else value for key, value in asdict(word).items()}
            for word in transcript.words
        ],
    }


def _ctm_lines(transcript: Transcript) -> Iterator[str]:
    for word in transcript.words:
        # The end is rounded, not the length, so that a word does not overlap with the next one.
        start, end = round(word.start, 3), round(word.end, 3)
        yield f"{transcript.recording} 1 {start:.3f} {end - start:.3f} {word.word} {word.confidence:.3f}\n"


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
