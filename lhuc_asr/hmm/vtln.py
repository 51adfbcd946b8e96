"""Vocal tract length normalisation: the warp of a speaker's frequencies is the likeliest of a list.

The features are computed at every warp, normalised to mean 0 and variance 1 at that warp, and scored by Gaussian
mixtures along an alignment that stays the same (Lee and Rose 1998, "A frequency warping approach to speaker
normalization").

Likelihoods of different features cannot be compared as they are: a warp that makes features smaller or more alike would
win. To first order the features at one warp are an affine function A of those at another, and the likelihood of the
unwarped features has the term log |det A|. The covariance of the features tells it: cov' = A cov A^T, so that
log |det A| = (log det cov' - log det cov) / 2. Normalised variances take care of the diagonal, and the term is what
correlations add.

``warp_transforms`` turns warps into affine transforms of features, for models that are given features and not sound;
``common_warp_maps`` makes a transform for each warp that all speakers share.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field

from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.errors import AlignmentError, TransformError
from lhuc_asr.base.numerics import DEVIATION_FLOOR
from lhuc_asr.features.cmvn import Cmvn, CmvnAccumulator
from lhuc_asr.features.filterbank import FeatureConfig
from lhuc_asr.features.vtln import warped_features
from lhuc_asr.hmm.feature_space import FeatureSpace
from lhuc_asr.hmm.gmm import DiagonalGmm
from lhuc_asr.hmm.speaker_transforms import SpeakerTransforms

logger = logging.getLogger(__name__)

# The warp that changes nothing.
UNWARPED = 1.0
# Number of frames that the identity counts as in a linear transform: a second of speech alone would be fitted too well.
PRIOR_FRAMES = 5.0


class WarpSearchConfig(StrictModel):
    """Options of the search.

    Attributes:
        lowest: Lowest warp; a warp below 1 suits a vocal tract that is shorter than the average one.
        highest: Highest warp. The defaults are Kaldi's.
        step: Distance between neighbouring warps.
        min_count: Frames, weighted, that a speaker must have; those who have fewer keep a warp of 1.
    """

    lowest: float = Field(0.85, ge=0.5, le=1.0)
    highest: float = Field(1.25, ge=1.0, le=2.0)
    step: float = Field(0.01, ge=0.001, le=0.5)
    min_count: float = Field(100.0, gt=0.0, le=1e9)

    @property
    def warps(self) -> tuple[float, ...]:
        """The warps, ascending; 1 is one of them."""
        below, above = (round(span / self.step, 6) for span in (1.0 - self.lowest, self.highest - 1.0))
        return tuple(round(UNWARPED + self.step * number, 6) for number in range(-int(below), int(above) + 1))


@dataclass(frozen=True)
class WarpModel:
    """Gaussian mixtures, and the features that they model.

    Attributes:
        gmm: The mixtures of all pdfs.
        features: Kind of the features, before they are normalised a speaker.
        space: Space of the mixtures' features.
    """

    gmm: DiagonalGmm
    features: FeatureConfig
    space: FeatureSpace

    def __post_init__(self) -> None:
        if self.space.dimension != self.gmm.dimension:
            raise TransformError(
                f"mixtures of {self.gmm.dimension} features in a space of {self.space.dimension}; use the space that "
                "they were trained in"
            )


@dataclass(frozen=True)
class AlignedRecording:
    """One utterance of a speaker.

    Attributes:
        samples: Samples in [-1, 1) at the features' sample rate, shape (N,).
        pdfs: Pdf of each frame, shape (T,); any number where the weight is zero.
        weights: Weight of each frame, shape (T,), 0 or more.
    """

    samples: np.ndarray
    pdfs: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class WarpSearch:
    """The likelihoods of a speaker's speech at the warps of a list.

    Attributes:
        warps: The warps, ascending.
        log_likelihoods: Log-likelihood per weighted frame at each warp, the determinant's term included, up to a
            constant, shape (V,), float64.
        count: Number of frames, weighted.
    """

    warps: tuple[float, ...]
    log_likelihoods: np.ndarray
    count: float

    @property
    def best(self) -> float:
        """The likeliest warp; of equally likely ones that which is nearest to 1."""
        likeliest = np.flatnonzero(self.log_likelihoods == self.log_likelihoods.max())
        return min((self.warps[place] for place in likeliest), key=lambda warp: abs(warp - UNWARPED))


def speaker_warps(
    model: WarpModel, speakers: Mapping[str, Sequence[AlignedRecording]], config: WarpSearchConfig
) -> dict[str, float]:
    """The warp of each speaker; 1, with a warning, for those who have too little speech.

    Args:
        model: The mixtures, trained on features that were normalised for each speaker.
        speakers: All utterances of each speaker.
        config: Options of the search.

    Raises:
        AlignmentError: An utterance's pdfs or weights are not one a frame, a pdf is not one of the mixtures', or a
            sample or weight is not finite.
        FeatureError: An utterance has no frame, or a warp leaves a mel bin empty.
    """
    enough = [name for name, recordings in speakers.items() if _count(recordings) >= config.min_count]
    short = sorted(speakers.keys() - set(enough))
    if short:
        logger.warning(
            "%d of %d speakers have fewer than %g frames of speech and keep a warp of 1: %s",
            *(len(short), len(speakers), config.min_count, ", ".join(short[:8])),
        )
    searched = {name: search_warps(model, speakers[name], config.warps).best for name in enough}
    return {name: searched.get(name, UNWARPED) for name in speakers}


def search_warps(model: WarpModel, recordings: Sequence[AlignedRecording], warps: Sequence[float]) -> WarpSearch:
    """The likelihood of a speaker's utterances at every warp.

    The features of an utterance are computed twice, so that memory does not grow with the speaker's speech.

    Args:
        model: The mixtures, trained on features that were normalised for each speaker.
        recordings: All utterances of the speaker.
        warps: The warps, ascending.

    Raises:
        AlignmentError: An utterance's pdfs or weights are not one a frame, a pdf is not one of the mixtures', all
            frames have weight 0, or a sample or weight is not finite.
        FeatureError: An utterance has no frame, or a warp leaves a mel bin empty.
    """
    features, count = model.features, _count(recordings)
    if not count > 0:
        raise AlignmentError("no frame of the recordings has weight; a warp needs some aligned speech")
    samples = [recording.samples for recording in recordings]
    normalised = _Normalised(features, model.space, tuple(warps), _cmvn(samples, features, warps))
    width, frames = model.space.dimension, 0
    total = torch.zeros(len(warps), dtype=torch.float64)
    scatter = torch.zeros(len(warps), width, width, dtype=torch.float64)
    for recording in recordings:
        values = normalised.of(recording.samples)
        _check_frames(recording, values.shape[1])
        total += _log_likelihoods(model.gmm, values, recording)
        # In float64: rounding in float32 would be more than the floor below, and so choose between short recordings.
        scatter += torch.bmm(values.double().mT, values.double())
        frames += values.shape[1]
    # With the floor, features that are constant, or more than the frames, are the same constant at every warp.
    covariance = scatter / frames + DEVIATION_FLOOR**2 * torch.eye(width, dtype=torch.float64)
    log_likelihoods = total / count + 0.5 * torch.linalg.slogdet(covariance).logabsdet
    if not bool(log_likelihoods.isfinite().all()):
        raise AlignmentError("the likelihoods of the recordings are not finite; their samples or weights are damaged")
    return WarpSearch(tuple(warps), log_likelihoods.numpy(), count)


def warp_transforms(
    speakers: Mapping[str, Sequence[np.ndarray]],
    warps: Mapping[str, float],
    features: FeatureConfig,
    space: FeatureSpace,
) -> SpeakerTransforms:
    """Affine transforms that do to features what the speakers' warps do to their frequencies (linear VTLN).

    A transform is the least squares map from a speaker's unwarped to their warped features, both normalised. So models
    and files that take fMLLR's transforms take VTLN's (Kaldi's gmm-train-lvtln-special; Kim, Umesh, Gales, Hain and
    Woodland 2004, "Using VTLN for broadcast news transcription").

    Args:
        speakers: Samples in [-1, 1) of all utterances of each speaker, at the features' sample rate, shapes (N,).
        warps: Warp of each speaker.
        features: Kind of the features, before they are normalised for each speaker.
        space: Space of the features that the transforms are for.

    Returns:
        A transform for each speaker; the identity for a warp of 1, and for a speaker without utterances.

    Raises:
        FeatureError: An utterance has no frame, or a warp leaves a mel bin empty.
    """
    matrices = SpeakerTransforms.identity(tuple(speakers), space.dimension).matrices
    for matrix, (name, utterances) in zip(matrices, speakers.items(), strict=True):
        if warps[name] != UNWARPED and utterances:
            pairs = _unwarped_and_warped(utterances, (warps[name],), features, space)
            matrix.copy_(_least_squares(pairs, 1, space.dimension)[0])
    return SpeakerTransforms(tuple(speakers), matrices)


def common_warp_maps(
    speakers: Iterable[Sequence[np.ndarray]], warps: Sequence[float], features: FeatureConfig, space: FeatureSpace
) -> torch.Tensor:
    """The transform of each warp that fits the features of all speakers best; see ``warp_transforms``.

    Args:
        speakers: Samples of all utterances of each speaker, as in ``warp_transforms``.
        warps: The V warps.
        features: Kind of the features, before they are normalised for each speaker.
        space: Space of the features that the transforms are for.

    Returns:
        Shape (V, D, D + 1), float64; the identity for a warp of 1.

    Raises:
        FeatureError: An utterance has no frame, or a warp leaves a mel bin empty.
    """
    spoken = (_unwarped_and_warped(utterances, warps, features, space) for utterances in speakers if utterances)
    maps = _least_squares(itertools.chain.from_iterable(spoken), len(warps), space.dimension)
    unwarped = [warp == UNWARPED for warp in warps]
    maps[unwarped] = torch.eye(space.dimension, space.dimension + 1, dtype=torch.float64)
    return maps


def _unwarped_and_warped(
    utterances: Sequence[np.ndarray], warps: Sequence[float], features: FeatureConfig, space: FeatureSpace
) -> Iterator[torch.Tensor]:
    """The features of each of a speaker's utterances as they are and at V warps, shapes (1 + V, T, D)."""
    all_warps = (UNWARPED, *warps)
    normalised = _Normalised(features, space, all_warps, _cmvn(utterances, features, all_warps))
    yield from map(normalised.of, utterances)


