"""The utterance, the type that all corpora share, and its manifest: one JSON object per line.

A recording that was made for the experiment is in the experiment's folder: its path is ``made``, relative to the folder
above the manifest's, so that the experiment can be moved. All other recordings have ``audio``, their path as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict

from lhuc_asr.base.atomic import write_json_lines
from lhuc_asr.base.documents import DocumentKind, FilePath, Name, NotNegative, Positive
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
        CorpusError: The file is missing, or a line lacks a field, has an unknown one or a value of another kind.
    """
    home = _home(path)
    return [row.utterance(home) for row in _ROWS.rows(path)]


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


@dataclass(frozen=True)
class _Row:
    """A line of a manifest: an utterance whose recording is outside the experiment (``audio``) or made in it."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    id: Name
    speaker: Name
    environment: str
    start: NotNegative
    seconds: NotNegative
    text: str
    audio: FilePath | None = None
    made: str | None = None
    channel: Positive | None = None

    def __post_init__(self) -> None:
        if (self.audio is None) == (self.made is None):
            raise ValueError("expected either 'audio' or 'made'")
        if self.made is not None and not is_inside(self.made):
            raise ValueError(f"{self.made!r} is not a path inside the experiment's folder")

    def utterance(self, home: Path) -> Utterance:
        """The utterance, in an experiment's folder."""
        audio = self.audio or home / (self.made or "")
        return Utterance(
            self.id, self.speaker, self.environment, audio, self.start, self.seconds, self.text, self.channel
        )


_ROWS = DocumentKind(_Row, "an utterance", CorpusError, "delete the file and run again", missing="run again")


def spoken_id(utterance_id: str, environment: str) -> str:
    """The id that all copies of an utterance share.

    Example:
        >>> spoken_id("an4.rain", "rain"), spoken_id("an4", "")
        ('an4', 'an4')
    """
    return utterance_id.removesuffix(f".{environment}") if environment else utterance_id
