"""The utterance, the type that all corpora share, and its manifest: one JSON object per line.

A recording that was made for the experiment is in the experiment's folder: its path is ``made``, relative to the folder
above the manifest's, so that the experiment can be moved. All other recordings have ``audio``, their path as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lhuc_asr.base.atomic import read_json_lines, write_json_lines
from lhuc_asr.base.errors import CorpusError
from lhuc_asr.base.hashed_folder import is_inside


@dataclass(frozen=True, slots=True)
class Utterance:
    """Part of a recording, with its speaker, environment and transcript.

    Attributes:
        id: Id, unique in its corpus.
        speaker: Name of the adaptation unit.
        environment: Name of the acoustic environment; "" where unknown.
        audio: File of the recording.
        start: Start of the utterance in the recording, seconds.
        seconds: Length of the utterance.
        text: Transcript, words separated by single spaces; "" where unknown.
        channel: Number of the recording's channel to take, from 1; None for the mean of all.
    """

    id: str
    speaker: str
    environment: str
    audio: Path
    start: float
    seconds: float
    text: str
    channel: int | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """Words of the transcript."""
        return tuple(self.text.split())


def write_manifest(path: Path, utterances: Iterable[Utterance]) -> None:
    """Write ``<split>.jsonl``, whole or not at all."""
    home = _home(path)
    write_json_lines(path, (_row(utterance, home) for utterance in utterances))


def read_manifest(path: Path) -> list[Utterance]:
    """Read ``<split>.jsonl``.

    Raises:
        CorpusError: A line lacks a field, or has an unknown one.
    """
    utterances, home = [], _home(path)
    for number, row in enumerate(read_json_lines(path), start=1):
        try:
            audio = _audio(row, home)
            utterances.append(Utterance(**{**row, "audio": audio}))
        except (KeyError, TypeError, ValueError) as error:
            raise CorpusError(f"{path}:{number}: not an utterance ({error})") from error
    return utterances


def _home(manifest: Path) -> Path:
    """The experiment's folder."""
    return manifest.absolute().parent.parent


def _row(utterance: Utterance, home: Path) -> dict[str, Any]:
    row = {key: value for key, value in asdict(utterance).items() if value is not None}
    audio = utterance.audio.absolute()
    if audio.is_relative_to(home):
        del row["audio"]
        return {**row, "made": audio.relative_to(home).as_posix()}
    return {**row, "audio": str(utterance.audio)}


def _audio(row: dict[str, Any], home: Path) -> Path:
    """The recording of a row, whose ``made`` is taken out.

    Raises:
        KeyError: The row names no recording.
        TypeError, ValueError: The path is not text, or ``made`` leaves the experiment's folder.
    """
    if "made" not in row:
        return Path(row["audio"])
    made: str = row.pop("made")
    if not is_inside(made):
        raise ValueError(f"{made!r} is not a path inside the experiment's folder")
    return home / made


def spoken_id(utterance_id: str, environment: str) -> str:
    """The id that all copies of an utterance share.

    Example:
        >>> spoken_id("an4.rain", "rain"), spoken_id("an4", "")
        ('an4', 'an4')
    """
    return utterance_id.removesuffix(f".{environment}") if environment else utterance_id
