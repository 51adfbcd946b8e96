"""Known transcripts, matched with the recordings that they belong to."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from lhuc_asr.base.errors import AudioError, CorpusError
from lhuc_asr.recognizer.recordings import OnBad, Recording, usable

logger = logging.getLogger(__name__)

# A recording with a transcript is aligned whole, which takes memory proportional to frames times words.
LONGEST_TRANSCRIBED_SECONDS = 60.0
# Names in a message.
NAMED = 5


def with_transcripts(
    named: Sequence[Recording], transcripts: Mapping[str, Sequence[str]], on_bad: OnBad
) -> list[Recording]:
    """The recordings that have a transcript and are short enough for it.

    Raises:
        CorpusError: None has a transcript.
    """
    names = {recording.name for recording in named}
    strangers = [name for name in transcripts if name not in names]
    if len(strangers) == len(transcripts):
        raise CorpusError(
            f"no transcript belongs to a recording: there are transcripts of {_some(strangers) or 'none'}, and the "
            f"recordings {_some(sorted(names))}"
        )
    if strangers:
        logger.warning("%d transcripts belong to no recording: %s", len(strangers), _some(strangers))
    kept = []
    for recording in named:
        with usable(recording.title, on_bad, recording.path):
            _check_transcript(recording, transcripts)
            kept.append(recording)
    return kept


def _check_transcript(recording: Recording, transcripts: Mapping[str, Sequence[str]]) -> None:
    """Raise an error unless a recording has a transcript and is short enough for it."""
    if recording.name not in transcripts:
        raise CorpusError(f"{recording.title}: no transcript for {recording.name!r}; add a line, or leave it out")
    if recording.seconds > LONGEST_TRANSCRIBED_SECONDS:
        raise AudioError(
            f"{recording.title}: {recording.seconds:.0f} s are too long for a transcript, expected at most "
            f"{LONGEST_TRANSCRIBED_SECONDS:.0f} s; cut recording and transcript, or adapt without transcripts"
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
