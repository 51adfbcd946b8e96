"""Speaker-adaptive training: tied triphones on features that each speaker's fMLLR transform has moved.

The order of steps and the numbers of iterations are those of Kaldi's steps/train_sat.sh. At the end the same Gaussians
are estimated in unadapted features too, for first passes (Kaldi's alignment model, final.alimdl).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from pydantic import Field

from lhuc_asr.features.store import StoredUtterance
from lhuc_asr.hmm.aligner import align_utterances, pdfs_of, transcript_graphs
from lhuc_asr.hmm.fmllr import FmllrEstimation
from lhuc_asr.hmm.gaussian_features import AdaptedFeatures, GaussianFeatures
from lhuc_asr.hmm.gmm import DiagonalGmm, GmmStatistics
from lhuc_asr.hmm.speaker_estimation import Targets, first_estimate, next_estimate
from lhuc_asr.hmm.speaker_transforms import SpeakerTransforms
from lhuc_asr.hmm.topology import ContextDependency
from lhuc_asr.hmm.training import TrainingData, TrainingState, aligned_blocks, block_pdfs, summed, train_mixtures
from lhuc_asr.hmm.triphone_training import AlignedModel, TriphoneConfig, tied_start

# Iterations that estimate the transforms anew before they estimate the Gaussians (Kaldi's fmllr_iters).
FMLLR_ITERATIONS = (2, 4, 6, 12)


class FmllrSatConfig(TriphoneConfig):
    """Options of speaker-adaptive training.

    Attributes:
        fmllr: Options of the transforms.
        silence_weight: Weight of silence in the estimation of the training speakers' transforms.
    """

    fmllr: FmllrEstimation = FmllrEstimation()
    silence_weight: float = Field(0.0, ge=0.0, le=1.0)


@dataclass(frozen=True)
class SpeakerAdaptiveModel:
    """A model of features that are moved by speakers' transforms, and its twin for features that are not.

    Attributes:
        topology: States of the phones.
        adapted: Gaussian mixtures of adapted features.
        unadapted: The same Gaussians in unadapted features.
    """

    topology: ContextDependency
    adapted: DiagonalGmm
    unadapted: DiagonalGmm


def train_fmllr_sat(
    before: AlignedModel, data: TrainingData, config: FmllrSatConfig, seed: int
) -> SpeakerAdaptiveModel:
    """Train tied triphones speaker-adaptively, in the space of an earlier model.

    Args:
        before: The earlier model and its alignment.
        data: The utterances.
        config: Sizes and iterations.
        seed: Seed of the directions in which Gaussians are split.

    Raises:
        AlignmentError: Too many utterances cannot be aligned, or there are more roots of trees than wanted leaves.
    """
    fmllr = _Fmllr.first(before, data, config)
    start = tied_start(before.phones, fmllr.adapted_features, data, config.tree)
    end = train_mixtures(start, data, config.growth("fMLLR SAT"), seed, fmllr)
    return SpeakerAdaptiveModel(end.model.topology, end.model.gmm, _twin(end, before.features, data))


@dataclass
class _Fmllr:
    """The refinement that estimates the training speakers' transforms.

    Attributes:
        unadapted: Features without transforms.
        transforms: The transforms, as they are now.
        data: The utterances.
        config: The options.
    """

    unadapted: GaussianFeatures
    transforms: SpeakerTransforms
    data: TrainingData
    config: FmllrSatConfig

    @classmethod
    def first(cls, before: AlignedModel, data: TrainingData, config: FmllrSatConfig) -> _Fmllr:
        topology, gmm = before.model.topology, before.model.gmm
        pdfs = {name: phones.pdfs(topology) for name, phones in before.phones.items()}
        targets = Targets(pdfs, topology.silence_pdfs, config.silence_weight)
        transforms = first_estimate(before.features, data.utterances, targets, gmm, gmm, config.fmllr, warns=False)
        return cls(before.features, transforms, data, config)

    @property
    def adapted_features(self) -> AdaptedFeatures:
        return AdaptedFeatures(self.unadapted, self.transforms)

    def __call__(self, iteration: int, state: TrainingState) -> TrainingState:
        if iteration not in FMLLR_ITERATIONS:
            return state
        targets = Targets(state.pdfs, state.model.topology.silence_pdfs, self.config.silence_weight)
        # The speakers are named once, by the alignment with the trained model.
        self.transforms = next_estimate(
            self.unadapted,
            self.data.utterances,
            targets,
            self.transforms,
            state.model.gmm,
            self.config.fmllr,
            warns=False,
        )
        return replace(state, features=self.adapted_features)


def _twin(state: TrainingState, unadapted: GaussianFeatures, data: TrainingData) -> DiagonalGmm:
    """The same Gaussians in unadapted features, from the posteriors of the adapted ones."""
    gmm = state.model.gmm

    def of(block: Sequence[StoredUtterance]) -> GmmStatistics:
        posteriors = gmm.posteriors(state.features.of(block), block_pdfs(state.pdfs, block))
        return GmmStatistics.of(posteriors, unadapted.of(block))

    return gmm.update(summed(of(block) for block in aligned_blocks(data.utterances, state.pdfs)))


def align_adapted(
    model: SpeakerAdaptiveModel,
    unadapted: GaussianFeatures,
    data: TrainingData,
    config: FmllrSatConfig,
) -> tuple[SpeakerTransforms, dict[str, np.ndarray]]:
    """Transforms of speakers, and the alignment of their utterances with them, after Kaldi's steps/align_fmllr.sh.

    The first estimate is on an alignment by the unadapted model, the second one, which Kaldi's script leaves out, on an
    alignment by the adapted model.

    Args:
        model: The model.
        unadapted: Features without transforms.
        data: The utterances.
        config: The options.

    Returns:
        A transform for each speaker, and the pdfs of each aligned utterance.

    Raises:
        AlignmentError: Too many utterances cannot be aligned.
    """
    graphs = transcript_graphs(data.utterances, data.transcripts, data.lexicon, model.topology)
    silence, limits = model.topology.silence_pdfs, (data.threads, data.max_unaligned)
    utterances: Sequence[StoredUtterance] = data.utterances
    paths, _ = align_utterances(model.unadapted, unadapted, utterances, graphs, *limits)
    targets = Targets(pdfs_of(paths), silence, config.silence_weight)
    estimators = model.unadapted, model.adapted, config.fmllr
    first = first_estimate(unadapted, utterances, targets, *estimators, warns=False)
    paths, _ = align_utterances(model.adapted, AdaptedFeatures(unadapted, first), utterances, graphs, *limits)
    targets = Targets(pdfs_of(paths), silence, config.silence_weight)
    second = next_estimate(unadapted, utterances, targets, first, model.adapted, config.fmllr)
    paths, _ = align_utterances(model.adapted, AdaptedFeatures(unadapted, second), utterances, graphs, *limits)
    return second, pdfs_of(paths)
