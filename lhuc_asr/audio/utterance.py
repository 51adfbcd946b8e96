"""The utterance, the type that all corpora share, and its manifest: one JSON object per line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from lhuc_asr.base.atomic import read_json_lines, write_json_lines
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
    rows = ({**asdict(u), "audio": str(u.audio)} for u in utterances)
    write_json_lines(path, ({key: value for key, value in row.items() if value is not None} for row in rows))


def read_manifest(path: Path) -> list[Utterance]:
    """Read ``<split>.jsonl``.

    Raises:
        CorpusError: A line lacks a field, or has an unknown one.
    """
    utterances = []
    for number, row in enumerate(read_json_lines(path), start=1):
        try:
            utterances.append(Utterance(**{**row, "audio": Path(row["audio"])}))
        except (KeyError, TypeError) as error:
            raise CorpusError(f"{path}:{number}: not an utterance ({error})") from error
    return utterances


def spoken_id(utterance_id: str, environment: str) -> str:
    """The id that all copies of an utterance share.

    Example:
        >>> spoken_id("an4.rain", "rain"), spoken_id("an4", "")
        ('an4', 'an4')
    """
    return utterance_id.removesuffix(f".{environment}") if environment else utterance_id
