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
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from lhuc_asr.adapt.adaptation_sets import AdaptationSet, DataConfig, adaptation_sets
from lhuc_asr.adapt.targets import FirstPass, TargetsConfig
from lhuc_asr.adapt.two_pass import Scores, TwoPass
from lhuc_asr.base.errors import AudioError, CorpusError, ExperimentError, ModelMismatchError
from lhuc_asr.base.runlog import progress
from lhuc_asr.base.units import seconds_of
from lhuc_asr.decode.hypothesis import Hypothesis
from lhuc_asr.decode.lattice_search import LatticeSummary
from lhuc_asr.decode.pool import SearchPool
from lhuc_asr.decode.search import SearchConfig
from lhuc_asr.hmm import topology
from lhuc_asr.lang.lexicon import WordTable
from lhuc_asr.lang.lexicon_folder import read_lexicon_folder
from lhuc_asr.lhuc.speaker import check_speaker_name
from lhuc_asr.nnet.checkpoint import load_model
from lhuc_asr.recognizer.first_pass import KnownTranscripts, SearchedFirstPass
from lhuc_asr.recognizer.known_words import place
from lhuc_asr.recognizer.model_folder import ModelDescription, ModelFiles, read_model
from lhuc_asr.recognizer.recordings import Recording, recordings
from lhuc_asr.recognizer.speaker import Speaker, load_speaker
from lhuc_asr.recognizer.speech import Speech, read_speech
from lhuc_asr.recognizer.transcript import Transcript, Word

logger = logging.getLogger(__name__)

Audio = str | Path | Sequence[str | Path]

# A recording with a transcript is aligned whole, which takes memory proportional to frames times words.
LONGEST_TRANSCRIBED_SECONDS = 60.0


def load(folder: str | Path) -> Recognizer:
    """Load a recognizer.

    Args:
        folder: A folder that ``lhuc-asr export`` made; or a finished experiment's, such as ``exp/an4``, or that of one
            fold of a cross-validation, such as ``exp/an4_folds5/fold1``.

    Raises:
        ExperimentError: The folder is not a model's, the experiment is not finished, or a file is missing or damaged.
    """
    return Recognizer(*read_model(Path(folder)))


