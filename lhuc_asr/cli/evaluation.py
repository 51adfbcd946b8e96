"""``adapt --evaluate REF``: the words of recordings with and without the speaker's amplitudes, against a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lhuc_asr.cli.corpora import opened_corpus

if TYPE_CHECKING:
    from lhuc_asr.recognizer.recognizer import Recognizer
    from lhuc_asr.recognizer.recordings import Recording
    from lhuc_asr.recognizer.speaker import Speaker


def read_references(path: Path, recognizer: Recognizer, named: Sequence[Recording]) -> dict[str, tuple[str, ...]]:
    """The reference transcripts of recordings.

    Args:
        path: A file with a line for each recording, or a corpus that has its transcripts inside.
        recognizer: The recognizer.
        named: The recordings; other transcripts are left out.

    Raises:
        CorpusError: A transcript is malformed, or no recording has one.
    """
    from lhuc_asr.base.errors import CorpusError
    from lhuc_asr.lang.tags import without_tags
    from lhuc_asr.recognizer.transcript import read_transcripts

    tags = recognizer.own_tags
    if path.is_dir():
        with opened_corpus(str(path), tags, lambda _: None) as corpus:
            transcripts = corpus.transcripts
    else:
        transcripts = read_transcripts(path, tags)
    names = {recording.name for recording in named}
    references = {name: without_tags(words) for name, words in transcripts.items() if name in names}
    if not any(references.values()):
        raise CorpusError(
            f"{path}: has no words of these recordings, such as {min(names)!r}; expected lines with a recording's name "
            "and its words, or a corpus with its transcripts"
        )
    return references


class Evaluation:
    """The words of each recording that has a reference, without and with adaptation.

    Args:
        references: Words of recordings, by their names.
    """

    def __init__(self, references: Mapping[str, Sequence[str]]) -> None:
        self._references = references
        self._speakers: dict[str, str] = {}
        self._words: tuple[dict[str, str], dict[str, str]] = ({}, {})

    def add(
        self,
        recognizer: Recognizer,
        speaker: Speaker,
        named: Sequence[Recording],
        channel: int | None,
        *,
        vad: bool,
    ) -> None:
        """Transcribe a speaker's recordings without and with their amplitudes."""
        from lhuc_asr.lang.tags import without_tags

        for person, words in zip((None, speaker), self._words, strict=True):
            for transcript in recognizer.transcripts(named, person, channel=channel, vad=vad, on_bad=_told_already):
                if transcript.recording in self._references:
                    said = without_tags([word.word for word in transcript.words])
                    words[transcript.recording] = " ".join(said)
                    self._speakers[transcript.recording] = speaker.name

    def lines(self) -> list[str]:
        """What adaptation changed, in words.

        Raises:
            ScoreError: The references of a speaker have no words.
        """
        from lhuc_asr.score.before_after import before_and_after

        before, after = self._words
        common = [name for name in before if name in after]
        references = {name: " ".join(self._references[name]) for name in common}
        return before_and_after(
            references, {name: before[name] for name in common}, {name: after[name] for name in common}, self._speakers
        )


def _told_already(problem: object) -> None:
    """Leave out recordings that adaptation has left out, and told."""
