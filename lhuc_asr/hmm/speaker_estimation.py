"""fMLLR transforms of speakers from their aligned utterances: alone, and as a first and a second estimate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lhuc_asr.features.store import StoredUtterance
from lhuc_asr.hmm.fmllr import FmllrEstimation, estimate_speakers, fmllr_statistics
from lhuc_asr.hmm.gaussian_features import AdaptedFeatures, GaussianFeatures
from lhuc_asr.hmm.gmm import DiagonalGmm
from lhuc_asr.hmm.row_updates import RowStatistics
from lhuc_asr.hmm.speaker_transforms import SpeakerTransforms
from lhuc_asr.hmm.training import aligned_blocks, block_pdfs, speech_weights


@dataclass(frozen=True)
class Targets:
    """What transforms are estimated on.

    Attributes:
        pdfs: Pdfs of each aligned utterance, by its id, shape (T,).
        silence_pdfs: Pdfs of silence.
        silence_weight: Weight of frames of silence.
    """

    pdfs: Mapping[str, np.ndarray]
    silence_pdfs: np.ndarray
    silence_weight: float


def first_estimate(
    features: GaussianFeatures,
    utterances: Iterable[StoredUtterance],
    targets: Targets,
    unadapted: DiagonalGmm,
    adapted: DiagonalGmm,
    config: FmllrEstimation,
    *,
    warns: bool = True,
) -> SpeakerTransforms:
    """Transforms of features: posteriors by the model of the features as they are, likelihoods by that of adapted ones.

    Args:
        features: The features as they are.
        utterances: Utterances of all speakers.
        targets: Their alignment.
        unadapted: Gaussians of these features.
        adapted: The same Gaussians in adapted features.
        config: Options of the estimation.
        warns: Whether speakers without a transform are named; False for all but the last of several estimates.

    Returns:
        A transform for each speaker; the identity for those who have too few frames, or whose frames are too much
        alike.

    """

    def of(speaker: str, theirs: Sequence[StoredUtterance]) -> RowStatistics:
        total = RowStatistics.nothing(speaker, adapted.dimension)
        for block in aligned_blocks(theirs, targets.pdfs):
            values, pdfs = features.of(block), block_pdfs(targets.pdfs, block)
            weights = speech_weights(pdfs, targets.silence_pdfs, targets.silence_weight)
            total = total + fmllr_statistics(speaker, unadapted.posteriors(values, pdfs, weights), adapted, values)
        return total

    parts = (of(speaker, theirs) for speaker, theirs in by_speaker(utterances).items())
    return estimate_speakers(parts, config, warns=warns)


def next_estimate(
    features: GaussianFeatures,
    utterances: Sequence[StoredUtterance],
    targets: Targets,
    before: SpeakerTransforms,
    adapted: DiagonalGmm,
    config: FmllrEstimation,
    *,
    warns: bool = True,
) -> SpeakerTransforms:
    """Transforms estimated on top of earlier ones, by the model of adapted features alone; other arguments as before.

    Args:
        before: The earlier transforms.
    """
    moved = AdaptedFeatures(features, before)
    return first_estimate(moved, utterances, targets, adapted, adapted, config, warns=warns).after(before)


def by_speaker(utterances: Iterable[StoredUtterance]) -> dict[str, list[StoredUtterance]]:
    """The utterances of each speaker."""
    groups: dict[str, list[StoredUtterance]] = {}
    for utterance in utterances:
        groups.setdefault(utterance.speaker, []).append(utterance)
    return groups