def _least_squares(blocks: Iterable[torch.Tensor], maps: int, dimension: int) -> torch.Tensor:
    """W with the smallest error from the first to each other of several features of the same frames.

    The identity counts as ``PRIOR_FRAMES`` frames.

    Args:
        blocks: Features of some frames, shapes (1 + V, T, D).
        maps: Number of the maps, V.
        dimension: Number of features, D.

    Returns:
        Shape (V, D, D + 1), float64.
    """
    inner = PRIOR_FRAMES * torch.eye(dimension + 1, dtype=torch.float64)
    outer = PRIOR_FRAMES * torch.eye(dimension, dimension + 1, dtype=torch.float64).repeat(maps, 1, 1)
    for unwarped, *warped in blocks:
        extended = torch.nn.functional.pad(unwarped.double(), (0, 1), value=1.0)
        inner += extended.T @ extended
        outer += torch.stack(warped).double().mT @ extended
    solution: torch.Tensor = torch.linalg.solve(inner, outer.mT)
    return solution.mT


@dataclass(frozen=True)
class _Normalised:
    """Features of a speaker at several warps, normalised at each, in a space."""

    features: FeatureConfig
    space: FeatureSpace
    warps: tuple[float, ...]
    cmvn: Cmvn

    def of(self, samples: np.ndarray) -> torch.Tensor:
        """The features of an utterance, shape (V, T, D)."""
        columns = self.cmvn.apply(_columns(samples, self.features, self.warps))
        frames = len(columns)
        rows = np.ascontiguousarray(columns.reshape(frames, len(self.warps), -1).swapaxes(0, 1))
        values = self.space.apply(torch.from_numpy(rows).flatten(0, 1), [frames] * len(self.warps))
        return values.view(len(self.warps), frames, -1)


