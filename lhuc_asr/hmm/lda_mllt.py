"""Linear discriminant analysis over spliced frames, and the semi-tied covariance transform that follows it.

LDA (Fisher 1936; Haeb-Umbach and Ney 1992) keeps the directions in which the pdfs differ most, scaled so that the
covariance within pdfs is the identity. MLLT, the semi-tied covariance with one class (Gales 1999, "Semi-tied covariance
matrices for hidden Markov models"), then turns the axes so that diagonal covariances fit best. Both are linear: the
features' mean goes through them into the Gaussians' means.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from lhuc_asr.base.errors import TransformError
from lhuc_asr.hmm.gmm import DiagonalGmm
from lhuc_asr.hmm.posteriors import GaussianPosteriors
from lhuc_asr.hmm.row_updates import RowStatistics, maximum
from lhuc_asr.hmm.scatter import weighted_scatter

# Share of the variance of a spliced coordinate within pdfs that the coordinates before it do not explain. Sums are in
# float64: less than this is a constant or a copy, not speech, whose neighbouring frames keep 1e-4 and more.
SMALLEST_PIVOT = 1e-8
# Updates of every row of MLLT's matrix (Kaldi's MlltAccs::Update).
MLLT_SWEEPS = 200


@dataclass(frozen=True)
class LdaStatistics:
    """Sums over frames of K classes; E is the number of spliced coordinates.

    Attributes:
        count: Weight of the frames of each class, shape (K,), float64.
        first: Sum of the frames of each class, shape (K, E), float64.
        second: Sum of x x^T over the frames of all classes, shape (E, E), float64.
    """

    count: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor

    @classmethod
    def of(
        cls, spliced: torch.Tensor, classes: torch.Tensor, class_count: int, weights: torch.Tensor | None = None
    ) -> LdaStatistics:
        """Statistics of a block of frames.

        Args:
            spliced: Spliced frames, shape (T, E).
            classes: Class of each frame, its pdf for example, shape (T,), int64; any number where the weight is zero.
            class_count: Number of classes, K.
            weights: Weight of each frame, shape (T,); frames of weight zero are left out. None for one. Kaldi leaves
                out silence.
        """
        weight = torch.ones(len(classes)) if weights is None else weights
        kept = torch.nonzero(weight).flatten()
        values, classes, weight = spliced[kept].double(), classes[kept], weight[kept].double()
        weighted = values if weights is None else values * weight.unsqueeze(1)
        return cls(
            torch.zeros(class_count, dtype=torch.float64).index_add(0, classes, weight),
            values.new_zeros(class_count, values.shape[1]).index_add(0, classes, weighted),
            weighted.T @ values,
        )

    def __add__(self, other: LdaStatistics) -> LdaStatistics:
        return LdaStatistics(self.count + other.count, self.first + other.first, self.second + other.second)


@dataclass(frozen=True)
class Lda:
    """A linear discriminant transform.

    Attributes:
        matrix: The transform, shape (D, E), float64; the frames that it makes have the identity as their covariance
            within classes.
        ratio: Variance between classes of each feature, over that within them, falling, shape (D,), float64.
    """

    matrix: torch.Tensor
    ratio: torch.Tensor


def estimate_lda(statistics: LdaStatistics, dimension: int) -> Lda:
    """Estimate the directions that tell the classes apart best.

    Args:
        statistics: Sums over all frames.
        dimension: Wanted number of features, D: less than the number of classes that have frames, as Kaldi's
            est-lda demands, since the means of C classes differ in at most C - 1.

    Raises:
        TransformError: There are too few classes or coordinates, or the covariance within classes is singular.
    """
    seen = statistics.count > 0
    classes, coordinates = int(seen.sum()), statistics.second.shape[0]
    if not 0 < dimension <= min(coordinates, classes - 1):
        raise TransformError(
            f"LDA: {dimension} features from {coordinates} coordinates of {classes} classes with frames; ask for "
            "at most as many as there are coordinates, and fewer than there are classes"
        )
    count, first = statistics.count[seen], statistics.first[seen]
    total = count.sum()
    mean = first.sum(0) / total
    between = (first / count.unsqueeze(1)).T @ first / total - torch.outer(mean, mean)
    within = statistics.second / total - torch.outer(mean, mean) - between
    whitening = torch.linalg.inv(_cholesky(within))
    ratio, directions = torch.linalg.eigh(whitening @ between @ whitening.T)
    chosen = torch.arange(coordinates - 1, coordinates - 1 - dimension, -1)
    return Lda(directions[:, chosen].T @ whitening, ratio[chosen])


def _cholesky(within: torch.Tensor) -> torch.Tensor:
    """Lower triangular L with L L^T the covariance within classes (E, E)."""
    scale = torch.diagonal(within).clamp_min(1e-300).sqrt()
    factor: torch.Tensor
    factor, failed = torch.linalg.cholesky_ex(within / torch.outer(scale, scale))
    if int(failed) or float(torch.diagonal(factor).square().amin()) < SMALLEST_PIVOT:
        place = int(failed) - 1 if int(failed) else int(torch.diagonal(factor).argmin())
        raise TransformError(
            f"LDA: the covariance within classes is singular: spliced coordinate {place} is constant, or a combination "
            "of those before it; give more frames, or features without constants and copies"
        )
    return factor * scale.unsqueeze(1)


@dataclass(frozen=True)
class MlltStatistics:
    """Sums over frames for MLLT, not centred yet: with the means taken out at the end, no Gaussian needs a matrix.

    Attributes:
        scatter: Sum of x x^T weighted by the Gaussians' precisions in each feature, shape (D, D, D), float64.
        occupancy: Sum of each Gaussian's posteriors, shape (M,), float64.
        first: Sum of the features for each Gaussian, shape (M, D), float64.
    """

    scatter: torch.Tensor
    occupancy: torch.Tensor
    first: torch.Tensor

    @classmethod
    def of(cls, posteriors: GaussianPosteriors, gmm: DiagonalGmm, features: torch.Tensor) -> MlltStatistics:
        """Statistics of a block of frames.

        Args:
            posteriors: Posteriors of the frames; Kaldi leaves out silence, by weights of zero.
            gmm: The model with the variances.
            features: Features of the frames, shape (T, D), float32.
        """
        values = features[posteriors.order]
        precision = posteriors.expectations(gmm.variance.reciprocal())
        return cls(weighted_scatter(precision, values), posteriors.occupancy, posteriors.sums(values))

    def __add__(self, other: MlltStatistics) -> MlltStatistics:
        return MlltStatistics(self.scatter + other.scatter, self.occupancy + other.occupancy, self.first + other.first)

    def centred(self, gmm: DiagonalGmm) -> RowStatistics:
        """G_d = sum over Gaussians of (1 / v_d) sum over frames of gamma (x - m) (x - m)^T.

        Args:
            gmm: The model that ``of`` was given.
        """
        mean, precision = gmm.mean.double(), gmm.variance.double().reciprocal()
        # gamma (x - m)(x - m)^T = gamma x x^T - h m^T - m h^T, with h = sum of gamma x, less half of gamma m.
        half = self.first - 0.5 * self.occupancy.unsqueeze(1) * mean
        quadratic = self.scatter.clone()
        for feature, weight in enumerate(precision.T):
            cross = (half * weight.unsqueeze(1)).T @ mean
            quadratic[feature] -= cross + cross.T
        linear = torch.zeros(1, *mean.shape[1:] * 2, dtype=torch.float64)
        return RowStatistics(("MLLT",), self.occupancy.sum().reshape(1), linear, quadratic.unsqueeze(0))


@dataclass(frozen=True)
class Mllt:
    """A semi-tied covariance transform.

    Attributes:
        matrix: The transform that multiplies the features, shape (D, D), float64.
        improvement: Gain in log-likelihood per frame over the identity, in nats, the variances unchanged.
    """

    matrix: torch.Tensor
    improvement: float

    def moved(self, gmm: DiagonalGmm) -> DiagonalGmm:
        """The model in the transformed space: its means are transformed, its variances stay for the next estimation."""
        return replace(gmm, mean=(gmm.mean.double() @ self.matrix.T).float())


def estimate_mllt(statistics: MlltStatistics, gmm: DiagonalGmm, sweeps: int = MLLT_SWEEPS) -> Mllt:
    """Estimate the transform under which the model's diagonal covariances fit best.

    Args:
        statistics: Sums over all frames.
        gmm: The model that they were made with.
        sweeps: Number of updates of every row.

    Raises:
        TransformError: Every frame has weight 0, or the covariance of the frames is singular.
    """
    rows = statistics.centred(gmm)
    if not float(rows.count) > 0:
        raise TransformError("MLLT: every frame has weight 0; give posteriors of frames of speech")
    matrix = maximum(rows, sweeps)
    gain = (rows.objective(matrix) - rows.objective(rows.identity())) / rows.count
    return Mllt(matrix[0], float(gain))
