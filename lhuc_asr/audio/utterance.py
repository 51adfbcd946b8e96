"""The one type of every corpus, and its manifest: one JSON object a line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from lhuc_asr.base.atomic import read_json_lines, write_json_lines
from lhuc_asr.base.errors import CorpusError


@dataclass(frozen=True, slots=True)
class Utterance:
    """A stretch of a recording, who speaks, where, and what was said.

    Attributes:
        id: Unique in its corpus.
        speaker: Name of the adaptation unit.
        environment: Name of the acoustic condition; "" where none is known.
        audio: The recording.
        start: Where the utterance begins in the recording, seconds.
        seconds: Its length.
        text: Words separated by single spaces; "" where no transcript is known.
    """

    id: str
    speaker: str
    environment: str
    audio: Path
    start: float
    seconds: float
    text: str

    @property
    def words(self) -> tuple[str, ...]:
        """The transcript's words."""
        return tuple(self.text.split())


def write_manifest(path: Path, utterances: Iterable[Utterance]) -> None:
    """Write ``<split>.jsonl``, whole or not at all."""
    write_json_lines(path, ({**asdict(u), "audio": str(u.audio)} for u in utterances))


def read_manifest(path: Path) -> list[Utterance]:
    """Read ``<split>.jsonl``.

    Raises:
        CorpusError: A line lacks a field, or has one that no utterance has.
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