class Recognizer:
    """A trained network, its graph, and a way of adapting to a speaker; searches run in this process.

    Args:
        description: Description of the model.
        files: Paths of the model's files.

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
        self._check_parts()

    def adapt(
        self,
        audio: Audio,
        speaker: str = "speaker",
        transcripts: Mapping[str, Sequence[str]] | None = None,
    ) -> Speaker:
        """Adapt to one person's recordings, with the words of a first pass or with known transcripts.

        Args:
            audio: Files, folders, patterns, or ``-`` for standard input; see ``recordings``.
            speaker: Name of the person.
            transcripts: Words of each recording, by its name (``read_transcripts``); None for a first pass. A
                recording with a transcript may be up to a minute long.

        Returns:
            The person, to be given to ``transcribe`` or saved to a file (``save``).

        Raises:
            SpeakerError: The name cannot be the name of a file.
            AudioError: A recording cannot be used, or none contains speech.
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
                    f"speaker {speaker!r}: no speech found in the recordings; there is nothing to adapt to"
                )
            loop, targets = self._loop(speech), options.targets
            first_pass: FirstPass = SearchedFirstPass(loop, self._pool, options.first_search, options.lattice)
            if transcripts is not None:
                first_pass = KnownTranscripts(loop, speech.recording_of, transcripts, self._lexicon, self._topology)
                targets = TargetsConfig(kind="reference", silence_weight=targets.silence_weight)
            method = options.method.make(self._files.prepared)
            adapted = loop.adapt(method, first_pass, targets, self._sets(speech), options.seed)
        return Speaker(speaker, options.network, adapted, speech.cmvn)

    def load_speaker(self, path: str | Path) -> Speaker:
        """Read a person's file.

        Raises:
            CheckpointError: The file is missing or damaged.
            ModelMismatchError: The file belongs to another network.
        """
        return load_speaker(Path(path), self._network, self.description)

    def transcribe(self, audio: Audio, speaker: Speaker | str | Path | None = None) -> list[Transcript]:
        """Transcribe one person's recordings.

        Args:
            audio: Files, folders, patterns, or ``-`` for standard input; see ``recordings``.
            speaker: The person, from ``adapt``, or the person's file; None for the unadapted network.

        Returns:
            One transcript for each recording, ordered by name.

        Raises:
            AudioError: A recording cannot be used.
            CheckpointError: The speaker's file is damaged.
            ModelMismatchError: The speaker belongs to another model.
        """
        options = self.description
        person = self.load_speaker(speaker) if isinstance(speaker, str | Path) else speaker
        if person is not None and person.network != options.network:
            raise ModelMismatchError(
                f"speaker {person.name!r} was adapted on the model {person.network[:12]}, this one is "
                f"{options.network[:12]}; adapt to the speaker with this model"
            )
        name, cmvn = ("", None) if person is None else (person.name, person.cmvn)
        with recordings(_listed(audio)) as named:
            speech = read_speech(named, options, name, cmvn)
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

    def _check_parts(self) -> None:
        """Refuse files that are each sound, but of different models.

        Raises:
            ExperimentError: Their numbers of features or pdfs, their phones or their words differ.
        """
        network, states, graph = self._network, self._topology, self._pool.graph
        strange = set(graph.words) - set(WordTable(self._lexicon.words).symbols)
        problem = None
        if network.feature_dimension != self.description.features.dimension:
            problem = f"features of {self.description.features.dimension}, a network of {network.feature_dimension}"
        elif not network.pdf_count == states.pdf_count == graph.pdf_count:
            problem = (
                f"a network of {network.pdf_count} pdfs, states of {states.pdf_count}, a graph of {graph.pdf_count}"
            )
        elif self._lexicon.phones != states.phones or graph.context_width != states.context_width:
            problem = "a lexicon or a graph of other phones than the states'"
        elif strange:
            problem = f"the graph's word {min(strange)!r} is not in the lexicon"
        if problem is not None:
            raise ExperimentError(
                f"{self._files.network}: its files are of different models: {problem}; copy the folder again"
            )

    def _loop(self, speech: Speech) -> TwoPass:
        """The two-pass loop over the pieces of a person's speech."""
        pieces = {piece.id: piece for piece in speech.pieces}
        alignment_model = self._files.alignment_model(self.description, self._topology.pdf_count)
        return TwoPass(self._network, speech.features, self._topology.silence_pdfs, pieces, alignment_model)

    def _sets(self, speech: Speech) -> list[AdaptationSet]:
        """One adaptation set: all pieces, to estimate on in an order chosen by the seed, and to decode."""
        return adaptation_sets(
            speech.features, {piece.id: "" for piece in speech.pieces}, DataConfig(), self.description.seed
        )

    def _lattices(self, scores: Iterable[Scores], search: SearchConfig) -> Iterator[tuple[LatticeSummary, np.ndarray]]:
        """Each piece's lattice and scores (T, K); only the scores of the pieces in work are in memory."""
        in_work: deque[np.ndarray] = deque()

        def kept() -> Iterator[Scores]:
            for utterance, matrix in scores:
                in_work.append(matrix)
                yield utterance, matrix

        for summary in self._pool.lattices_all(kept(), search, self.description.lattice):
            yield summary, in_work.popleft()

    def _placed(self, hypothesis: Hypothesis, scores: np.ndarray, start: float) -> list[Word]:
        """The words of a piece, with times in the recording, where the piece begins at ``start`` seconds."""
        if not hypothesis.words:
            return []
        placed = place(hypothesis.words, scores, self._lexicon, self._topology)
        if placed is None:  # a path that stops within a word has too few frames for it
            borders = [*hypothesis.word_frames, len(scores)]
            spans = tuple(pairwise(borders))
        else:
            spans = placed.spans
        return [
            Word(word, start + seconds_of(first), start + seconds_of(end), confidence)
            for word, (first, end), confidence in zip(hypothesis.words, spans, hypothesis.confidences, strict=True)
        ]


def _check_transcripts(named: Sequence[Recording], transcripts: Mapping[str, Sequence[str]]) -> None:
    """Raise an error unless each recording has a transcript and is short enough for it."""
    for recording in named:
        if recording.name not in transcripts:
            raise CorpusError(f"{recording.path}: no transcript for {recording.name!r}; add a line, or leave it out")
        if recording.info.seconds > LONGEST_TRANSCRIBED_SECONDS:
            raise AudioError(
                f"{recording.path}: {recording.info.seconds:.0f} s are too long for a transcript, expected at most "
                f"{LONGEST_TRANSCRIBED_SECONDS:.0f} s; cut recording and transcript, or adapt without transcripts"
            )


def _listed(audio: Audio) -> list[str | Path]:
    """The recordings as a list, even if only one was given."""
    return [audio] if isinstance(audio, str | Path) else list(audio)
