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
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from lhuc_asr.features.cmvn import Cmvn
from lhuc_asr.hmm import topology
from lhuc_asr.lang.coverage import warn_of_unknown_words
from lhuc_asr.lang.lexicon import WordTable
from lhuc_asr.lang.lexicon_folder import read_lexicon_folder
from lhuc_asr.lang.tags import spoken_words, tags_of
from lhuc_asr.lhuc.speaker import check_speaker_name, model_hash
from lhuc_asr.nnet.checkpoint import load_model
from lhuc_asr.recognizer.first_pass import KnownTranscripts, SearchedFirstPass
from lhuc_asr.recognizer.known_words import place
from lhuc_asr.recognizer.matching import with_transcripts
from lhuc_asr.recognizer.model_folder import ModelDescription, ModelFiles, read_model
from lhuc_asr.recognizer.recordings import OnBad, Recording, recordings, usable
from lhuc_asr.recognizer.speaker import Speaker, load_speaker
from lhuc_asr.recognizer.speaker_files import speaker_file
from lhuc_asr.recognizer.speech import CutRecording, Speech, cut_at_pauses, read_speech, speech_statistics
from lhuc_asr.recognizer.transcript import Transcript, Word, recording_name

logger = logging.getLogger(__name__)

Audio = str | Path | Sequence[str | Path | Recording]


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

    @property
    def own_tags(self) -> frozenset[str]:
        """Tags in transcripts that the model's lexicon lists, for ``read_transcripts``."""
        return tags_of(self._lexicon.words)

    def adapt(
        self,
        audio: Audio,
        speaker: str = "speaker",
        transcripts: Mapping[str, Sequence[str]] | None = None,
        *,
        channel: int | None = None,
        on_bad: OnBad = None,
    ) -> Speaker:
        """Adapt to one person's recordings, with the words of a first pass or with known transcripts.

        Args:
            audio: Files, folders, patterns, or ``-`` for standard input (see ``recordings``); or opened recordings.
            speaker: Name of the person.
            transcripts: Words of each recording, by its name (``read_transcripts``), in any case; None for a first
                pass. A recording with a transcript may be up to a minute long.
            channel: Number of the recordings' channel to take, from 1; None for the mean of all, or for the loudest
                channel where the channels cancel.
            on_bad: Called with the problem of each recording that cannot be used, which is then left out; None raises
                the first problem.

        Returns:
            The person, to be given to ``transcribe`` or saved to a file (``save``).

        Raises:
            SpeakerError: The name cannot be the name of a file.
            AudioError: A recording cannot be used, or none contains speech.
            CorpusError: There is no recording, one has no transcript, or a transcript has an unknown tag.
        """
        check_speaker_name(speaker)
        options, whole = self.description, transcripts is not None
        with _opened(audio, on_bad) as named:
            if transcripts is not None:
                transcripts = self._spelled(transcripts)
                named = with_transcripts(named, transcripts, on_bad)
                warn_of_unknown_words("transcripts", (transcripts[each.name] for each in named), self._lexicon)
            parts = list(_cut(named, options, speaker, whole, channel, on_bad))
            cmvn, parts = speech_statistics(parts, options, on_bad=on_bad)
            if not parts:
                raise CorpusError(
                    f"speaker {speaker!r}: none of {len(named)} recordings can be used; the log has the reason of each"
                )
            if cmvn is None:
                raise AudioError(
                    f"speaker {speaker!r}: no speech found in the recordings; there is nothing to adapt to"
                )
            speech = read_speech(parts, options, speaker, cmvn)
            loop, targets = self._loop(speech), options.targets
            first_pass: FirstPass = SearchedFirstPass(loop, self._pool, options.first_search, options.lattice)
            if transcripts is not None:
                words_of, states = transcripts, self._topology
                first_pass = KnownTranscripts(loop, speech.recording_of, words_of, self._lexicon, states, on_bad)
                targets = TargetsConfig(kind="reference", silence_weight=targets.silence_weight)
            method = options.method.make(self._files.prepared)
            adapted = loop.adapt(method, first_pass, targets, self._sets(speech), options.seed)
        return Speaker(speaker, options.network, adapted, speech.cmvn)

    @property
    def vocabulary(self) -> frozenset[str]:
        """The words that transcripts can have."""
        return frozenset(self._lexicon.pronunciations)

    def load_speaker(self, path: str | Path) -> Speaker:
        """Read a person's file.

        Args:
            path: The file, or the person's name (``speaker_files.speaker_file``).

        Raises:
            CheckpointError: The file is missing or damaged.
            ModelMismatchError: The file belongs to another network.
            SpeakerError: There is no file of that name.
        """
        return load_speaker(speaker_file(path), self._network, self.description)

    def transcribe(
        self, audio: Audio, speaker: Speaker | str | Path | None = None, *, channel: int | None = None
    ) -> list[Transcript]:
        """Transcribe one person's recordings.

        Args:
            audio: Files, folders, patterns, or ``-`` for standard input; see ``recordings``.
            speaker: The person, from ``adapt``, or the person's file or name; None for the unadapted network.
            channel: Number of the recordings' channel to take, from 1; None for the mean of all, or for the loudest
                channel where the channels cancel.

        Returns:
            One transcript for each recording, ordered by name.

        Raises:
            AudioError: A recording cannot be used; ``transcripts`` can go on with the others.
            CheckpointError: The speaker's file is damaged.
            ModelMismatchError: The speaker belongs to another model.
        """
        return list(self.transcripts(audio, speaker, channel=channel))

    def transcripts(
        self,
        audio: Audio,
        speaker: Speaker | str | Path | None = None,
        *,
        channel: int | None = None,
        done: Collection[str] = (),
        on_bad: OnBad = None,
    ) -> Iterator[Transcript]:
        """Transcribe one person's recordings, one after the other: each is given as soon as it is finished.

        Args:
            audio: Files, folders, patterns, or ``-`` for standard input (see ``recordings``); or opened recordings.
            speaker: The person, from ``adapt``, or the person's file or name; None for the unadapted network.
            channel: Number of the recordings' channel to take, from 1; None for the mean of all, or for the loudest
                channel where the channels cancel.
            done: Names of recordings that need no transcript. Without a speaker they are read nevertheless: the
                features of all recordings are normalised together.
            on_bad: Called with the problem of each recording that cannot be used, which is then left out; None raises
                the first problem.

        Yields:
            The transcripts, ordered by the recordings' names.

        Raises:
            AudioError: A recording cannot be used.
            CheckpointError: The speaker's file is damaged.
            ModelMismatchError: The speaker belongs to another model.
        """
        options, person = self.description, self._person(speaker)
        name, cmvn = ("", None) if person is None else (person.name, person.cmvn)
        with _opened(audio, on_bad) as named:
            left = [recording for recording in named if recording.name not in done]
            if not left:
                return
            parts: Iterable[CutRecording] = _cut(left if cmvn else named, options, name, False, channel, on_bad)
            if cmvn is None:
                cmvn, kept = speech_statistics(list(parts), options, on_bad=on_bad)
                parts = [each for each in kept if each.recording.name not in done]
            watched = progress(parts, "recordings", len(left)) if len(left) > 1 else parts
            for each in watched:
                words: list[Word] | None = None
                with usable(each.recording.title, on_bad, each.recording.path):
                    words = self._words(each, person, cmvn, watched=len(left) == 1)
                if words is not None:
                    yield _transcript(each, words, name)

    def _person(self, speaker: Speaker | str | Path | None) -> Speaker | None:
        """The person of a file, or the given one if they belong to this network."""
        person = self.load_speaker(speaker) if isinstance(speaker, str | Path) else speaker
        if person is not None and person.network != self.description.network:
            raise ModelMismatchError(
                f"speaker {person.name!r} was adapted on the model {person.network[:12]}, this one is "
                f"{self.description.network[:12]}; adapt to the speaker with this model"
            )
        return person

    def _words(
        self, recording: CutRecording, person: Speaker | None, cmvn: Cmvn | None, *, watched: bool
    ) -> list[Word]:
        """The words of a recording; ``watched`` shows the progress over its pieces."""
        if not recording.pieces or cmvn is None:  # statistics of nothing but silence are None
            return []
        options = self.description
        speech = read_speech([recording], options, "" if person is None else person.name, cmvn)
        loop, starts = self._loop(speech), {piece.id: piece.start for piece in speech.pieces}
        if person is None:
            search, scores = options.first_search, loop.first_pass()
        else:
            search, scores = options.adapted_search, loop.second_pass(person.adapted, self._sets(speech))
        lattices = self._lattices(scores, search)
        words: list[Word] = []
        for summary, matrix in progress(lattices, "search", len(speech.pieces)) if watched else lattices:
            best = summary.hypothesis
            words += self._placed(best, matrix, starts[best.utterance])
        return words

    def _spelled(self, transcripts: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
        """The words of each recording as the lexicon spells them."""
        return {
            recording_name(name): spoken_words(
                words if isinstance(words, str) else " ".join(words), f"transcript of {name!r}", self.own_tags
            )
            for name, words in transcripts.items()
        }

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
        elif model_hash(network) != self.description.network:
            problem = "the description is of another network, and so would be the speakers' files"
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


def _cut(
    named: Iterable[Recording], model: ModelDescription, speaker: str, whole: bool, channel: int | None, on_bad: OnBad
) -> Iterator[CutRecording]:
    """The recordings, cut at pauses when they are asked for, without those that are damaged."""
    for recording in named:
        with usable(recording.title, on_bad, recording.path):
            part = cut_at_pauses(recording, model, speaker, whole=whole, channel=channel)
            yield part


def _transcript(part: CutRecording, words: Sequence[Word], speaker: str) -> Transcript:
    recording = part.recording
    return Transcript(
        recording.name, Path(recording.source), recording.info.seconds, tuple(words), part.left_out, part.channel,
        speaker,
    )  # fmt: skip


@contextmanager
def _opened(audio: Audio, on_bad: OnBad) -> Iterator[list[Recording]]:
    """A context with recordings that are opened, unless they were."""
    listed = [audio] if isinstance(audio, str | Path) else list(audio)
    opened = [each for each in listed if isinstance(each, Recording)]
    if opened:
        yield opened
        return
    with recordings([each for each in listed if not isinstance(each, Recording)], on_bad) as named:
        yield named
