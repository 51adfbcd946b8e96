"""A recognizer that adapts to a new speaker: the two-pass loop over recordings that a user names.

The recordings of one call are taken for one person's: their features are normalised together, as an experiment
normalises all of a test speaker's. A speaker's file keeps the mean and deviation of the features beside the parameters,
which were estimated on features normalised so; with it, what is found in a recording does not depend on which others
are transcribed with it. On AN4, utterances normalised one by one have 44 % more errors.

Nothing here changes after it is loaded: threads may transcribe with different speakers at the same time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from lhuc_asr.adapt.adaptation_sets import AdaptationSet, DataConfig, adaptation_sets
from lhuc_asr.adapt.targets import FirstPass
from lhuc_asr.adapt.two_pass import Scores, TwoPass
from lhuc_asr.base.errors import AudioError, CorpusError
from lhuc_asr.base.runlog import progress
from lhuc_asr.base.units import seconds_of
from lhuc_asr.decode.hypothesis import Hypothesis
from lhuc_asr.decode.lattice_search import LatticeSummary
from lhuc_asr.decode.pool import SearchPool
from lhuc_asr.decode.search import SearchConfig
from lhuc_asr.hmm import topology
from lhuc_asr.lang.lexicon_folder import read_lexicon_folder
from lhuc_asr.lhuc.speaker import check_speaker_name
from lhuc_asr.nnet.checkpoint import load_model
from lhuc_asr.nnet.scoring import SCORING_FRAMES
from lhuc_asr.recognizer.first_pass import KnownTranscripts, SearchedFirstPass
from lhuc_asr.recognizer.known_words import place
from lhuc_asr.recognizer.model_folder import ModelDescription, ModelFiles, read_model
from lhuc_asr.recognizer.recordings import Recording, recordings
from lhuc_asr.recognizer.speaker import Speaker, load_speaker
from lhuc_asr.recognizer.speech import Speech, read_speech
from lhuc_asr.recognizer.transcript import Transcript, Word

logger = logging.getLogger(__name__)

Audio = str | Path | Sequence[str | Path]

# A recording with a transcript is aligned whole, for which memory grows with frames times words.
LONGEST_TRANSCRIBED_SECONDS = 60.0


def load(folder: str | Path) -> Recognizer:
    """The recognizer of a model's folder: an exported one, or a finished experiment's.

    Raises:
        ExperimentError: It is not a model's folder, or a file is missing or damaged.
    """
    return Recognizer(*read_model(Path(folder)))


class Recognizer:
    """A trained network, its graph, and a way of adapting to a speaker; it searches in this process.

    Args:
        description: Description of the model.
        files: Places of its files.

    Attributes:
        description: Description of the model.
    """

    def __init__(self, description: ModelDescription, files: ModelFiles) -> None:
        self.description = description
        self._files = files
        self._network = load_model(files.network).requires_grad_(False)
        self._topology = topology.load(files.topology)
        self._lexicon = read_lexicon_folder(files.lang)
        self._pool = SearchPool(files.lang, processes=0)

    def adapt(
        self,
        audio: Audio,
        speaker: str = "speaker",
        transcripts: Mapping[str, Sequence[str]] | None = None,
    ) -> Speaker:
        """Adapt to one person's recordings, on what the first pass finds in them or on what is known to be said.

        Args:
            audio: Files, folders, patterns, ``-``; see ``recordings``.
            speaker: The person's name.
            transcripts: The words of each recording, by its name (``read_transcripts``); for recordings of up to a
                minute.

        Returns:
            The person: ``transcribe`` takes it, ``save`` writes it to a file.

        Raises:
            SpeakerError: The name cannot be a file's.
            AudioError: A recording cannot be used, or nothing is said in any.
            CorpusError: There is no recording, or one has no transcript.
        """
        check_speaker_name(speaker)
        options = self.description
        with recordings(_listed(audio)) as named:
            if transcripts is not None:
                _check_transcripts(named, transcripts)
            speech = read_speech(named, options, speaker, whole=transcripts is not None)
            if speech is None:
                raise AudioError(
                    f"speaker {speaker!r}: nothing is said in the recordings; there is nothing to adapt to"
                )
            loop, targets = self._loop(speech), options.targets
            first_pass: FirstPass = SearchedFirstPass(loop, self._pool, options.first_search, options.lattice)
            if transcripts is not None:
                first_pass = KnownTranscripts(loop, speech.recording_of, transcripts, self._lexicon, self._topology)
                targets = targets.model_copy(update={"kind": "reference"})
            method = options.method.make(self._files.prepared)
            adapted = loop.adapt(method, first_pass, targets, self._sets(speech), options.seed)
        return Speaker(speaker, adapted, speech.cmvn)

    def load_speaker(self, path: str | Path) -> Speaker:
        """Read a person's file onto this recognizer's network.

        Raises:
            CheckpointError: The file is missing or damaged.
            ModelMismatchError: The person was adapted to with another network.
        """
        return load_speaker(self._network, Path(path), self.description.features.dimension)

    def transcribe(self, audio: Audio, speaker: Speaker | str | Path | None = None) -> list[Transcript]:
        """What is said in one person's recordings.

        Args:
            audio: Files, folders, patterns, ``-``; see ``recordings``.
            speaker: The person, as adapted to, or the file; None without adaptation.

        Returns:
            One for each recording, ordered by name.

        Raises:
            AudioError: A recording cannot be used.
            CheckpointError: The speaker's file is damaged.
            ModelMismatchError: The speaker belongs to another model.
        """
        options = self.description
        person = self.load_speaker(speaker) if isinstance(speaker, str | Path) else speaker
        with recordings(_listed(audio)) as named:
            speech = read_speech(named, options, *(("", None) if person is None else (person.name, person.cmvn)))
        words: dict[str, list[Word]] = {recording.name: [] for recording in named}
        if speech is not None:
            loop, starts = self._loop(speech), {piece.id: piece.start for piece in speech.pieces}
            if person is None:
                search, scores = options.first_search, loop.first_pass()
            else:
                search, scores = options.adapted_search, loop.second_pass(person.adapted, self._sets(speech))
            for summary, matrix in progress(self._lattices(scores, search), "search", len(speech.pieces)):
                best = summary.hypothesis
                words[speech.recording_of[best.utterance]] += self._placed(best, matrix, starts[best.utterance])
        return [Transcript(each.name, each.path, each.info.seconds, tuple(words[each.name])) for each in named]

    def _loop(self, speech: Speech) -> TwoPass:
        pieces = {piece.id: piece for piece in speech.pieces}
        alignment_model = self._files.alignment_model(self.description, self._topology.pdf_count)
        return TwoPass(self._network, speech.features, self._topology.silence_pdfs, pieces, alignment_model)

    def _sets(self, speech: Speech) -> list[AdaptationSet]:
        """One set: all pieces, in an order that the seed says, for all of them."""
        return adaptation_sets(
            speech.features, {piece.id: "" for piece in speech.pieces}, DataConfig(), self.description.seed
        )

    def _lattices(self, scores: Iterable[Scores], search: SearchConfig) -> Iterator[tuple[LatticeSummary, np.ndarray]]:
        """The lattice of each piece, and the piece's scores (T, K); some pieces at a time are in memory."""
        for block in _blocks(scores):
            summaries = self._pool.lattices_all(block, search, self.description.lattice)
            for summary, (_, matrix) in zip(summaries, block, strict=True):
                yield summary, matrix

    def _placed(self, hypothesis: Hypothesis, scores: np.ndarray, start: float) -> list[Word]:
        """The words of a piece that begins ``start`` seconds into its recording, each with its time."""
        if not hypothesis.words:
            return []
        placed = place(hypothesis.words, scores, self._lexicon, self._topology)
        if placed is None:  # a path that stops short may have a word that the frames are too few for
            borders = [*hypothesis.word_frames, len(scores)]
            spans = tuple(pairwise(borders))
        else:
            spans = placed.spans
        return [
            Word(word, start + seconds_of(first), start + seconds_of(end), confidence)
            for word, (first, end), confidence in zip(hypothesis.words, spans, hypothesis.confidences, strict=True)
        ]


def _blocks(scores: Iterable[Scores]) -> Iterator[list[Scores]]:
    block: list[Scores] = []
    for utterance, matrix in scores:
        block.append((utterance, matrix))
        if sum(len(each) for _, each in block) >= SCORING_FRAMES:
            yield block
            block = []
    if block:
        yield block


def _check_transcripts(named: Sequence[Recording], transcripts: Mapping[str, Sequence[str]]) -> None:
    for recording in named:
        if recording.name not in transcripts:
            raise CorpusError(f"{recording.path}: no transcript for {recording.name!r}; add a line, or leave it out")
        if recording.info.seconds > LONGEST_TRANSCRIBED_SECONDS:
            raise AudioError(
                f"{recording.path}: {recording.info.seconds:.0f} s are too long for a transcript, expected at most "
                f"{LONGEST_TRANSCRIBED_SECONDS:.0f} s; cut recording and transcript, or adapt without transcripts"
            )


def _listed(audio: Audio) -> list[str | Path]:
    return [audio] if isinstance(audio, str | Path) else list(audio)