def _cmvn(utterances: Iterable[np.ndarray], features: FeatureConfig, warps: Sequence[float]) -> Cmvn:
    """Mean and variance of a speaker's features at each warp, those of all warps side by side."""
    accumulator = CmvnAccumulator(len(warps) * features.dimension)
    for samples in utterances:
        accumulator.add(_columns(samples, features, warps))
    return accumulator.estimate()


def _columns(samples: np.ndarray, features: FeatureConfig, warps: Sequence[float]) -> np.ndarray:
    """The features of an utterance, those of all warps side by side, shape (T, V D)."""
    values = warped_features(samples, features, warps)
    return values.reshape(len(values), -1)


def _count(recordings: Iterable[AlignedRecording]) -> float:
    """Number of frames, weighted."""
    return sum(float(recording.weights.sum()) for recording in recordings)


def _check_frames(recording: AlignedRecording, frames: int) -> None:
    if not frames == len(recording.pdfs) == len(recording.weights):
        raise AlignmentError(
            f"{len(recording.pdfs)} pdfs and {len(recording.weights)} weights for {frames} frames; align the "
            "recording that the features are computed from"
        )


def _log_likelihoods(gmm: DiagonalGmm, values: torch.Tensor, recording: AlignedRecording) -> torch.Tensor:
    """The weighted sum of an utterance's log-likelihoods at each warp, shape (V,), float64."""
    weights = torch.from_numpy(np.asarray(recording.weights, np.float64))
    kept = torch.nonzero(weights).flatten()
    pdfs = torch.from_numpy(np.asarray(recording.pdfs, np.int64))[kept]
    if len(pdfs) and not 0 <= int(pdfs.min()) <= int(pdfs.max()) < gmm.pdf_count:
        raise AlignmentError(
            f"pdfs {int(pdfs.min())} to {int(pdfs.max())}, but the mixtures have pdfs 0 to {gmm.pdf_count - 1}: the "
            "alignment is of another tree; align with these mixtures' own"
        )
    scores = gmm.aligned_log_likelihoods(values[:, kept].flatten(0, 1), pdfs.repeat(len(values)))
    return scores.view(len(values), -1).double() @ weights[kept]
