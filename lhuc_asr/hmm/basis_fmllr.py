"""fMLLR from seconds of speech: a speaker's transform is the identity and a sum of a few matrices, the basis.

Povey and Yao 2012, "A basis representation of constrained MLLR transforms for robust adaptation", Computer Speech and
Language 26(1). The basis is made from training speakers: the directions in which their likelihoods rise most, in
coordinates in which the expected second derivative is the identity. A new speaker has as many coefficients as their
frames allow, found by steepest ascent with a line search. Defaults are Kaldi's (BasisFmllrOptions).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import Field

from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.errors import CheckpointError, TransformError
from lhuc_asr.base.tensors import check_tensors, load_format, save_tensors
from lhuc_asr.hmm.fmllr import enough, warn_of_few_frames, warn_of_unusable
from lhuc_asr.hmm.row_updates import RowStatistics
from lhuc_asr.hmm.speaker_transforms import SpeakerTransforms, far_from_voices

# What a file says of itself.
FORMAT = "lhuc_asr fmllr basis 1"
REMEDY = "delete it and run again"
# A step is halved until the likelihood does not fall; after so many halvings it is zero.
MOST_HALVINGS = 30


class BasisFmllrEstimation(StrictModel):
    """Options of the estimation.

    Attributes:
        min_count: Frames, weighted, below which a speaker's transform is the identity.
        coefficients_per_frame: Number of coefficients for each frame that a speaker has.
        iterations: Number of steps of the steepest ascent.
        line_iterations: Number of Newton steps in the search for the length of each.
    """

    min_count: float = Field(50.0, gt=0.0, le=1e9)
    coefficients_per_frame: float = Field(0.2, gt=0.0, le=1e6)
    iterations: int = Field(10, ge=1, le=10_000)
    line_iterations: int = Field(3, ge=1, le=10_000)

    def coefficients(self, count: float, size: int) -> int:
        """Number of coefficients for a speaker with ``count`` frames, from a basis of ``size`` matrices."""
        return int(min(size, self.coefficients_per_frame * count)) if enough(count, self.min_count) else 0


@dataclass(frozen=True)
class BasisStatistics:
    """Sums over training speakers; Z is the number of a transform's numbers, D (D + 1).

    Attributes:
        count: Frames of all speakers, weighted, shape (), float64.
        quadratic: Sum of the speakers' G, shape (D, D + 1, D + 1), float64.
        scatter: Sum of the outer products of the speakers' gradients, each over its count, shape (Z, Z), float64.
    """

    count: torch.Tensor
    quadratic: torch.Tensor
    scatter: torch.Tensor

    @classmethod
    def of(cls, statistics: RowStatistics) -> BasisStatistics:
        """Statistics of training speakers; speakers without frames add nothing."""
        gradient = _gradients(statistics, statistics.identity()).flatten(1)
        weight = torch.where(statistics.count > 0, statistics.count.clamp_min(1e-30).reciprocal(), 0.0)
        return cls(
            statistics.count.sum(),
            statistics.quadratic.sum(0),
            (gradient * weight.unsqueeze(1)).T @ gradient,
        )

    def __add__(self, other: BasisStatistics) -> BasisStatistics:
        return BasisStatistics(self.count + other.count, self.quadratic + other.quadratic, self.scatter + other.scatter)


@dataclass(frozen=True)
class BasisEstimate:
    """Transforms of S speakers and what they gain.

    Attributes:
        transforms: The transforms.
        coefficients: Number of coefficients of each speaker; 0 for the identity.
        improvement: Gain in log-likelihood per frame over the identity, log |det A| included, in nats, shape (S,).
    """

    transforms: SpeakerTransforms
    coefficients: tuple[int, ...]
    improvement: torch.Tensor


@dataclass(frozen=True)
class FmllrBasis:
    """A basis of transforms.

    Attributes:
        matrices: The matrices, those that gain most first, shape (B, D, D + 1), float64.
        gain: Estimate of each one's gain in log-likelihood per frame of training speech, in nats, shape (B,), float64.
    """

    matrices: torch.Tensor
    gain: torch.Tensor

    @classmethod
    def from_statistics(cls, statistics: BasisStatistics, size: int | None = None) -> FmllrBasis:
        """The basis of training speakers.

        The expected second derivative is that of the training frames, where the paper (eq. 28) takes frames that the
        model would generate.

        Args:
            statistics: Sums over the training speakers.
            size: Number of matrices; None for all of them, D (D + 1).

        Raises:
            TransformError: Every frame has weight 0, or the covariance of the frames is singular.
        """
        features, columns = statistics.quadratic.shape[:2]
        if not float(statistics.count) > 0:
            raise TransformError("basis fMLLR: the training speakers have no frames; give some whose weight is not 0")
        factor, failed = torch.linalg.cholesky_ex(_curvature(statistics.quadratic / statistics.count))
        if int(failed):
            raise TransformError(
                "basis fMLLR: the covariance of the training speakers' features is singular, or less than that of the "
                "Gaussian mixtures; give more frames, of the features that the mixtures model"
            )
        whitening = torch.linalg.inv(factor)
        value, directions = torch.linalg.eigh(whitening @ statistics.scatter @ whitening.T)
        matrices = (directions.T @ whitening).flip(0)[:size]
        gain = value.flip(0)[:size] / (2 * statistics.count)
        return cls(matrices.reshape(-1, features, columns), gain)

    def estimate(
        self, statistics: RowStatistics, config: BasisFmllrEstimation | None = None, *, warns: bool = True
    ) -> BasisEstimate:
        """Estimate the transform of every speaker, each by itself.

        Warnings name the speakers with too few frames, and those whose statistics are not finite or lead farther than
        any voice; their transform is the identity.

        Args:
            statistics: Statistics of the speakers, stacked.
            config: Options; None for Kaldi's.
            warns: Whether these warnings are given; False for all but the last of several estimates from the same
                frames.
        """
        config = config or BasisFmllrEstimation()
        sizes = [config.coefficients(count, len(self.matrices)) for count in statistics.count.tolist()]
        matrices, improvement = statistics.identity(), torch.zeros_like(statistics.count)
        unusable = []
        for place, size in enumerate(sizes):
            speaker = statistics.of([place])
            if not bool(speaker.finite):
                unusable.append(speaker.names[0])
            elif size:
                transform = _ascend(self.matrices[:size], speaker, config).unsqueeze(0)
                if bool(far_from_voices(transform)):
                    unusable.append(speaker.names[0])
                    continue
                rise = speaker.objective(transform) - speaker.objective(speaker.identity())
                matrices[place], improvement[place] = transform[0], (rise / speaker.count)[0]
        if warns:
            warn_of_unusable(unusable, len(sizes))
            least = max(config.min_count, 1.0 / config.coefficients_per_frame)
            warn_of_few_frames(statistics.names, statistics.count.tolist(), least)
        used = (0 if name in unusable else size for name, size in zip(statistics.names, sizes, strict=True))
        return BasisEstimate(SpeakerTransforms(statistics.names, matrices), tuple(used), improvement)

    def save(self, path: Path) -> None:
        """Write the basis as safetensors."""
        save_tensors(path, {"matrices": self.matrices, "gain": self.gain}, {"format": FORMAT})

    @classmethod
    def load(cls, path: Path, dimension: int) -> FmllrBasis:
        """Read a basis.

        Args:
            path: A file that ``save`` wrote.
            dimension: Number of features that it must have, D.

        Raises:
            CheckpointError: The file is missing, damaged, or for other features.
        """
        tensors, _ = load_format(path, "a basis of fMLLR transforms", FORMAT)
        check_tensors(path, tensors, {"matrices": (None, dimension, dimension + 1), "gain": (None,)}, REMEDY)
        matrices, gain = tensors["matrices"].double(), tensors["gain"].double()
        if len(matrices) != len(gain) or not len(matrices):
            raise CheckpointError(f"{path}: {len(matrices)} matrices with {len(gain)} gains; {REMEDY}")
        return cls(matrices, gain)


def _curvature(quadratic: torch.Tensor) -> torch.Tensor:
    """Minus the second derivative of Q a frame at the identity, shape (Z, Z); Z runs over rows, then columns."""
    features, columns = quadratic.shape[:2]
    place = torch.arange(features)
    curvature = torch.zeros(features, columns, features, columns, dtype=torch.float64)
    curvature[place, :, place, :] = quadratic
    # log |det A| : its second derivative by a_ij and a_ji is -1.
    curvature[place[:, None], place, place, place[:, None]] += 1.0
    return curvature.reshape(features * columns, features * columns)


def _gradients(statistics: RowStatistics, transforms: torch.Tensor) -> torch.Tensor:
    """Derivatives of Q by the transforms (S, D, D + 1), of the same shape."""
    gradient = statistics.linear - (statistics.quadratic * transforms.unsqueeze(2)).sum(-1)
    inverse = torch.linalg.inv(transforms[..., :-1])
    gradient[..., :-1] += statistics.count[:, None, None] * inverse.transpose(1, 2)
    return gradient


def _ascend(basis: torch.Tensor, speaker: RowStatistics, config: BasisFmllrEstimation) -> torch.Tensor:
    """A speaker's transform after some steps along the gradient within the basis, shape (D, D + 1)."""
    flat = basis.flatten(1)
    transform = speaker.identity()
    for _ in range(config.iterations):
        gradient = _gradients(speaker, transform).flatten()
        direction = (flat.T @ (flat @ gradient)).reshape(transform.shape)
        transform = transform + _step(speaker, transform, direction, config.line_iterations) * direction
    return transform[0]


def _step(speaker: RowStatistics, transform: torch.Tensor, direction: torch.Tensor, iterations: int) -> torch.Tensor:
    """Length of the step along ``direction`` by Newton's method, halved where Q falls, shape ()."""
    count = speaker.count[0]
    curved = (speaker.quadratic * direction.unsqueeze(2)).sum(-1)
    bend = (curved * direction).sum()
    pull = ((speaker.linear * direction).sum()) - (curved * transform).sum()
    length, reached = torch.zeros_like(count), speaker.objective(transform)[0]
    for _ in range(iterations):
        square, along = (transform + length * direction)[0, :, :-1], direction[0, :, :-1]
        relative = torch.linalg.solve(square, along)
        slope = count * torch.trace(relative) + pull - length * bend
        # The log determinant may bend the wrong way; the floor keeps the step finite (Kaldi's).
        curvature = torch.maximum(bend + count * (relative @ relative).trace(), bend / 10)
        change = slope / curvature
        for _ in range(MOST_HALVINGS):
            candidate = transform + (length + change) * direction
            value = speaker.objective(candidate)[0]
            if bool(value >= reached) and bool(torch.linalg.slogdet(candidate[..., :-1])[0] > 0):
                length, reached = length + change, value
                break
            change = change / 2
    return length
