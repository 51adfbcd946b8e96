"""The formats of transcripts: written piece by piece, and known again before a file is replaced.

Subtitles are written and read by pysubs2, TextGrid by praatio. A format is an entry of ``FORMATS``.
"""

from __future__ import annotations

import csv
import html
import io
import json
import re
import textwrap
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import groupby
from typing import Literal

import pysubs2
from praatio.utilities import textgrid_io
from praatio.utilities.errors import PraatioException

from lhuc_asr.base.destinations import shown
from lhuc_asr.base.errors import CorpusError
from lhuc_asr.decode.lattice_file import lattice_lines
from lhuc_asr.recognizer.transcript import Phone, Span, Transcript, Word

Format = Literal["txt", "json", "ctm", "stm", "tsv", "srt", "vtt", "TextGrid", "lattice", "phone-ctm"]

# Fields of a recording in JSON, in every version; those of later ones are left_out, channel, speaker and phones.
_JSON_KEYS = frozenset({"recording", "path", "seconds", "text", "words"})
TSV_HEADER = ("recording", "start", "end", "word", "confidence")
# The speaker of a segment of STM, whose place may not be empty.
NOBODY = "unknown"

# A caption has at most this many characters and seconds, and ends at a pause of this length.
CAPTION_CHARACTERS, CAPTION_SECONDS, CAPTION_PAUSE_SECONDS = 80, 6.0, 0.7

# Name of a piece's lattice: that of the recording, and its times in hundredths of a second.
_PIECE = re.compile(r"(?P<recording>.+)-\d{7,}-\d{7,}")

# The name of a recording, and its words separated by spaces.
Row = tuple[str, str]


@dataclass(frozen=True)
class TranscriptFormat:
    """A format of transcripts.

    Attributes:
        title: Name of the format in messages.
        pieces: The text of transcripts, piece by piece: a transcript is written as soon as it is there.
        rows: Recordings and words of a text; None if the text is something else.
        several: Whether a text holds several recordings, with their names.
        wordless: Whether a recording without words leaves a trace in the text.
    """

    title: str
    pieces: Callable[[Iterable[Transcript]], Iterator[str]]
    rows: Callable[[str], list[Row] | None]
    several: bool = True
    wordless: bool = False


def pieces(transcripts: Iterable[Transcript], form: Format) -> Iterator[str]:
    """The text of transcripts in a format, piece by piece; it ends with a line break.

    ``txt`` has one line per recording, the recording's name first, as ``read_transcripts`` reads it. ``ctm`` and
    ``stm`` are NIST's: recording, channel, start, length, word, confidence; recording, channel, speaker, start, end,
    label, words. ``phone-ctm`` is Kaldi's: recording, channel, start, length, phone. ``tsv`` has a row per word and a
    header. ``lattice`` has Kaldi's compact lattices as text (``decode/lattice_file.py``), one for each piece that was
    searched: ``talk-0000000-0000812`` is the piece of the recording ``talk`` from 0 to 8.12 s.

    Raises:
        CorpusError: There are several recordings for a format that holds one.
    """
    if not FORMATS[form].several:
        transcripts = list(transcripts)
        check_holds(form, len(transcripts))
    return FORMATS[form].pieces(transcripts)


def write(transcripts: Iterable[Transcript], form: Format) -> str:
    """The text of transcripts in a format; see ``pieces``."""
    return "".join(pieces(transcripts, form))


def check_holds(form: Format, count: int) -> None:
    """Refuse a format that cannot hold so many recordings in one text.

    Raises:
        CorpusError: There are several recordings for a format that holds one.
    """
    if count > 1 and not FORMATS[form].several:
        raise CorpusError(
            f"{FORMATS[form].title} holds one recording, found {count}; write them to a folder: --output FOLDER"
        )


def is_written(text: str, form: Format, names: Collection[str], vocabulary: Collection[str]) -> bool:
    """Whether a text is what ``write`` gives for some recordings.

    Args:
        text: Content of a file.
        form: The format.
        names: Names of the recordings; formats that hold one recording do not have them.
        vocabulary: Words that transcripts can have; for ``phone-ctm``, phones.
    """
    rows = FORMATS[form].rows(text)
    return rows is not None and all(
        (not FORMATS[form].several or name in names) and all(word in vocabulary for word in words.split())
        for name, words in rows
    )


def recordings_in(text: str, form: Format) -> set[str]:
    """Names of the recordings whose transcripts a text has; none if it is something else."""
    return {name for name, _ in FORMATS[form].rows(text) or ()}


# Text: a line for each recording.


def _txt(transcripts: Iterable[Transcript]) -> Iterator[str]:
    for transcript in transcripts:
        yield f"{transcript.recording} {transcript.text}".rstrip() + "\n"


def _txt_rows(text: str) -> list[Row]:
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in text.splitlines()]


# JSON: a list of recordings.


def _json(transcripts: Iterable[Transcript]) -> Iterator[str]:
    before = "[\n"
    for transcript in transcripts:
        yield before + textwrap.indent(json.dumps(tree_of(transcript), indent=2, ensure_ascii=False), "  ")
        before = ",\n"
    yield "[]\n" if before == "[\n" else "\n]\n"


