"""i-vectors: where a speaker's speech lies in a low-dimensional space of voices.

Dehak, Kenny, Dehak, Dumouchel and Ouellet 2011, "Front-end factor analysis for speaker verification"; estimation as in
Kenny, Boulianne and Dumouchel 2005, "Eigenvoice modeling with sparse training data". The mean of Gaussian k of the
background model is, for a speaker,

    m_k + T_k w,     w ~ N(0, I) of R dimensions,

with the background's variances. n_k is the number of frames of Gaussian k, f_k the sum of x - m_k over them. Given
these, w is normal, with

    precision  L = I + sum_k n_k T_k' S_k^-1 T_k,     mean  L^-1 b,     b = sum_k T_k' S_k^-1 f_k.

The mean is the i-vector. With few frames it is near 0, the voice of nobody in particular. Frames that follow each other
say nearly the same: each counts ``frame_weight``, and all together at most ``most_frames`` (Kaldi's posterior-scale and
max-count).

The features are those after mean and variance normalisation for each speaker, as the network takes them. A vector holds
what is left of a voice when the speaker's mean and variance are removed. The field's papers estimate i-vectors on
features without this normalisation, so that the vector has the mean too, and append them to unnormalised features.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from pydantic import Field

from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.errors import CheckpointError, FeatureError, SingularError
from lhuc_asr.base.numerics import VARIANCE_FLOOR
from lhuc_asr.base.tensors import Shape, check_tensors, load_format, save_tensors
from lhuc_asr.hmm.gmm import WEIGHT_ROUNDING, DiagonalGmm
from lhuc_asr.hmm.training import BLOCK_FRAMES, summed
from lhuc_asr.hmm.ubm import background_statistics

# What a file says of itself.
FORMAT = "lhuc_asr i-vectors 2"
REMEDY = "delete it and run again"
# Standard deviations of a Gaussian by which the first T moves its mean.
START_DEVIATIONS = 0.1


class ExtractorConfig(StrictModel):
    """Options of the i-vector extractor and of the vectors.

    Attributes:
        dimension: Number of dimensions, R.
        iterations: Number of iterations of EM.
        frame_weight: Weight of a frame.
        most_frames: Maximum total weight of a vector's frames.
    """

    dimension: int = Field(30, ge=1, le=2_000)
    iterations: int = Field(10, ge=1, le=10_000)
    frame_weight: float = Field(0.1, gt=0.0, le=1.0)
    most_frames: float = Field(100.0, gt=0.0, le=1e9)


# Relative to the largest, in float64.
LEAST_PIVOT = 1e-13


@dataclass(frozen=True)
class VoiceStatistics:
    """Sufficient statistics of S speakers.

    Attributes:
        count: n, frames of each Gaussian, shape (S, K), float64.
        first: f, sum of their differences from the background's means, shape (S, K, D), float64.
    """

    count: torch.Tensor
    first: torch.Tensor

    @classmethod
    def of(
        cls, background: DiagonalGmm, features: torch.Tensor, weights: torch.Tensor | None = None
    ) -> VoiceStatistics:
        """The statistics of one speaker's frames.

        Args:
            background: The background model.
            features: Shape (T, D), float32; T may be 0.
            weights: Weight of each frame, shape (T,), float32; None for one.

        Raises:
            FeatureError: A value is not finite.
        """
        if not bool(features.isfinite().all()):
            raise FeatureError("i-vector: features that are not finite; compute them again")
        weights = torch.ones(len(features)) if weights is None else weights
        blocks = zip(features.split(BLOCK_FRAMES), weights.split(BLOCK_FRAMES), strict=True)
        sums = summed(background_statistics(background, *block) for block in blocks)
        first = sums.first - sums.occupancy.unsqueeze(1) * background.mean.double()
        return cls(sums.occupancy.unsqueeze(0), first.unsqueeze(0))

    @classmethod
    def of_groups(cls, background: DiagonalGmm, groups: Sequence[Iterable[torch.Tensor]]) -> VoiceStatistics:
        """The statistics of S groups of utterances, each as those of one speaker.

        One utterance is in memory at a time, beside the result.

        Args:
            background: The background model.
            groups: Features of the utterances of each group, shapes (T, D), float32.

        Raises:
            FeatureError: A value is not finite.
        """
        count = torch.zeros(len(groups), background.gaussians, dtype=torch.float64)
        first = torch.zeros(len(groups), *background.mean.shape, dtype=torch.float64)
        for group, utterances in enumerate(groups):
            for features in utterances:
                own = cls.of(background, features)
                count[group] += own.count[0]
                first[group] += own.first[0]
        return cls(count, first)

    def weighted(self, frame_weight: float, most_frames: float) -> VoiceStatistics:
        """The same with the weight that frames have in a vector; arguments as ``ExtractorConfig``."""
        frames = frame_weight * self.count.sum(1)
        weight = frame_weight * (most_frames / frames.clamp_min(most_frames))
        return VoiceStatistics(self.count * weight[:, None], self.first * weight[:, None, None])


@dataclass(frozen=True)
class Posterior:
    """What is known of the vectors of S speakers.

    Attributes:
        mean: The i-vectors, shape (S, R), float64; not finite where the numbers are too large to compute with.
        factor: Cholesky factor of the precision L, lower, shape (S, R, R), float64.
    """

    mean: torch.Tensor
    factor: torch.Tensor

    @property
    def second_moment(self) -> torch.Tensor:
        """E[w w'] of each speaker, shape (S, R, R)."""
        return torch.cholesky_inverse(self.factor) + self.mean.unsqueeze(2) * self.mean.unsqueeze(1)


@dataclass(frozen=True)
class IvectorExtractor:
    """A background model, and the total variability around it: the space of voices that vectors lie in.

    Attributes:
        background: The background model, of one pdf.
        loading: T, shape (K, D, R), float64.
        frame_weight, most_frames: What frames count in a vector; see ``ExtractorConfig``.
    """

    background: DiagonalGmm
    loading: torch.Tensor
    frame_weight: float
    most_frames: float

    @classmethod
    def random(cls, background: DiagonalGmm, config: ExtractorConfig, seed: int) -> IvectorExtractor:
        """An extractor to start from: random directions, which move means by little."""
        generator = torch.Generator().manual_seed(seed)
        shape = (*background.mean.shape, config.dimension)
        directions = torch.randn(shape, generator=generator, dtype=torch.float64)
        loading = START_DEVIATIONS * background.variance.double().sqrt().unsqueeze(2) * directions
        return cls(background, loading, config.frame_weight, config.most_frames)

    @property
    def dimension(self) -> int:
        """Number of dimensions, R."""
        return int(self.loading.shape[2])

    def posterior(self, statistics: VoiceStatistics) -> Posterior:
        """What statistics say of the speakers' vectors; one whose numbers are too large leaves the others' alone."""
        gaussians, features, dimension = self.loading.shape
        weighted = self.loading / self.background.variance.double().unsqueeze(2)
        # Each Gaussian's T' S^-1 T: what one of its frames tells.
        told = (weighted.transpose(1, 2) @ self.loading).reshape(gaussians, dimension * dimension)
        precision = (statistics.count @ told).reshape(-1, dimension, dimension)
        precision = precision + torch.eye(dimension, dtype=torch.float64)
        linear = statistics.first.flatten(1) @ weighted.reshape(gaussians * features, dimension)
        factor, failed = torch.linalg.cholesky_ex(precision)
        mean = torch.cholesky_solve(linear.unsqueeze(2), factor).squeeze(2)
        return Posterior(mean.masked_fill((failed != 0).unsqueeze(1), torch.nan), factor)

    def estimated(self, statistics: VoiceStatistics) -> IvectorExtractor:
        """The extractor after an iteration of EM: T by maximum likelihood, then directions and lengths of w ~ N(0, I).

        The second step (minimum divergence) changes no voice: it turns and stretches the space so that the training
        speakers' vectors have the identity as their second moment, as the prior says.

        Raises:
            SingularError: The speakers' vectors differ by too little, or numbers are too large to compute with.
        """
        posterior = self.posterior(statistics)
        moment = posterior.second_moment
        speakers, dimension = posterior.mean.shape
        # T_k = (sum_s f_k w') (sum_s n_k E[w w'])^-1; a Gaussian that has no frames keeps its own.
        scatter = (statistics.count.T @ moment.flatten(1)).reshape(-1, dimension, dimension)
        cross = (statistics.first.flatten(1).T @ posterior.mean).reshape(*self.loading.shape)
        heard = statistics.count.sum(0) > 0
        loading = self.loading.clone()
        factor, failed = torch.linalg.cholesky_ex(scatter[heard])
        root, singular = torch.linalg.cholesky_ex(moment.mean(0))
        # Without spread in some direction its pivot should be 0; rounding leaves about 1e-16, of either sign.
        pivots = root.diagonal().square()
        if bool((failed != 0).any()) or int(singular) or float(pivots.min()) < LEAST_PIVOT * float(pivots.max()):
            raise SingularError(
                f"i-vectors: the vectors of {speakers} training speakers do not spread over {dimension} dimensions; "
                "lower extractor.dimension"
            )
        loading[heard] = torch.cholesky_solve(cross[heard].transpose(1, 2), factor).transpose(1, 2)
        return replace(self, loading=loading @ root)

    def vectors(self, statistics: VoiceStatistics) -> torch.Tensor:
        """The i-vectors of S speakers, shape (S, R), float32.

        A vector is 0 without frames, and not finite where a speaker's numbers are too large to compute with.
        """
        return self.posterior(statistics.weighted(self.frame_weight, self.most_frames)).mean.float()

    def tensors(self) -> dict[str, torch.Tensor]:
        """The extractor as tensors in float32, by name; ``of_tensors`` reads them."""
        background = self.background
        return {
            "weight": background.weight.float(),
            "mean": background.mean.float(),
            "variance": background.variance.float(),
            "loading": self.loading.float(),
            "counting": torch.tensor([self.frame_weight, self.most_frames]),
        }

    @classmethod
    def of_tensors(
        cls,
        tensors: Mapping[str, torch.Tensor],
        source: Path | str,
        features: int | None = None,
        remedy: str = REMEDY,
    ) -> IvectorExtractor:
        """The extractor of tensors that ``tensors`` returned.

        Args:
            tensors: The tensors.
            source: What they were read from, for messages.
            features: Number of features that it must have, D; None for any number.
            remedy: What to do about tensors that are not an extractor, for messages.

        Raises:
            CheckpointError: The tensors are not an extractor of such features.
        """
        count = len(tensors["weight"]) if "weight" in tensors and tensors["weight"].dim() == 1 else 0
        matrix: Shape = (count, features)
        shapes: dict[str, Shape] = {
            "weight": (count,), "mean": matrix, "variance": matrix, "loading": (*matrix, None), "counting": (2,),
        }  # fmt: skip
        check_tensors(source, tensors, shapes, remedy)
        single = {name: tensors[name].float() for name in shapes}
        # What float64 holds may be infinite in float32.
        check_tensors(source, single, shapes, remedy)
        weight, mean, variance, loading, counting = single.values()
        problem = None
        if len({each.shape[1] for each in (mean, variance, loading)}) > 1:
            problem = "its parts are of different features"
        elif not bool((weight >= 0).all()) or abs(float(weight.double().sum()) - 1.0) > WEIGHT_ROUNDING:
            problem = "a weight is negative, or the weights do not add up to 1"
        # The floor as float32 has it.
        elif not bool((variance >= variance.new_tensor(VARIANCE_FLOOR)).all()):
            problem = f"a variance is below {VARIANCE_FLOOR:g}, the floor of the training"
        elif not bool((counting > 0).all()):
            problem = "the weight of frames is not positive"
        if problem is not None:
            raise CheckpointError(f"{source}: {problem}; {remedy}")
        background = DiagonalGmm(torch.zeros(count, dtype=torch.int64), weight, mean, variance, 1)
        return cls(background, loading.double(), *(float(each) for each in counting))

    def save(self, path: Path) -> None:
        """Write the extractor and its background model as safetensors."""
        save_tensors(path, self.tensors(), {"format": FORMAT})

    @classmethod
    def load(cls, path: Path, features: int | None = None) -> IvectorExtractor:
        """Read an extractor.

        Args:
            path: A file that ``save`` wrote.
            features: Number of features that it must have, D; None for any number.

        Raises:
            CheckpointError: The file is damaged, or of other features.
        """
        tensors, _ = load_format(path, "an i-vector extractor", FORMAT)
        return cls.of_tensors(tensors, path, features)


def train_extractor(
    background: DiagonalGmm, statistics: VoiceStatistics, config: ExtractorConfig, seed: int
) -> IvectorExtractor:
    """Train an i-vector extractor on the speakers of a training set.

    Args:
        background: The background model.
        statistics: Sums over the frames of each training speaker.
        config: Options.
        seed: Seed of the directions to start from.

    Raises:
        FeatureError: Statistics are not finite.
        SingularError: The speakers with frames are fewer than the dimensions, or their vectors differ by too little.
    """
    if not bool(statistics.count.isfinite().all()) or not bool(statistics.first.isfinite().all()):
        raise FeatureError("i-vectors: features of training speakers are too large; compute them again")
    # T has at most as many dimensions as there are speakers, though EM would go on: each E[w w'] is positive definite.
    speakers = int((statistics.count.sum(1) > 0).sum())
    if speakers < config.dimension:
        raise SingularError(
            f"i-vectors: {speakers} training speakers cannot determine {config.dimension} dimensions; lower "
            f"extractor.dimension to at most {speakers}"
        )
    extractor = IvectorExtractor.random(background, config, seed)
    for _ in range(config.iterations):
        extractor = extractor.estimated(statistics)
    return replace(extractor, loading=extractor.loading.float().double())  # as it will be read
