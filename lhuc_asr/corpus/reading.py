"""Results of reading a corpus: its utterances, and those that cannot be used with the reason.

Also shared by all readers: lengths from the headers of recordings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from lhuc_asr.audio.formats import probe
from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.errors import AudioError


@dataclass(frozen=True, slots=True)
class Skip:
    """An utterance that cannot be used.

    Attributes:
        id: Id of the utterance.
        reason: Why it cannot be used, in words for the log.
        audio: Its recording; None where no file is named for it.
    """

    id: str
    reason: str
    audio: Path | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """A corpus as its reader found it, before ``validate`` has checked it.

    Attributes:
        utterances: Utterances, sorted by speaker and id.
        skipped: Utterances that cannot be used, sorted by id.
    """

    utterances: list[Utterance]
    skipped: list[Skip] = field(default_factory=list)

    @property
    def recordings(self) -> set[Path]:
        """All recordings that the corpus names, including those that cannot be used."""
        return {u.audio for u in self.utterances} | {s.audio for s in self.skipped if s.audio is not None}


def measure(candidates: Iterable[Utterance | Skip]) -> Iterator[Utterance | Skip]:
    """Set the length of utterances that are whole recordings from their headers; unreadable ones become skips."""
    for candidate in candidates:
        if isinstance(candidate, Skip):
            yield candidate
            continue
        try:
            yield replace(candidate, seconds=probe(candidate.audio).seconds)
        except AudioError as error:
            yield Skip(candidate.id, str(error), candidate.audio)


def gather(items: Iterable[Utterance | Skip]) -> Reading:
    """Separate utterances from skips; utterances sorted by speaker and id, skips by id."""
    items = list(items)
    utterances = [item for item in items if isinstance(item, Utterance)]
    skipped = [item for item in items if isinstance(item, Skip)]
    return Reading(sorted(utterances, key=lambda u: (u.speaker, u.id)), sorted(skipped, key=lambda s: (s.id, s.reason)))
