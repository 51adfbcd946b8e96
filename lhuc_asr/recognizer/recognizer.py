"""A recognizer that adapts to a new speaker: an experiment's two passes over recordings that a user names.

The recordings of one call are taken for one person's: their features are normalised together, as an experiment
normalises all of a test speaker's. A speaker's file keeps mean and deviation beside the amplitudes, which were
estimated on features normalised so; with it, what is found in a recording does not depend on which others are
transcribed with it. On AN4, utterances normalised one by one have 44 % more errors.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from lhuc_asr.adapt.adaptation_sets import DataConfig, adaptation_sets
from lhuc_asr.adapt.lhuc import LhucSpeakers
from lhuc_asr.adapt.methods import make_method
from lhuc_asr.adapt.targets import FrameTargets
from lhuc_asr.adapt.two_pass import TwoPass, targets_of
from lhuc_asr.base.errors import AudioError, CheckpointError, ConfigError, CorpusError, SiteError
from lhuc_asr.base.runlog import progress
from lhuc_asr.base.units import seconds_of
from lhuc_asr.decode.hypothesis import Hypothesis
from lhuc_asr.decode.lattice_search import LatticeSummary
from lhuc_asr.decode.pool import SearchPool
from lhuc_asr.decode.search import SearchConfig
from lhuc_asr.features.cmvn import Cmvn
from lhuc_asr.features.store import blocks_of
from lhuc_asr.hmm.topology import MonophoneTopology
from lhuc_asr.lang.coverage import aligned_words
from lhuc_asr.lang.lexicon_folder import read_lexicon_folder
from lhuc_asr.lhuc.attach import attach
from lhuc_asr.lhuc.speaker import SpeakerState, check_speaker_name
from lhuc_asr.nnet.checkpoint import load_model
from lhuc_asr.nnet.scoring import SCORING_FRAMES, score_utterance
from lhuc_asr.recognizer.from_experiment import find_model
from lhuc_asr.recognizer.known_words import place
from lhuc_asr.recognizer.model_folder import ModelDescription, ModelFiles
from lhuc_asr.recognizer.recordings import Recording, recordings
from lhuc_asr.recognizer.speech import Speech, read_speech
from lhuc_asr.recognizer.transcript import Transcript, Word

logger = logging.getLogger(__name__)

Audio = str | Path | Sequence[str | Path]

# In a speaker's file: mean and deviation of his features, shape (D,) each, float64.
CMVN_MEAN, CMVN_DEVIATION = "cmvn.mean", "cmvn.deviation"
# A recording with a transcript is aligned whole, for which memory grows with frames times words.
LONGEST_TRANSCRIBED_SECONDS = 60.0


def load(folder: str | Path) -> Recognizer:
    """The recognizer of an exported folder, or of an experiment's with the first of its passes that adapts.

    Raises:
        ExperimentError: It is neither, or a file is missing or damaged.
    """
    return Recognizer(*find_model(Path(folder)))


class Recognizer:
    """A trained network, its graph, and a way of adapting to a speaker; it searches in this process.

    Args:
        description: What the model is.
        files: Where it is.

    Attributes:
        description: As given.
    """

    def __init__(self, description: ModelDescription, files: ModelFiles) -> None:
        self.description = description
        self._files = files
        self._network = load_model(files.network)
        self._topology = MonophoneTopology.load(files.topology)
        self._lexicon = read_lexicon_folder(files.lang)
        self._pool = SearchPool(files.lang, workers=0)

    def adapt(
        self,
        audio: Audio,
        speaker: str = "speaker",
        transcripts: Mapping[str, Sequence[str]] | None = None,
    ) -> SpeakerState:
        """Adapt to one person's recordings, on what the first pass finds in them or on what is known to be said.

        Args:
            audio: Files, folders, patterns, ``-``; see ``recordings``.
            speaker: The person's name.
            transcripts: The words of each recording, by its name (``read_transcripts``); of no recording longer than a
                minute.

        Returns:
            The speaker: ``transcribe`` takes it, ``save`` writes it to a file.

        Raises:
            SpeakerError: The name can be none of a file.
            AudioError: A recording cannot be used, or nothing is said in any.
            CorpusError: There is no recording, or one has no transcript.
        """
        check_speaker_name(speaker)
        options = self.description
        with recordings(_listed(audio)) as found:
            if transcripts is not None:
                _check_transcripts(found, transcripts)
            speech = read_speech(found, options, speaker, whole=transcripts is not None)
        if speech is None:
            raise AudioError(f"speaker {speaker!r}: nothing is said in the recordings; there is nothing to adapt to")
        two_pass = TwoPass(self._network, speech.features, self._topology.silence_pdfs)
        if transcripts is None:
            targets = self._first_pass_targets(two_pass, speech)
        else:
            targets = self._known_targets(two_pass, speech, transcripts)
        adapted = two_pass.adapt(
            make_method(options.method, self._files.prepared),
            targets,
            adaptation_sets(speech.features, {piece.id: "" for piece in speech.pieces}, DataConfig(), options.seed),
            options.seed,
        )
        if not isinstance(adapted, LhucSpeakers):
            raise ConfigError(f"what {options.method.kind} learns of a speaker is no amplitudes; a file cannot hold it")
        cmvn = {CMVN_MEAN: speech.cmvn.mean, CMVN_DEVIATION: speech.cmvn.deviation}
        return replace(
            adapted.bank.state(speaker), extras={name: torch.from_numpy(value) for name, value in cmvn.items()}
        )

    def transcribe(self, audio: Audio, speaker: SpeakerState | str | Path | None = None) -> list[Transcript]:
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
        person = None if speaker is None else self._person(speaker)
        with recordings(_listed(audio)) as found:
            speech = read_speech(found, options, "", None if person is None else person.cmvn)
        words: dict[str, list[Word]] = {recording.name: [] for recording in found}
        if speech is not None:
            starts = {piece.id: piece.start for piece in speech.pieces}
            searches = self._lattices(
                speech, options.first_search if person is None else options.adapted_search, person
            )
            for summary, scores in searches:
                best = summary.hypothesis
                words[speech.recording_of[best.utterance]] += self._placed(best, scores, starts[best.utterance])
        return [Transcript(each.name, each.path, each.info.seconds, tuple(words[each.name])) for each in found]

    def _first_pass_targets(self, two_pass: TwoPass, speech: Speech) -> dict[str, FrameTargets]:
        """What the first pass takes each frame for."""
        options, search = self.description.targets, self.description.first_search
        if options.kind == "best_path":
            scores = (item for block in self._scores(speech) for item in block)
            hypotheses = list(progress(self._pool.search_all(scores, search), "first pass", len(speech.pieces)))
            targets = two_pass.alignment_targets(targets_of(hypotheses), options.silence_weight)
        else:
            summaries = [summary for summary, _ in self._lattices(speech, search)]
            hypotheses = [summary.hypothesis for summary in summaries]
            targets = two_pass.lattice_targets(summaries, options)
        if not any(hypothesis.words for hypothesis in hypotheses):
            logger.warning("the first pass finds no word in the recordings; what is adapted to is hardly the speaker")
        return targets

    def _known_targets(
        self, two_pass: TwoPass, speech: Speech, transcripts: Mapping[str, Sequence[str]]
    ) -> dict[str, FrameTargets]:
        """What each frame is where the words are known; recordings that they do not fit teach nothing."""
        pdfs = {}
        for piece, scores in (item for block in self._scores(speech) for item in block):
            recording = speech.recording_of[piece]
            words = aligned_words(transcripts[recording], self._lexicon)
            if missing := self._lexicon.missing(words):
                logger.warning("%s: left out, the lexicon lacks %s", recording, ", ".join(missing))
            elif not words:
                logger.warning("%s: left out, its transcript has no words", recording)
            elif (placed := place(words, scores, self._lexicon, self._topology)) is None:
                logger.warning("%s: left out, it is too short for its transcript", recording)
            else:
                pdfs[piece] = placed.pdfs
        if not pdfs:
            raise CorpusError("no recording fits its transcript; are they of one another?")
        return two_pass.alignment_targets(pdfs, self.description.targets.silence_weight)

    def _lattices(
        self, speech: Speech, search: SearchConfig, person: _Person | None = None
    ) -> Iterator[tuple[LatticeSummary, np.ndarray]]:
        """What the lattice of each piece says, and the piece's scores (T, K)."""
        found = (
            (summary, scores)
            for block in self._scores(speech, person)
            for summary, (_, scores) in zip(
                self._pool.lattices_all(block, search, self.description.lattice), block, strict=True
            )
        )
        yield from progress(found, "search", len(speech.pieces))

    def _scores(self, speech: Speech, person: _Person | None = None) -> Iterator[list[tuple[str, np.ndarray]]]:
        """Log-likelihoods (T, K) of the pieces, some at a time so that memory does not grow with the recordings."""
        for block in blocks_of(speech.features.utterances, SCORING_FRAMES):
            with nullcontext() if person is None else person.amplitudes.applied(self._network, person.name):
                scores = [(piece.id, score_utterance(self._network, speech.features[piece.id])) for piece in block]
            yield scores

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

    def _person(self, speaker: SpeakerState | str | Path) -> _Person:
        """The speaker's amplitudes on this network, and his features' statistics."""
        path = "" if isinstance(speaker, SpeakerState) else speaker
        state = speaker if isinstance(speaker, SpeakerState) else SpeakerState.load(speaker)
        # Before its sites are looked for: those of another model may not be here.
        state.check_fits(state.sites, state.amplitude, self.description.network)
        try:
            bank = attach(self._network, [site.name for site in state.sites], [], amplitude=state.amplitude)
        except (ConfigError, SiteError) as error:
            raise CheckpointError(f"{path or state.speaker}: not a speaker of this model ({error})") from error
        bank.detach()
        state.check_fits(bank.sites, bank.amplitude.name, self.description.network)
        bank.put(state)
        return _Person(LhucSpeakers(bank), state.speaker, _cmvn_of(state, self.description.features.dimension))


