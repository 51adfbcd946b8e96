"""The utterance, the type that all corpora share, and its manifest: one JSON object per line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict

from lhuc_asr.base.atomic import write_json_lines
from lhuc_asr.base.documents import DocumentKind, FilePath, Name, NotNegative
from lhuc_asr.base.errors import CorpusError


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
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    id: Name
    speaker: Name
    environment: str
    audio: FilePath
    start: NotNegative
    seconds: NotNegative
    text: str

    @property
    def words(self) -> tuple[str, ...]:
        """Words of the transcript."""
        return tuple(self.text.split())


_ROWS = DocumentKind(Utterance, "an utterance", CorpusError, "delete the file and run again", missing="run again")


def write_manifest(path: Path, utterances: Iterable[Utterance]) -> None:
    """Write ``<split>.jsonl``, whole or not at all."""
    write_json_lines(path, ({**asdict(u), "audio": str(u.audio)} for u in utterances))


def read_manifest(path: Path) -> list[Utterance]:
    """Read ``<split>.jsonl``.

    Raises:
        CorpusError: The file is missing, or a line lacks a field, has an unknown one or a value of another kind.
    """
    return list(_ROWS.rows(path))


def spoken_id(utterance_id: str, environment: str) -> str:
    """The id that all copies of an utterance share.

    Example:
        >>> spoken_id("an4.rain", "rain"), spoken_id("an4", "")
        ('an4', 'an4')
    """
    return utterance_id.removesuffix(f".{environment}") if environment else utterance_id
