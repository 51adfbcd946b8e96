"""What a corpus's reader returns: the utterances, and what it could not use with the reason.

Also what every reader shares: text files a line at a time, and lengths from the recordings' headers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from lhuc_asr.audio.formats import probe
from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.errors import AudioError, CorpusError


@dataclass(frozen=True, slots=True)
class Skip:
    """An utterance that cannot be used.

    Attributes:
        id: The utterance.
        reason: Why, in words for the log.
    """

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Reading:
    """A corpus as it was found, before ``validate`` has seen it."""

    utterances: list[Utterance]
    skipped: list[Skip] = field(default_factory=list)


def measure(candidates: Iterable[Utterance | Skip]) -> Iterator[Utterance | Skip]:
    """Give whole-file utterances their length from the recording's header; those without one become skips."""
    for candidate in candidates:
        if isinstance(candidate, Skip):
            yield candidate
            continue
        try:
            yield replace(candidate, seconds=probe(candidate.audio).seconds)
        except AudioError as error:
            yield Skip(candidate.id, str(error))


def gather(items: Iterable[Utterance | Skip]) -> Reading:
    """Part utterances from skips; both sorted, utterances by speaker and id."""
    items = list(items)
    utterances = [item for item in items if isinstance(item, Utterance)]
    skipped = [item for item in items if isinstance(item, Skip)]
    return Reading(sorted(utterances, key=lambda u: (u.speaker, u.id)), sorted(skipped, key=lambda s: (s.id, s.reason)))


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of a UTF-8 text file with their numbers from 1, stripped; empty lines are left out.

    Raises:
        CorpusError: The file is missing or not UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise CorpusError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); convert it") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line.strip()
