"""Recordings of many persons at once, each decoded with the amplitudes of its speaker, who come from an archive.

The frames of all recordings go through the network together; each has the scales of its own speaker. At most
``held`` speakers are in memory, those that were needed last.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from lhuc_asr.adapt.amplitudes import Amplitudes
from lhuc_asr.adapt.two_pass import Scores
from lhuc_asr.audio.formats import probe
from lhuc_asr.base.errors import AudioError, LhucError, ModelMismatchError, SpeakerError
from lhuc_asr.base.outputs import nameless_file
from lhuc_asr.features.cmvn import Cmvn
from lhuc_asr.lhuc.amplitude import amplitude
from lhuc_asr.lhuc.archive import SpeakerArchive
from lhuc_asr.lhuc.bank import SpeakerBank
from lhuc_asr.nnet.scoring import score_mixed
from lhuc_asr.recognizer.archive_folder import ArchiveFolder
from lhuc_asr.recognizer.decoding import UNKNOWN, Decoding, decoding_of
from lhuc_asr.recognizer.loaded_model import LoadedModel
from lhuc_asr.recognizer.piece_words import PieceWords
from lhuc_asr.recognizer.recordings import Recording, usable
from lhuc_asr.recognizer.speaker import statistics_of
from lhuc_asr.recognizer.speech import CutRecording, Speech, cut_at_pauses
from lhuc_asr.recognizer.transcript import Transcript, Word

# Speakers in memory: 2,560 amplitudes of 256 speakers are 2.6 MB.
HELD = 256

ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Request:
    """A recording to transcribe.

    Attributes:
        name: Name of the recording.
        speaker: Who speaks, one of the archive's; None for an unknown person.
        audio: Content of an audio file.
    """

    name: str
    speaker: str | None
    audio: bytes


@dataclass(frozen=True)
class _Person:
    """A speaker of the archive: scales at each site, shapes (1, H), and the statistics of the features."""

    scales: Sequence[torch.Tensor]
    cmvn: Cmvn


@dataclass(frozen=True)
class _Heard:
    """A recording of speech that is ready for the network.

    Attributes:
        cut: The recording, cut at pauses.
        decoding: What it is decoded with.
        speech: Features of its pieces.
        person: Who speaks; None for an unknown person.
    """

    cut: CutRecording
    decoding: Decoding
    speech: Speech
    person: _Person | None


class Crowd:
    """Transcribes recordings of many persons; one thread at a time may call it.

    Args:
        model: The model.
        path: The archive of its speakers, or a folder of archives; None for unknown persons alone.
        held: Maximum number of speakers in memory, beside those of one call.

    Raises:
        CheckpointError: The archive is missing or damaged.
        ModelMismatchError: It belongs to another model, or the model needs more of a speaker than amplitudes.
    """

    def __init__(self, model: LoadedModel, path: Path | None, held: int = HELD) -> None:
        self._model, self._held = model, held
        self._words = PieceWords(model)
        self._persons: OrderedDict[str, _Person] = OrderedDict()
        self._archive: SpeakerArchive | ArchiveFolder | None = None
        if path is not None:
            check_amplitudes_alone(model, path)
            rows = ArchiveFolder(path).first if path.is_dir() else SpeakerArchive(path)
            self._xi = amplitude(rows.amplitude)
            opened = SpeakerBank(model.network, rows.sites, [], self._xi).open_archive
            self._archive = ArchiveFolder(path, opened) if path.is_dir() else opened(path)
            first = self._archive.first if isinstance(self._archive, ArchiveFolder) else self._archive
            self._network = model.network.scaled([site.name for site in first.sites])

    def transcripts(
        self, requests: Sequence[Request], longest_seconds: float | None = None
    ) -> list[Transcript | LhucError]:
        """The transcript of each recording, or why it has none.

        Args:
            requests: The recordings.
            longest_seconds: Longer recordings are refused; None for no limit.
        """
        answers: list[Transcript | LhucError] = []
        with ExitStack() as stack:
            heard = [_tried(partial(self._heard, stack, each, longest_seconds)) for each in requests]
            known = [each for each in heard if isinstance(each, _Heard) and each.person is not None]
            mixed = iter(self._mixed(known))
            for each in heard:
                if isinstance(each, _Heard):
                    scores = each.decoding.scores(self._model, each.speech) if each.person is None else next(mixed)
                    answers.append(_tried(partial(self._searched, each, scores)))
                else:
                    answers.append(each)
        while len(self._persons) > self._held:
            self._persons.popitem(last=False)
        return answers

    def _heard(self, stack: ExitStack, request: Request, longest_seconds: float | None) -> _Heard | Transcript:
        """A recording with features that are normalised for its speaker; its transcript if it is silent."""
        path = stack.enter_context(nameless_file())
        path.write_bytes(request.audio)
        with usable(request.name, None, path):
            return self._read(
                Recording(request.name, path, probe(path), request.name), request.speaker, longest_seconds
            )

    def _read(self, recording: Recording, speaker: str | None, longest_seconds: float | None) -> _Heard | Transcript:
        if longest_seconds is not None and recording.seconds > longest_seconds:
            raise AudioError(
                f"{recording.name}: {recording.seconds:.1f} s; more than {longest_seconds:g} s are refused, cut it"
            )
        person = None if speaker is None else self._person(speaker)
        name = speaker or UNKNOWN
        cut = cut_at_pauses(recording, self._model.description, name)
        decoding = None
        if person is not None:
            decoding = Decoding(self._model.description.with_speaker, person.cmvn, name)
        elif cut.pieces:
            decoding, _ = decoding_of(self._model, None, [cut])
        if decoding is None or not cut.pieces:
            return cut.transcript([], name)
        return _Heard(cut, decoding, decoding.read(cut), person)

    def _person(self, name: str) -> _Person:
        """A speaker, read from the archive if they are not in memory."""
        if self._archive is None:
            raise SpeakerError(f"speaker {name!r}: no archive of speakers was given; give one: --speakers ARCHIVE")
        if name not in self._persons:
            if name not in self._archive:
                raise SpeakerError(f"speaker {name!r} is not among the {len(self._archive)} of the archive")
            state = self._archive.state(name)
            source = f"{self._archive.path}: speaker {name!r}"
            cmvn = statistics_of(source, state.extras, self._model.description.features.dimension)
            if cmvn is None:
                raise SpeakerError(f"{source}: has no statistics of the features; pack the files that adapt writes")
            self._persons[name] = _Person([self._xi(state.r[site.name])[None] for site in state.sites], cmvn)
        self._persons.move_to_end(name)
        return self._persons[name]

    def _mixed(self, heard: Sequence[_Heard]) -> Iterator[list[Scores]]:
        """The scores of the pieces of each recording; all pieces go through the network together."""
        if not heard:
            return
        scales, features = [], []
        for each in heard:
            table = each.speech.features[each.decoding.plan.features]
            features += [table[piece.id] for piece in each.speech.pieces]
            scales += [each.person.scales for _ in each.speech.pieces if each.person is not None]
        scored = iter(score_mixed(self._model.network, self._network, scales, features))
        for each in heard:
            yield [(piece.id, next(scored)) for piece in each.speech.pieces]

    def _searched(self, heard: _Heard, scores: Iterable[Scores]) -> Transcript:
        pieces = {piece.id: piece for piece in heard.speech.pieces}
        words: list[Word] = []
        for summary, matrix in self._words.lattices(scores, heard.decoding.plan.search):
            best = summary.hypothesis
            words += self._words.placed(best, matrix, pieces[best.utterance].start)
        return heard.cut.transcript(words, heard.decoding.speaker)


def _tried(work: Callable[[], ResultT]) -> ResultT | LhucError:
    """What some work returns, or its error."""
    try:
        return work()
    except LhucError as error:
        return error


def check_amplitudes_alone(model: LoadedModel, path: Path) -> None:
    """Refuse a model whose speakers have transforms or vectors, which the archive at ``path`` does not have.

    Raises:
        ModelMismatchError: They have.
    """
    method = model.description.with_speaker.method
    if (
        method is None
        or method.on is not None
        or method.speakers is not Amplitudes
        or model.network.vectors is not None
    ):
        raise ModelMismatchError(
            f"{path}: an archive has amplitudes alone, and this model needs {model.speakers_hold or 'nothing'} of a "
            "speaker; transcribe these one by one"
        )