@dataclass(frozen=True)
class _Person:
    """A speaker on this network; no statistics where the file has none, as those of an experiment's folder."""

    amplitudes: LhucSpeakers
    name: str
    cmvn: Cmvn | None


def _cmvn_of(state: SpeakerState, dimension: int) -> Cmvn | None:
    if CMVN_MEAN not in state.extras and CMVN_DEVIATION not in state.extras:
        return None
    values = [state.extras.get(name, torch.empty(0)).double().numpy() for name in (CMVN_MEAN, CMVN_DEVIATION)]
    mean, deviation = values
    if (
        not all(value.shape == (dimension,) and np.isfinite(value).all() for value in values)
        or not (deviation > 0).all()
    ):
        raise CheckpointError(
            f"speaker {state.speaker!r}: mean and deviation of the features are damaged; copy the file again, or adapt "
            "the speaker again"
        )
    return Cmvn(mean, deviation)


def _check_transcripts(recordings: Sequence[Recording], transcripts: Mapping[str, Sequence[str]]) -> None:
    for recording in recordings:
        if recording.name not in transcripts:
            raise CorpusError(f"{recording.path}: no transcript for {recording.name!r}; add a line, or leave it out")
        if recording.info.seconds > LONGEST_TRANSCRIBED_SECONDS:
            raise AudioError(
                f"{recording.path}: {recording.info.seconds:.0f} s are too long for a transcript, expected at most "
                f"{LONGEST_TRANSCRIBED_SECONDS:.0f} s; cut recording and transcript, or adapt without transcripts"
            )


def _listed(audio: Audio) -> list[str | Path]:
    return [audio] if isinstance(audio, str | Path) else list(audio)
