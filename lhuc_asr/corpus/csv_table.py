"""Tables of recordings, CSV or TSV: a line for each utterance, with the names of the columns in the first line.

A table has the columns ``audio``, ``speaker`` and ``text``; ``id``, ``start`` and ``end`` (seconds), ``channel`` (from
1) and ``environment`` are optional. Other columns are left alone. Names that others use for them are known too: Common
Voice's ``path``, ``client_id`` and ``sentence``, and more (``SYNONYMS``).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

from lhuc_asr.audio.formats import probe
from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.errors import AudioError, CorpusError
from lhuc_asr.base.local_path import InputFile
from lhuc_asr.corpus.reading import Reading, Skip, gather
from lhuc_asr.corpus.two_places import TwoPlaces
from lhuc_asr.lang.lines import quoted, read_lines
from lhuc_asr.lang.tags import spoken_words
from lhuc_asr.lang.text import normalise_name

# Names of columns, our own first.
SYNONYMS = {
    "audio": ("audio", "path", "file", "filename", "file_name", "wav", "audio_path", "audio_filepath", "wav_filename"),
    "speaker": ("speaker", "speaker_id", "spk", "client_id"),
    "text": ("text", "transcript", "transcription", "sentence"),
    "id": ("id", "utt_id", "utterance"),
    "start": ("start", "begin", "offset"),
    "end": ("end",),
    "channel": ("channel",),
    "environment": ("environment",),
}
REQUIRED = ("audio", "speaker", "text")


class CsvSource(TwoPlaces):
    """Two tables of recordings.

    Attributes:
        train: Table to train on.
        test: Table to test on.
    """

    kind: Literal["csv"] = "csv"
    train: InputFile
    test: InputFile
    names_environments: ClassVar[bool] = True

    def read_place(self, place: Path, own_tags: Collection[str]) -> Reading:
        """Read a table."""
        return read_csv_table(place, own_tags)


def read_csv_table(path: Path, own_tags: Collection[str] = ()) -> Reading:
    """Read a table; relative paths of recordings start from its folder.

    Cells are separated by tabs where the first line has one, else by semicolons where it has one, else by commas. An
    utterance without ``id`` has the name of its recording, with the number of its line where it has a ``start``.

    Args:
        path: UTF-8 text, plain or compressed.
        own_tags: Tags that the user's lexicon lists, as in ``tags.spoken_words``.

    Raises:
        CorpusError: A column is missing or there twice, a line has more cells than columns or lacks a recording or a
            speaker, a number is wrong, or a transcript has an unknown tag; the message names the line.
    """
    rows = _rows(path)
    return gather(_utterance(path, number, row, own_tags) for number, row in rows)


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """The cells of each line by our names of their columns, with the line's number."""
    lines = list(read_lines(path))
    if not lines:
        raise CorpusError(f"{path}: is empty; expected a line of column names: {', '.join(REQUIRED)}")
    first = lines[0][1]
    delimiter = next((sign for sign in "\t;" if sign in first), ",")
    quoting: Literal[0, 3] = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    # A quoted cell may go on in the next line.
    cells = csv.reader((f"{line}\n" for _, line in lines), delimiter=delimiter, quoting=quoting)
    try:
        header = _columns(path, next(cells))
        for row in cells:
            number = lines[cells.line_num - 1][0]
            if len(row) > len(header):
                raise CorpusError(
                    f"{path}:{number}: {len(row)} cells, expected {len(header)}; quote cells with {delimiter!r} in them"
                )
            row += [""] * (len(header) - len(row))  # empty cells at the end have lost their tabs
            yield number, {name: cell.strip() for name, cell in zip(header, row, strict=True) if name}
    except csv.Error as error:
        raise CorpusError(
            f"{path}:{lines[cells.line_num - 1][0]}: not a line of a table ({error}); quote its cells"
        ) from error


def _columns(path: Path, names: list[str]) -> list[str]:
    """Our names of the columns, "" for others."""
    own = {synonym: name for name, synonyms in SYNONYMS.items() for synonym in synonyms}
    columns = [own.get(name.strip().lower(), "") for name in names]
    for name in SYNONYMS:
        if columns.count(name) > 1:
            raise CorpusError(f"{path}:1: {columns.count(name)} columns are the {name}; rename all but one of them")
    if lacking := [name for name in REQUIRED if name not in columns]:
        raise CorpusError(f"{path}:1: no column {', '.join(lacking)}; found {quoted(', '.join(names))}")
    return columns


def _utterance(path: Path, number: int, row: Mapping[str, str], own_tags: Collection[str]) -> Utterance | Skip:
    place = f"{path}:{number}"
    for name in ("audio", "speaker"):
        if not row[name]:
            raise CorpusError(f"{place}: the cell {name} is empty; fill it in, or delete the line")
    audio = (path.absolute().parent / row["audio"]).absolute()
    start, end = (_seconds(place, row, name) for name in ("start", "end"))
    id = row.get("id") or (audio.stem if start is None else f"{audio.stem}-{number}")
    utterance = Utterance(
        id=normalise_name(id),
        speaker=normalise_name(row["speaker"]),
        environment=normalise_name(row.get("environment", "")),
        audio=audio,
        start=start or 0.0,
        seconds=0.0,
        text=" ".join(spoken_words(row["text"], place, own_tags)),
        channel=_channel(place, row),
    )
    if end is None:
        try:
            end = probe(audio).seconds
        except AudioError as error:
            return Skip(utterance.id, str(error), audio)
    if end <= utterance.start:
        raise CorpusError(f"{place}: the utterance ends at {end:g} s, expected an end after {utterance.start:g} s")
    return replace(utterance, seconds=end - utterance.start)


def _seconds(place: str, row: Mapping[str, str], name: str) -> float | None:
    """A time; None where the table has none."""
    text = row.get(name, "")
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0.0 <= seconds < math.inf:
        raise CorpusError(f"{place}: {name}: expected seconds from the recording's beginning, found {quoted(text)}")
    return seconds


def _channel(place: str, row: Mapping[str, str]) -> int | None:
    text = row.get("channel", "")
    if text and not (text.isascii() and text.isdigit() and int(text) > 0):
        raise CorpusError(f"{place}: channel: expected a number from 1, found {quoted(text)}")
    return int(text) if text else None
