"""The two-pass loop (Swietojanski et al. 2016, sec. III; its steps are those of Kaldi's steps/decode_fmllr.sh).

    1. first pass     score with the unadapted network, search       -> words, pdf of each frame
    2. targets        pdfs of the first pass, silence weighted down  -> targets of each frame
    3. adaptation     the network frozen                             -> parameters of each speaker
    4. second pass    score with each speaker's parameters, search   -> words

``TwoPass`` returns the scores of both passes; the search is the caller's. A recipe searches for the best path
(``pipeline/passes.py``), the recognizer searches lattices, because it needs confidences. A recipe may take the targets
from any earlier pass, even one with another network; ``FirstPass`` is the protocol of such a pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lhuc_asr.adapt.adaptation_sets import AdaptationSet
from lhuc_asr.adapt.incremental import IncrementalMethod, estimate_in_order
from lhuc_asr.adapt.method import AdaptationMethod, AdaptedSpeakers, SpeakerScores
from lhuc_asr.adapt.speaker_data import AlignmentModel, SpeakerData
from lhuc_asr.adapt.targets import FirstPass, FrameTargets, TargetsConfig, make_targets, no_targets, with_mean_one
from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.errors import AlignmentError, ConfigError
from lhuc_asr.features.store import FeatureTable, StoredUtterance
from lhuc_asr.nnet.acoustic_model import AcousticModel
from lhuc_asr.nnet.scoring import score_utterance

# An utterance's id and its log-likelihoods (T, K).
Scores = tuple[str, np.ndarray]


@dataclass(frozen=True)
class TwoPass:
    """The models and the utterances of both passes.

    Attributes:
        model: The network to adapt; its own weights never change.
        features: Features of the utterances.
        silence_pdfs: Pdfs of silence.
        recordings: The utterances with their audio files, by id, for methods that need more than features; empty if
            unknown.
        alignment_model: The Gaussian mixtures that first aligned the training data, for methods that need them; None if
            unknown.

    Raises:
        AlignmentError: The features are not those that the network takes.
    """

    model: AcousticModel
    features: FeatureTable
    silence_pdfs: np.ndarray
    recordings: Mapping[str, Utterance] = field(default_factory=dict)
    alignment_model: AlignmentModel | None = None

    def __post_init__(self) -> None:
        if self.features.dimension != self.model.feature_dimension:
            raise AlignmentError(
                f"{self.features.title}: {self.features.dimension} features per frame, but the network takes "
                f"{self.model.feature_dimension}; compute them with the options that it was trained with"
            )

    # 1. First pass.

    def first_pass(self) -> Iterator[Scores]:
        """The unadapted network's scores for all utterances, in their order."""
        for utterance in self.features.utterances:
            yield utterance.id, score_utterance(self.model, self.features[utterance.id])

    # 2. Targets, and 3. adaptation.

    def adapt(
        self,
        method: AdaptationMethod,
        first_pass: FirstPass,
        targets: TargetsConfig,
        sets: Sequence[AdaptationSet],
        seed: int,
    ) -> AdaptedSpeakers:
        """Estimate the parameters of all adaptation sets together.

        Args:
            method: The adaptation method.
            first_pass: Results of the earlier pass.
            targets: Options of the targets.
            sets: The adaptation sets.
            seed: Seed of the method.

        Raises:
            ConfigError: Sets go on from others, and the parameters of the method cannot.
        """
        targets_of = make_targets(first_pass, targets, self.silence_pdfs)
        data = {each.name: self.speaker_data(targets_of, each.estimated_on) for each in sets}
        if targets.mean_one:
            scaled = {name: with_mean_one(own.targets, self.silence_pdfs) for name, own in data.items()}
            data = {name: replace(own, targets=scaled[name]) for name, own in data.items()}
        if after := {each.name: each.after for each in sets if each.after is not None}:
            if not isinstance(method, IncrementalMethod):
                raise ConfigError(f"{type(method).__name__}: its parameters do not go on with each recording")
            return estimate_in_order(method, self.model, data, after, seed)
        return method.estimate(self.model, data, seed)

    # 4. Second pass.

    def second_pass(self, speakers: SpeakerScores, sets: Sequence[AdaptationSet]) -> Iterator[Scores]:
        """The adapted network's scores for all utterances, set after set, each with the parameters of its set."""
        for each in sets:
            for utterance in each.used_for:
                yield utterance.id, speakers.log_likelihoods(each.name, [self.features[utterance.id]])

    def speaker_data(
        self, targets: Mapping[str, FrameTargets], utterances: Sequence[tuple[StoredUtterance, int]]
    ) -> SpeakerData:
        """One speaker's adaptation data.

        Args:
            targets: Targets of each utterance, by its id; the frames of an utterance without targets get weight 0.
            utterances: The speaker's utterances, each with the number of leading frames to use.

        Raises:
            AlignmentError: An utterance's targets are not as many as its frames.
        """
        parts = []
        for utterance, frames in utterances:
            theirs = targets.get(utterance.id, no_targets(utterance.frames))
            if len(theirs.weight) != utterance.frames:
                raise AlignmentError(
                    f"{utterance.id}: {len(theirs.weight)} targets for {utterance.frames} frames; decode it again"
                )
            parts.append((self.features[utterance.id][:frames], theirs.first(frames)))
        if not parts:
            nothing = np.zeros((0, self.features.dimension), np.float32)
            return SpeakerData(nothing, (), no_targets(0), (), self.alignment_model)
        recordings = [self.recordings[u.id] for u, _ in utterances] if self.recordings else []
        return SpeakerData.of(parts, recordings, self.alignment_model)