def tree_of(transcript: Transcript) -> dict[str, object]:
    """A transcript as plain values: an object of the JSON format."""
    return {
        "recording": transcript.recording,
        "path": shown(transcript.path),
        "seconds": round(transcript.seconds, 3),
        **({} if transcript.channel is None else {"channel": transcript.channel}),
        **({"speaker": transcript.speaker} if transcript.speaker else {}),
        "text": transcript.text,
        "left_out": [_rounded(span) for span in transcript.left_out],
        "words": [_rounded(word) for word in transcript.words],
        **({"phones": [_rounded(phone) for phone in transcript.phones]} if transcript.phones else {}),
    }


def _rounded(part: Word | Span | Phone) -> dict[str, object]:
    return {key: round(value, 3) if isinstance(value, float) else value for key, value in asdict(part).items()}


def _json_rows(text: str) -> list[Row] | None:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(rows, list) or not rows:
        return None
    if not all(isinstance(row, dict) and row.keys() >= _JSON_KEYS for row in rows):
        return None
    return [(str(row["recording"]), str(row["text"])) for row in rows]


# CTM and TSV: a line for each word. STM: a line for each phrase.


def _ctm(transcripts: Iterable[Transcript]) -> Iterator[str]:
    for transcript in transcripts:
        for word in transcript.words:
            yield f"{_ctm_place(transcript, word)} {word.word} {word.confidence:.3f}\n"


def _phone_ctm(transcripts: Iterable[Transcript]) -> Iterator[str]:
    for transcript in transcripts:
        for phone in transcript.phones:
            yield f"{_ctm_place(transcript, phone)} {phone.phone}\n"


def _ctm_place(transcript: Transcript, part: Word | Phone) -> str:
    # The end is rounded, not the length, so that a word does not overlap with the next one.
    start, end = round(part.start, 3), round(part.end, 3)
    return f"{transcript.recording} {transcript.channel or 1} {start:.3f} {end - start:.3f}"


def _ctm_rows(text: str) -> list[Row] | None:
    lines = [line.split(" ") for line in text.splitlines()]
    if any(len(line) != 6 or not all(map(_is_number, (*line[1:4], line[5]))) for line in lines):
        return None
    return [(line[0], line[4]) for line in lines]


def _phone_ctm_rows(text: str) -> list[Row] | None:
    lines = [line.split(" ") for line in text.splitlines()]
    if any(len(line) != 5 or not all(map(_is_number, line[1:4])) for line in lines):
        return None
    return [(line[0], line[4]) for line in lines]


def _tsv(transcripts: Iterable[Transcript]) -> Iterator[str]:
    yield _tsv_line(TSV_HEADER)
    for transcript in transcripts:
        for word in transcript.words:
            times = f"{word.start:.3f}", f"{word.end:.3f}"
            yield _tsv_line((transcript.recording, *times, word.word, f"{word.confidence:.3f}"))


def _tsv_line(fields: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line, dialect="excel-tab", lineterminator="\n").writerow(fields)
    return line.getvalue()


def _tsv_rows(text: str) -> list[Row] | None:
    try:
        header, *lines = csv.reader(io.StringIO(text), dialect="excel-tab", strict=True)
    except (csv.Error, ValueError):
        return None
    if tuple(header) != TSV_HEADER or any(
        len(line) != len(header) or not all(map(_is_number, (*line[1:3], line[4]))) for line in lines
    ):
        return None
    return [(line[0], line[3]) for line in lines]


def _stm(transcripts: Iterable[Transcript]) -> Iterator[str]:
    for transcript in transcripts:
        who = "_".join(transcript.speaker.split()) or NOBODY
        for phrase in _phrases(transcript):
            times = f"{phrase[0].start:.3f} {phrase[-1].end:.3f}"
            # Without a label, a word in angle brackets at the beginning would be read as one.
            yield f"{transcript.recording} {transcript.channel or 1} {who} {times} <O> {_text(phrase)}\n"


def _stm_rows(text: str) -> list[Row] | None:
    lines = [line.split(" ", 6) for line in text.splitlines()]
    if any(len(line) != 7 or line[5] != "<O>" or not all(map(_is_number, (line[1], *line[3:5]))) for line in lines):
        return None
    names = groupby(lines, key=lambda line: line[0])
    return [(name, " ".join(line[6] for line in phrases)) for name, phrases in names]


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdecimal()


# Lattices: several lines for each piece.


def _lattices(transcripts: Iterable[Transcript]) -> Iterator[str]:
    for transcript in transcripts:
        for piece in transcript.lattices:
            start, end = round(100 * piece.start), round(100 * piece.end)
            utterance = f"{transcript.recording}-{start:07d}-{end:07d}"
            yield from lattice_lines(utterance, piece.lattice, piece.words)


