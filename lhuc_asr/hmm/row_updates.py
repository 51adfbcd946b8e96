"""Linear and affine transforms of features under diagonal Gaussians, row by row, for many speakers at once.

The auxiliary function of a transform W = [A] or [A b] with rows w_d is

    Q(W) = beta log |det A| + sum_d (w_d k_d - w_d G_d w_d^T / 2)

(Gales 1998, "Maximum likelihood linear transformations for HMM-based speech recognition", eq. 26-28, where W is
fMLLR's; without k it is that of semi-tied covariances, Gales 1999, eq. 18-22). A row's maximum, the others fixed, is
w_d = (alpha p_d + k_d) G_d^-1, with p_d the row of cofactors and alpha the better root of a quadratic equation.

Speakers lie along the first axis of every tensor, and no sum runs over it: a transform is the same to the bit,
whoever else is estimated with it. LAPACK meets one speaker at a time, since its rounding depends on where in memory
a matrix begins, and so on who comes before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lhuc_asr.base.errors import SingularError, TransformError

# Share of a coordinate's energy that the coordinates before it do not explain. Statistics are sums of float32 products,
# so that less is rounding: the coordinate is a linear combination of the others.
SMALLEST_PIVOT = 1e-6


@dataclass(frozen=True)
class RowStatistics:
    """Statistics of the transforms of S speakers; N is D for linear transforms, D + 1 for affine ones.

    Attributes:
        names: Name of each speaker, for messages, S of them.
        count: beta, the sum of the posteriors, shape (S,), float64.
        linear: k, shape (S, D, N), float64.
        quadratic: G, shape (S, D, N, N), float64.
    """

    names: tuple[str, ...]
    count: torch.Tensor
    linear: torch.Tensor
    quadratic: torch.Tensor

    @classmethod
    def nothing(cls, name: str, dimension: int) -> RowStatistics:
        """The statistics of an affine transform of a speaker without frames."""
        shape = (1, dimension, dimension + 1)
        zeros = torch.zeros(*shape, dimension + 1, dtype=torch.float64)
        return cls((name,), torch.zeros(1, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64), zeros)

    @classmethod
    def stacked(cls, parts: Sequence[RowStatistics]) -> RowStatistics:
        """The statistics of all speakers of some statistics, one after the other."""
        return cls(
            tuple(name for part in parts for name in part.names),
            torch.cat([part.count for part in parts]),
            torch.cat([part.linear for part in parts]),
            torch.cat([part.quadratic for part in parts]),
        )

    def __add__(self, other: RowStatistics) -> RowStatistics:
        """Statistics of the same speakers from both sets of frames."""
        if self.names != other.names:
            raise TransformError(f"statistics of {self.names} cannot be added to those of {other.names}; stack them")
        return RowStatistics(
            self.names, self.count + other.count, self.linear + other.linear, self.quadratic + other.quadratic
        )

    def of(self, speakers: Sequence[int]) -> RowStatistics:
        """The statistics of some speakers, by their places."""
        rows = torch.tensor(speakers, dtype=torch.int64)
        return RowStatistics(
            tuple(self.names[speaker] for speaker in speakers),
            self.count[rows],
            self.linear[rows],
            self.quadratic[rows],
        )

    @property
    def dimension(self) -> int:
        """Number of features, D."""
        return self.linear.shape[1]

    @property
    def finite(self) -> torch.Tensor:
        """Whether all statistics of a speaker are finite, shape (S,), bool."""
        finite = [self.count.isfinite(), self.linear.isfinite().all((1, 2)), self.quadratic.isfinite().all((1, 2, 3))]
        return torch.stack(finite).all(0)

    def identity(self) -> torch.Tensor:
        """The transforms that change nothing, shape (S, D, N), float64."""
        unit = torch.eye(*self.linear.shape[1:], dtype=torch.float64)
        return unit.repeat(len(self.names), 1, 1)

    def objective(self, transforms: torch.Tensor) -> torch.Tensor:
        """Q of the transforms (S, D, N), shape (S,)."""
        square = transforms[..., : self.dimension]
        curved = (self.quadratic * transforms.unsqueeze(2)).sum(-1)
        log_det = torch.stack([torch.linalg.slogdet(matrix)[1] for matrix in square])
        return self.count * log_det + (transforms * (self.linear - 0.5 * curved)).sum((1, 2))


class RowAscent:
    """Transforms that rise to a maximum of Q, one row of all speakers at a time.

    Args:
        statistics: Statistics of the speakers; the count of each is positive.
        start: Transforms to begin with, shape (S, D, N), float64; those of ``blocks`` form.
        blocks: Number of equal blocks on A's diagonal outside of which A is zero: 1 for a full matrix, D for a
            diagonal one.

    Attributes:
        transforms: The transforms, shape (S, D, N), float64.

    Raises:
        SingularError: A speaker's statistics are singular.
        TransformError: The features cannot be cut into such blocks.
    """

    def __init__(self, statistics: RowStatistics, start: torch.Tensor, blocks: int = 1) -> None:
        check_blocks(statistics.dimension, blocks)
        self.transforms = start.clone()
        self._count = statistics.count
        # G_d^-1 on the row's own columns, zero elsewhere, where W stays zero then.
        self._inverse = _inverse_in_blocks(statistics, blocks)
        self._offset = (self._inverse * statistics.linear.unsqueeze(2)).sum(-1)
        self._dimension = statistics.dimension

    def sweep(self) -> None:
        """Update every row once."""
        self.begin_sweep()
        for row in range(self._dimension):
            self.update(row)

    def begin_sweep(self) -> None:
        """Invert A afresh, before rounding in the updates of its inverse adds up."""
        square = self.transforms[..., : self._dimension]
        self._inverse_of_a = torch.stack([torch.linalg.inv(matrix) for matrix in square])

    def update(self, row: int) -> None:
        """Move a row of every speaker to its maximum, the other rows fixed."""
        # A row of cofactors over det A is a column of the inverse, p_d; products with the old row are one.
        column = self._inverse_of_a[..., row].clone()
        inverse, offset = self._inverse[:, row], self._offset[:, row]
        direction = (inverse[..., : self._dimension] * column.unsqueeze(1)).sum(-1)
        slope = (direction[:, : self._dimension] * column).sum(-1)
        shift = (offset[:, : self._dimension] * column).sum(-1)
        alpha = _best_root(slope, shift, self._count)
        new = alpha.unsqueeze(1) * direction + offset
        change = (new - self.transforms[:, row])[:, : self._dimension]
        self.transforms[:, row] = new
        # Sherman and Morrison: A changed by a matrix of rank one.
        along = (self._inverse_of_a * change.unsqueeze(2)).sum(1) / (alpha * slope + shift).unsqueeze(1)
        self._inverse_of_a -= column.unsqueeze(2) * along.unsqueeze(1)


def maximum(statistics: RowStatistics, sweeps: int, blocks: int = 1) -> torch.Tensor:
    """The transforms after some sweeps over their rows, from the identity.

    Args:
        statistics: Statistics of the speakers; the count of each is positive.
        sweeps: Number of updates of every row.
        blocks: Number of equal blocks on A's diagonal.

    Returns:
        Shape (S, D, N), float64.

    Raises:
        SingularError: A speaker's statistics are singular.
        TransformError: The features cannot be cut into such blocks.
    """
    ascent = RowAscent(statistics, statistics.identity(), blocks)
    for _ in range(sweeps):
        ascent.sweep()
    return ascent.transforms


def _best_root(slope: torch.Tensor, shift: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """The alpha that maximises count log |alpha slope + shift| - alpha^2 slope / 2, shape (S,)."""
    width = (shift.square() + 4 * slope * count).sqrt()
    roots = torch.stack([width - shift, -width - shift]) / (2 * slope)
    values = count * (roots * slope + shift).abs().log() - 0.5 * roots.square() * slope
    return torch.where(values[0] >= values[1], roots[0], roots[1])


def check_blocks(dimension: int, blocks: int) -> None:
    """Refuse blocks that features cannot be cut into.

    Raises:
        TransformError: D is not a multiple of their number.
    """
    if dimension % blocks:
        raise TransformError(
            f"{dimension} features cannot be cut into {blocks} equal blocks; choose a number that divides them"
        )


def _inverse_in_blocks(statistics: RowStatistics, blocks: int) -> torch.Tensor:
    """Inverses of G_d, restricted to the columns of the row's block and the offset's, shape (S, D, N, N)."""
    size = statistics.dimension // blocks
    offset = list(range(statistics.dimension, statistics.linear.shape[2]))
    inverse = torch.zeros_like(statistics.quadratic)
    for block in range(blocks):
        rows = torch.arange(block * size, (block + 1) * size)
        columns = torch.tensor([*rows.tolist(), *offset])
        place = rows[:, None, None], columns[:, None], columns
        for speaker, name in enumerate(statistics.names):
            inverse[speaker, *place] = _inverse(statistics.quadratic[speaker, *place], name)
    return inverse


def _inverse(matrices: torch.Tensor, name: str) -> torch.Tensor:
    """Inverses of the symmetric positive definite matrices (R, n, n) of the speaker ``name``."""
    scale = torch.diagonal(matrices, dim1=-2, dim2=-1).clamp_min(1e-300).rsqrt()
    scales = scale.unsqueeze(-1) * scale.unsqueeze(-2)
    factor, failed = torch.linalg.cholesky_ex(matrices * scales)
    pivots = torch.diagonal(factor, dim1=-2, dim2=-1).square()
    if bool(failed.any()) or not bool((pivots >= SMALLEST_PIVOT).all()):
        raise SingularError(
            f"{name}: the covariance of the features is singular: one of them is constant, or a combination of the "
            "others; check the recordings, or leave them out"
        )
    return torch.cholesky_inverse(factor) * scales
