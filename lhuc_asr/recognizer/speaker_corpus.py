"""The recordings of many speakers in one folder, and what they say.

The speakers are those of the first of these that there is:

    utt2spk        a line for each recording, as in Kaldi: its name (without its ending) and its speaker
    *.rttm         NIST's: who speaks when; each turn counts as a recording
    sub-folders    named after the speakers, as in LibriSpeech

Transcripts are in ``text`` (a line for each recording: its name and its words), in LibriSpeech's ``*.trans.txt``, or
beside a recording in a file of its name that ends in ``.lab`` or ``.txt``, as the Montreal Forced Aligner takes them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from lhuc_asr.audio.formats import probe
from lhuc_asr.audio.recording import TOLERANCE_SECONDS
from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.destinations import shown
from lhuc_asr.base.errors import AudioError, CorpusError
from lhuc_asr.base.units import FRAME_LENGTH_SECONDS
from lhuc_asr.lang.lines import read_lines
from lhuc_asr.lang.text import normalise_name
from lhuc_asr.recognizer.recordings import OnBad, Recording, recordings, usable
from lhuc_asr.recognizer.transcript import Span, read_text, read_transcripts, recording_name

logger = logging.getLogger(__name__)

UTT2SPK, RTTM, TEXT, LIBRISPEECH = "utt2spk", "*.rttm", "text", "*.trans.txt"
TEXT_ENDINGS = (".lab", ".txt")
# Types of lines of RTTM, all but SPEAKER without a speaker's turn.
RTTM_TURN = "SPEAKER"


@dataclass(frozen=True)
class SpeakerCorpus:
    """The recordings of many speakers.

    Attributes:
        speakers: Recordings of each speaker, by name; a folder without speakers has one, "".
        transcripts: Words of recordings, by their names; recordings may have none.
    """

    speakers: dict[str, list[Recording]]
    transcripts: dict[str, tuple[str, ...]]

    @property
    def recordings(self) -> list[Recording]:
        """All recordings, speaker after speaker."""
        return [recording for theirs in self.speakers.values() for recording in theirs]

    def named_speakers(self) -> dict[str, list[Recording]]:
        """Recordings of each speaker.

        Raises:
            CorpusError: The folder has no speakers.
        """
        if "" in self.speakers:
            raise CorpusError(
                f"{self.recordings[0].title}: is in no speaker's folder; make a folder for each speaker, or name the "
                "one who speaks in all recordings: --speaker NAME"
            )
        return self.speakers

    @property
    def speaker_of(self) -> dict[str, str]:
        """The speaker of each recording, by its name."""
        return {recording.name: speaker for speaker, theirs in self.speakers.items() for recording in theirs}


@contextmanager
def speaker_corpus(folder: Path, own_tags: Collection[str] = (), on_bad: OnBad = None) -> Iterator[SpeakerCorpus]:
    """A context with the recordings in a folder, their speakers and their transcripts.

    Args:
        folder: The folder.
        own_tags: Tags that the model's lexicon lists.
        on_bad: What happens to recordings that cannot be used.

    Raises:
        AudioError: A recording cannot be used, and ``on_bad`` is None.
        CorpusError: The folder has no recording, or a table is malformed.
    """
    with recordings([folder], on_bad) as named:
        rttms = sorted(path for path in folder.glob(RTTM) if not path.name.startswith("."))
        if (folder / UTT2SPK).is_file():
            speakers = _by_table(folder / UTT2SPK, named, on_bad)
        elif rttms:
            speakers = _by_turns(rttms, named, on_bad)
        else:
            speakers = _by_folder(folder, named, on_bad)
        yield SpeakerCorpus(dict(sorted(speakers.items())), _transcripts(folder, named, own_tags))


def corpus_of(utterances: Iterable[Utterance], on_bad: OnBad = None) -> SpeakerCorpus:
    """Utterances that are read already, such as a Kaldi data directory's, each as a recording of its own.

    Args:
        utterances: The utterances.
        on_bad: What happens to utterances whose recording cannot be opened.

    Raises:
        AudioError: A recording cannot be opened, and ``on_bad`` is None.
    """
    speakers: dict[str, list[Recording]] = {}
    transcripts = {}
    for utterance in utterances:
        with usable(utterance.id, on_bad):
            speakers.setdefault(utterance.speaker, []).append(_recording(utterance))
            if utterance.text:
                transcripts[utterance.id] = utterance.words
    return SpeakerCorpus({name: theirs for name, theirs in sorted(speakers.items()) if theirs}, transcripts)


def _recording(utterance: Utterance) -> Recording:
    info = probe(utterance.audio)
    part = Span(utterance.start, utterance.start + utterance.seconds)
    is_whole = utterance.start == 0 and abs(info.seconds - utterance.seconds) < TOLERANCE_SECONDS
    title = shown(utterance.audio) if is_whole and utterance.channel is None else utterance.id
    return Recording(utterance.id, utterance.audio, info, title, None if is_whole else part, utterance.channel)


def _by_folder(folder: Path, named: Sequence[Recording], on_bad: OnBad) -> dict[str, list[Recording]]:
    places = {recording.name: recording.path.relative_to(folder).parts for recording in named}
    if all(len(place) == 1 for place in places.values()):
        return {"": list(named)}
    speakers: dict[str, list[Recording]] = {}
    for recording in named:
        with usable(recording.title, on_bad):
            first, *below = places[recording.name]
            if not below:
                raise CorpusError(
                    f"{recording.title}: is in no speaker's folder; move it into one, or name its speaker in "
                    f"{shown(folder / UTT2SPK)}"
                )
            speakers.setdefault(normalise_name(first), []).append(recording)
    return speakers


def _by_table(path: Path, named: Sequence[Recording], on_bad: OnBad) -> dict[str, list[Recording]]:
    table: dict[str, str] = {}
    for number, line in read_lines(path):
        fields = line.split()
        if len(fields) != 2:
            raise CorpusError(f"{path}:{number}: expected a recording's name and its speaker, found {line.strip()!r}")
        name = recording_name(fields[0])
        if table.setdefault(name, normalise_name(fields[1])) != normalise_name(fields[1]):
            raise CorpusError(f"{path}:{number}: {name!r} already has another speaker; delete one of the two lines")
    speakers: dict[str, list[Recording]] = {}
    for recording in named:
        with usable(recording.title, on_bad):
            if recording.name not in table:
                raise CorpusError(f"{recording.title}: {path} has no speaker for {recording.name!r}; add a line")
            speakers.setdefault(table[recording.name], []).append(recording)
    _warn_of_names(path, table.keys() - {recording.name for recording in named}, "are of no recording here")
    return speakers


def _by_turns(paths: Sequence[Path], named: Sequence[Recording], on_bad: OnBad) -> dict[str, list[Recording]]:
    by_name = {recording.name: recording for recording in named}
    speakers: dict[str, list[Recording]] = {}
    strangers, counts = set(), dict.fromkeys(by_name, 0)
    for path in paths:
        for name, speaker, turn in _turns(path):
            if name not in by_name:
                strangers.add(name)
                continue
            counts[name] += 1
            recording = by_name[name]
            title = f"{recording.title}, {turn.start:.2f} to {turn.end:.2f} s"
            with usable(title, on_bad):
                end = min(turn.end, recording.info.seconds) if turn.end < recording.info.seconds + 0.1 else turn.end
                if end > recording.info.seconds:
                    raise AudioError(f"{title}: the recording ends at {recording.info.seconds:.2f} s; correct {path}")
                if end - turn.start < FRAME_LENGTH_SECONDS:
                    raise AudioError(f"{title}: shorter than one window of features; delete the turn")
                part = replace(recording, name=f"{name}-{counts[name]:04d}", source=title, part=Span(turn.start, end))
                speakers.setdefault(speaker, []).append(part)
    _warn_of_names(paths[0], strangers, "are of no recording here")
    _warn_of_names(paths[0], [name for name, count in counts.items() if not count], "have no turn, and are left out")
    if not speakers:
        raise CorpusError(
            f"{paths[0]}: no turn of a recording in this folder; expected lines 'SPEAKER <recording> ...'"
        )
    return speakers


def _turns(path: Path) -> Iterator[tuple[str, str, Span]]:
    """The recording, the speaker and the time of each turn of an RTTM."""
    for number, line in read_lines(path):
        fields = line.split()
        if fields[0] != RTTM_TURN:
            continue
        try:
            start, seconds = float(fields[3]), float(fields[4])
            name, speaker = recording_name(fields[1]), normalise_name(fields[7])
        except (IndexError, ValueError) as error:
            raise CorpusError(
                f"{path}:{number}: expected 'SPEAKER RECORDING CHANNEL START SECONDS <NA> <NA> NAME <NA> <NA>'"
            ) from error
        if not (math.isfinite(start + seconds) and start >= 0 and seconds > 0):
            raise CorpusError(f"{path}:{number}: expected a start of 0 or more and a length above 0")
        yield name, speaker, Span(start, start + seconds)


def _warn_of_names(path: Path, names: Collection[str], problem: str) -> None:
    if names:
        logger.warning("%s: %d names %s, such as %s", path, len(names), problem, min(names))


def _transcripts(folder: Path, named: Sequence[Recording], own_tags: Collection[str]) -> dict[str, tuple[str, ...]]:
    """The words of recordings, by their names."""
    transcripts: dict[str, tuple[str, ...]] = {}
    tables = [folder / TEXT] if (folder / TEXT).is_file() else sorted(folder.rglob(LIBRISPEECH))
    for table in tables:
        transcripts |= read_transcripts(table, own_tags)
    for recording in named:
        texts = (recording.path.with_suffix(ending) for ending in TEXT_ENDINGS)
        text = next((path for path in texts if path.is_file()), None)
        if recording.name not in transcripts and text is not None:
            transcripts[recording.name] = read_text(text, own_tags)
    return transcripts


def transcripts_of(transcripts: Mapping[str, Sequence[str]], named: Sequence[Recording]) -> dict[str, Sequence[str]]:
    """The transcripts of some recordings."""
    return {each.name: transcripts[each.name] for each in named if each.name in transcripts}