def _lattice_rows(text: str) -> list[Row] | None:
    rows: list[Row] = []
    if not text:
        return rows
    for block in text.removesuffix("\n\n").split("\n\n"):
        utterance, *lines = block.split("\n")
        named = _PIECE.fullmatch(utterance)
        fields = [line.split(" ") for line in lines]
        # An arc is "from to word weight", an end "node weight".
        if named is None or any(len(line) not in (2, 4) or line[-1].count(",") != 2 for line in fields):
            return None
        rows.append((named["recording"], " ".join(line[2] for line in fields if len(line) == 4)))
    return rows


# Subtitles and TextGrid: one recording.


def _captions(form: Literal["srt", "vtt"], transcripts: Iterable[Transcript]) -> Iterator[str]:
    for transcript in transcripts:
        subtitles = pysubs2.SSAFile()
        for phrase in _phrases(transcript):
            # WebVTT takes "<NOISE>" for mark-up; SubRip has no way to write it otherwise.
            text = html.escape(_text(phrase), quote=False) if form == "vtt" else _text(phrase)
            start, end = (pysubs2.make_time(s=seconds) for seconds in (phrase[0].start, phrase[-1].end))
            subtitles.append(pysubs2.SSAEvent(start, end, text))
        written = subtitles.to_string(form, keep_ssa_tags=True).rstrip("\n")
        yield f"{written}\n" if written else ""


def _caption_rows(form: Literal["srt", "vtt"], text: str) -> list[Row] | None:
    # pysubs2 finds captions in any text, and drops what is not one.
    subtitles = pysubs2.SSAFile.from_string(text, form, keep_html_tags=True)
    written = subtitles.to_string(form, keep_ssa_tags=True)
    if written.split() != text.split():
        return None
    return [("", html.unescape(event.text) if form == "vtt" else event.text) for event in subtitles]


def _phrases(transcript: Transcript) -> list[list[Word]]:
    """The words, in captions."""
    phrases: list[list[Word]] = []
    for word in transcript.words:
        phrase = phrases[-1] if phrases else []
        if (
            not phrase
            or sum(len(other.word) + 1 for other in phrase) + len(word.word) > CAPTION_CHARACTERS
            or word.end - phrase[0].start > CAPTION_SECONDS
            or word.start - phrase[-1].end > CAPTION_PAUSE_SECONDS
        ):
            phrases.append([])
        phrases[-1].append(word)
    return phrases


def _text(words: Sequence[Word]) -> str:
    return " ".join(word.word for word in words)


def _textgrid(transcripts: Iterable[Transcript]) -> Iterator[str]:
    for transcript in transcripts:
        tiers = {"words": [(word.start, word.end, word.word) for word in transcript.words]}
        if transcript.phones:
            tiers["phones"] = [(phone.start, phone.end, phone.phone) for phone in transcript.phones]
        # Praat refuses intervals that end after their tier.
        yield _grid(max([transcript.seconds, *(word.end for word in transcript.words)]), tiers)


def _grid(seconds: float, tiers: Mapping[str, Sequence[tuple[float, float, str]]]) -> str:
    """A TextGrid of a length, with the intervals of each tier."""
    span = {"xmin": 0.0, "xmax": round(seconds, 3)}
    rounded = {
        name: [(round(start, 3), round(end, 3), label) for start, end, label in intervals]
        for name, intervals in tiers.items()
    }
    classed = [{"class": "IntervalTier", "name": name, "entries": rows, **span} for name, rows in rounded.items()]
    grid = {"tiers": classed, **span}
    written: str = textgrid_io.getTextgridAsStr(grid, "long_textgrid", includeBlankSpaces=True)
    return written


def _textgrid_rows(text: str) -> list[Row] | None:
    if not text.startswith('File type = "ooTextFile"\nObject class = "TextGrid"\n'):
        return None
    try:
        grid = textgrid_io.parseTextgridStr(text)
        tiers = {
            tier["name"]: [(float(start), float(end), label) for start, end, label in tier["entries"]]
            for tier in grid["tiers"]
        }
        written = _grid(grid["xmax"], tiers)
    except (PraatioException, ValueError, LookupError, RecursionError, AttributeError, TypeError):
        return None  # praatio checks little of what it reads
    return [("", " ".join(label for *_, label in tiers.get("words", ())))] if written == text else None


FORMATS: dict[Format, TranscriptFormat] = {
    "txt": TranscriptFormat("text", _txt, _txt_rows, wordless=True),
    "json": TranscriptFormat("JSON", _json, _json_rows, wordless=True),
    "ctm": TranscriptFormat("CTM", _ctm, _ctm_rows),
    "stm": TranscriptFormat("STM", _stm, _stm_rows),
    "tsv": TranscriptFormat("TSV", _tsv, _tsv_rows),
    "srt": TranscriptFormat("SRT", partial(_captions, "srt"), partial(_caption_rows, "srt"), several=False),
    "vtt": TranscriptFormat("WebVTT", partial(_captions, "vtt"), partial(_caption_rows, "vtt"), several=False),
    "TextGrid": TranscriptFormat("TextGrid", _textgrid, _textgrid_rows, several=False),
    "lattice": TranscriptFormat("lattices", _lattices, _lattice_rows),
    "phone-ctm": TranscriptFormat("CTM of phones", _phone_ctm, _phone_ctm_rows),
}
