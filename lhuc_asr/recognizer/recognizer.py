"""A recognizer that adapts to a new speaker: the two-pass loop over recordings that a user names.

All recordings of one call are one person's. Their features are normalised together, as an experiment normalises those
of a test speaker: on AN4, utterances that are normalised one by one have 44 % more errors. A speaker's file keeps the
mean and deviation of the features that its parameters were estimated on. With the file, the transcript of a recording
does not depend on the other recordings of the call.

A recognizer does not change after loading. Threads may adapt and transcribe at the same time, each with its own
speaker; the results are the same as one after the other.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from lhuc_asr.audio.voice_activity import VoiceActivity
from lhuc_asr.base.device import checked_device
from lhuc_asr.base.runlog import progress
from lhuc_asr.decode.lattice_search import LatticeSummary
from lhuc_asr.decode.pool import SearchPool
from lhuc_asr.lhuc.speaker import check_speaker_name
from lhuc_asr.recognizer.adapting import Adaptation, adaptations
from lhuc_asr.recognizer.aligning import aligned
from lhuc_asr.recognizer.arrays import Audio, opened
from lhuc_asr.recognizer.crowd import HELD, Crowd, check_amplitudes_alone
from lhuc_asr.recognizer.decoding import decoding_by, decoding_of, live_decoding
from lhuc_asr.recognizer.installed import model_folder
from lhuc_asr.recognizer.learning import Learning
from lhuc_asr.recognizer.live import PIECE, Live
from lhuc_asr.recognizer.loaded_model import LoadedModel
from lhuc_asr.recognizer.model_folder import ModelDescription, ModelFiles, read_model
from lhuc_asr.recognizer.piece_words import PieceWords
from lhuc_asr.recognizer.recordings import OnBad, usable
from lhuc_asr.recognizer.speaker import Speaker, check_file_of, load_speaker
from lhuc_asr.recognizer.speaker_corpus import SpeakerCorpus, speaker_corpus
from lhuc_asr.recognizer.speaker_files import speaker_file
from lhuc_asr.recognizer.speech import CutRecording, cut_all
from lhuc_asr.recognizer.transcript import Transcript, Word

logger = logging.getLogger(__name__)


def load(folder: str | Path, device: str = "cpu") -> Recognizer:
    """Load a recognizer.

    Args:
        folder: A folder that ``lhuc-asr export`` made; a finished experiment's, such as ``exp/an4``, or that of one
            fold of a cross-validation, such as ``exp/an4_folds5/fold1``; or the name of a model that is installed.
        device: Device of the network: cpu, cuda, cuda:1. The search stays on the processor.

    Raises:
        ConfigError: The device is not there.
        ExperimentError: The folder is not a model's, the experiment is not finished, or a file is missing or damaged.
    """
    chosen = checked_device(device, "--device ")
    return Recognizer(*read_model(model_folder(folder)), chosen)


class Recognizer:
    """A trained network, its graph, and a way of adapting to a speaker; searches run in this process.

    Args:
        description: Description of the model.
        files: Paths of the model's files.
        device: Device of the network.

    Attributes:
        description: Description of the model.
    """

    def __init__(self, description: ModelDescription, files: ModelFiles, device: torch.device | None = None) -> None:
        self.description = description
        self._model = LoadedModel.read(description, files, device or torch.device("cpu"))

    def check_output(self, path: Path, speaker: str, *, overwrite: bool = False) -> None:
        """Refuse a file for a speaker that cannot be written, or that holds something else than the speaker.

        Args:
            path: The file to write.
            speaker: Name of the speaker.
            overwrite: Whether it may hold anything.

        Raises:
            OutputError: The file cannot be used.
        """
        check_file_of(path, speaker, self._model.network, self._model.speakers_hold, overwrite=overwrite)

    @property
    def vocabulary(self) -> frozenset[str]:
        """The words that transcripts can have."""
        return frozenset(self._model.lexicon.pronunciations)

    @property
    def phones(self) -> frozenset[str]:
        """The phones that alignments can have."""
        return frozenset(self._model.lexicon.phones.names)

    @property
    def own_tags(self) -> frozenset[str]:
        """Tags in transcripts that the model's lexicon lists, for ``read_transcripts``."""
        return self._model.own_tags

    def adapt(
        self,
        audio: Audio,
        speaker: str = "speaker",
        transcripts: Mapping[str, Sequence[str]] | None = None,
        *,
        channel: int | None = None,
        vad: bool = False,
        judged: bool = False,
        on_bad: OnBad = None,
    ) -> Speaker:
        """Adapt to one person's recordings, with the words of a first pass or with known transcripts.

        Args:
            audio: Files, folders, patterns, ``-`` for standard input (see ``recordings``), or opened recordings; or
                samples with their rate, (N,) or (N, C), a recording named ``array``, several ``array-1``, ``array-2``.
            speaker: Name of the person.
            transcripts: Words of each recording, by its name (``read_transcripts``), in any case; None for a first
                pass. A recording with a transcript may be up to a minute long.
            channel: Number of the recordings' channel to take, from 1; None for the mean of all, or for the loudest
                channel where the channels cancel.
            vad: Whether recordings that are longer than the model's utterances are cut at the pauses that a detector of
                voice activity finds (extra ``vad``), and not at those of their levels.
            judged: Whether a person whom adaptation hurts is kept unadapted (``verdict.py``), as the command does; it
                takes as long again. ``adapt_corpus`` tells what the verdict is.
            on_bad: Called with the problem of each recording that cannot be used, which is then left out; None raises
                the first problem.

        Returns:
            The person, to be given to ``transcribe`` or saved to a file (``save``).

        Raises:
            SpeakerError: The name cannot be the name of a file.
            AudioError: A recording cannot be used, or none contains speech.
            CorpusError: There is no recording, one has no transcript, or a transcript has an unknown tag.
            MissingExtraError: ``vad`` is chosen, and silero-vad is not installed.
        """
        with opened(audio, on_bad) as named:
            spelled = None if transcripts is None else self._model.spelled(transcripts)
            model = self._model
            speakers, detector = {speaker: named}, VoiceActivity() if vad else None
            (adaptation,) = adaptations(
                model, speakers, spelled, channel, detector, on_bad, None, model.pool, judged=judged
            )
        return adaptation.speaker

    def adapt_corpus(
        self,
        corpus: str | Path | SpeakerCorpus,
        transcripts: Mapping[str, Sequence[str]] | None = None,
        *,
        channel: int | None = None,
        vad: bool = False,
        judged: bool = False,
        processes: int = 0,
        on_bad: OnBad = None,
        on_bad_speaker: OnBad = None,
    ) -> Iterator[Adaptation]:
        """Adapt to all speakers of a corpus, several at a time.

        A Kaldi data directory is read by ``corpus.kaldi_dir`` and made a corpus by ``speaker_corpus.corpus_of``:
        ``recognizer.adapt_corpus(corpus_of(read_kaldi_dir(Path("data/test"), recognizer.own_tags).utterances))``.

        Args:
            corpus: A folder of recordings (``speaker_corpus``), or a corpus that is opened.
            transcripts: As for ``adapt``; those that lie in the corpus are not used.
            channel, vad, judged: As for ``adapt``.
            processes: Number of processes that search; 0 searches in this one.
            on_bad: As for ``adapt``.
            on_bad_speaker: The same for speakers of whom no recording can be used.

        Yields:
            The speakers, ordered by name, each with a summary.

        Raises:
            SpeakerError: A name cannot be the name of a file.
            AudioError: A recording cannot be used.
            CorpusError: The folder has no recordings or no speakers, or a transcript does not fit.
        """
        model, spelled = self._model, None if transcripts is None else self._model.spelled(transcripts)
        with ExitStack() as stack:
            if not isinstance(corpus, SpeakerCorpus):
                corpus = stack.enter_context(speaker_corpus(Path(corpus), self.own_tags, on_bad))
            pool = stack.enter_context(SearchPool(model.files.lang, processes)) if processes else model.pool
            speakers, detector = corpus.named_speakers(), VoiceActivity() if vad else None
            yield from adaptations(
                model, speakers, spelled, channel, detector, on_bad, on_bad_speaker, pool, judged=judged
            )

    def load_speaker(self, path: str | Path) -> Speaker:
        """Read a person's file.

        Args:
            path: The file, or the person's name (``speaker_files.speaker_file``).

        Raises:
            CheckpointError: The file is missing or damaged.
            ModelMismatchError: The file belongs to another network.
            SpeakerError: No speaker's file has that name.
        """
        return load_speaker(speaker_file(path), self._model.network, self.description)

    def transcribe(
        self,
        audio: Audio,
        speaker: Speaker | str | Path | None = None,
        *,
        channel: int | None = None,
        vad: bool = False,
    ) -> list[Transcript]:
        """Transcribe one person's recordings.

        Args:
            audio: As for ``adapt``.
            speaker: The person, from ``adapt``, or the person's file or name; None for an unknown person.
            channel: Number of the recordings' channel to take, from 1; None for the mean of all, or for the loudest
                channel where the channels cancel.
            vad: As for ``adapt``.

        Returns:
            One transcript for each recording, ordered by name.

        Raises:
            AudioError: A recording cannot be used; ``transcripts`` can go on with the others.
            CheckpointError: The speaker's file is damaged.
            ModelMismatchError: The speaker belongs to another model.
        """
        return list(self.transcripts(audio, speaker, channel=channel, vad=vad))

    def transcripts(
        self,
        audio: Audio,
        speaker: Speaker | str | Path | None = None,
        *,
        channel: int | None = None,
        vad: bool = False,
        done: Collection[str] = (),
        lattices: bool = False,
        on_bad: OnBad = None,
    ) -> Iterator[Transcript]:
        """Transcribe one person's recordings, one after the other: each is given as soon as it is finished.

        Args:
            audio: Files, folders, patterns, ``-`` for standard input (see ``recordings``), or opened recordings; or
                samples with their rate, (N,) or (N, C), a recording named ``array``, several ``array-1``, ``array-2``.
            speaker: The person, from ``adapt``, or the person's file or name; None for an unknown person.
            channel: Number of the recordings' channel to take, from 1; None for the mean of all, or for the loudest
                channel where the channels cancel.
            vad: As for ``adapt``.
            done: Names of recordings that need no transcript. Without a speaker they are read nevertheless: the
                features of all recordings are normalised together, and have one transform by fMLLR and one vector.
            lattices: Whether the transcripts have the word lattices of the recordings' pieces.
            on_bad: Called with the problem of each recording that cannot be used, which is then left out; None raises
                the first problem.

        Yields:
            The transcripts, ordered by the recordings' names.

        Raises:
            AudioError: A recording cannot be used.
            CheckpointError: The speaker's file is damaged.
            ModelMismatchError: The speaker belongs to another model.
        """
        options, person, detector = self.description, self._model.person(speaker), VoiceActivity() if vad else None
        name, decoding = "" if person is None else person.name, decoding_by(self._model, person)
        with opened(audio, on_bad) as named:
            left = [recording for recording in named if recording.name not in done]
            if not left:
                return
            read = named if decoding is None else left
            parts: Iterable[CutRecording]
            parts = cut_all(read, options, name, channel=channel, detector=detector, on_bad=on_bad)
            if decoding is None:
                decoding, kept = decoding_of(self._model, person, list(parts), on_bad=on_bad)
                parts = [each for each in kept if each.recording.name not in done]
            searched = PieceWords(self._model)
            watched = progress(parts, "recordings", len(left)) if len(left) > 1 else parts
            for each in watched:
                transcript = None
                with usable(each.recording.title, on_bad, each.recording.path):
                    words, made = searched.of(each, decoding, watched=len(left) == 1, lattices=lattices)
                    transcript = replace(each.transcript(words, name), lattices=tuple(made))
                if transcript is not None:
                    yield transcript

    def crowd(self, archive: str | Path | None = None, held: int = HELD) -> Crowd:
        """A transcriber of recordings of many persons at once.

        Args:
            archive: An archive of speakers (``speaker_files.pack``), or a folder of archives
                (``adapting_together``); None for unknown persons alone.
            held: Maximum number of speakers in memory.

        Raises:
            CheckpointError: The archive is missing or damaged.
            ModelMismatchError: It belongs to another model, or the model needs more of a speaker than amplitudes.
        """
        return Crowd(self._model, None if archive is None else Path(archive), held)

    def check_archive(self, path: str | Path) -> None:
        """Refuse a model whose speakers do not fit into an archive.

        Args:
            path: The archive, or the folder of archives, for the message.

        Raises:
            ModelMismatchError: The model needs more of a speaker than amplitudes.
        """
        check_amplitudes_alone(self._model, Path(path))

    def listen(
        self, speaker: Speaker | str | Path | None = None, *, learn: bool = False, name: str = "speaker"
    ) -> Live:
        """Listen to one person's speech as it comes: samples in, words out while the person speaks.

        Args:
            speaker: The person, from ``adapt``, or the person's file or name; None for an unknown person, whose speech
                is decoded without adaptation, or with what is learned.
            learn: Whether each piece that ends with a pause is learned from; ``Live.speaker`` is the person as learned
                so far.
            name: Name of a person who is learned from, and not known yet.

        Raises:
            CheckpointError: The speaker's file is damaged.
            ModelMismatchError: The speaker belongs to another model.
            SpeakerError: The name cannot be the name of a file.
            ConfigError: The model is to learn, but its parameters do not go on from piece to piece.
        """
        person, learning = self._model.person(speaker), None
        if learn:
            check_speaker_name(name)
            learning = Learning(self._model, name if person is None else person.name, person)
        decoding, known = live_decoding(self._model, person, learning)
        searched = PieceWords(self._model)

        def final_words(scores: np.ndarray, start: float) -> tuple[LatticeSummary, list[Word]]:
            ((summary, matrix),) = searched.lattices([(PIECE, scores)], decoding.plan.search)
            return summary, searched.placed(summary.hypothesis, matrix, start)

        return Live(self._model, decoding, known, final_words, learning)

    def align(
        self,
        audio: Audio,
        transcripts: Mapping[str, Sequence[str]],
        speaker: Speaker | str | Path | None = None,
        *,
        channel: int | None = None,
        on_bad: OnBad = None,
    ) -> Iterator[Transcript]:
        """Align known words with one person's recordings, one after the other.

        Args:
            audio: Files, folders, patterns, ``-`` for standard input (see ``recordings``), or opened recordings; or
                samples with their rate, (N,) or (N, C), a recording named ``array``, several ``array-1``, ``array-2``.
            transcripts: Words of each recording, by its name, in any case. A recording may be up to a minute long.
            speaker: The person, from ``adapt``, or the person's file or name; None for an unknown person.
            channel: Number of the recordings' channel to take, from 1; None for the mean of all, or for the loudest
                channel where the channels cancel.
            on_bad: Called with the problem of each recording that cannot be used, which is then left out; None raises
                the first problem.

        Yields:
            The words and the phones of each recording with times, ordered by the recordings' names.

        Raises:
            AudioError: A recording cannot be used.
            CorpusError: A recording has no transcript, or one that does not fit it.
            CheckpointError: The speaker's file is damaged.
            ModelMismatchError: The speaker belongs to another model.
        """
        person = self._model.person(speaker)
        with opened(audio, on_bad) as named:
            yield from aligned(self._model, named, transcripts, person, channel, on_bad)
