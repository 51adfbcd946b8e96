"""Mixtures of diagonal Gaussians for all pdfs at once, as matrix products.

A diagonal Gaussian's log density is linear in (x, x^2):
log N(x) = c + sum_d (m_d / v_d) x_d - x_d^2 / (2 v_d),  so that all Gaussians of all pdfs are one product.
Estimation is Viterbi training: each frame belongs to the pdf that it is aligned to, and is shared by the pdf's
Gaussians in proportion to their posteriors (Rabiner 1989, sec. VI; Kaldi's gmm-acc-stats-ali).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lhuc_asr.base.errors import CheckpointError
from lhuc_asr.base.numerics import LOG_2PI, VARIANCE_FLOOR
from lhuc_asr.base.tensors import Shape, check_tensors, load_bare_tensors, save_tensors
from lhuc_asr.hmm.log_sum_exp import log_sum_exp
from lhuc_asr.hmm.posteriors import Block, GaussianPosteriors, pdf_groups, sorted_frames

# Mixture sizes grow with occupancy to this power, as in Kaldi: frequent pdfs get more Gaussians, but not all.
OCCUPANCY_POWER = 0.25
# A Gaussian needs this many frames for its variance to mean anything (Kaldi's min-gaussian-occupancy).
MIN_GAUSSIAN_FRAMES = 10.0
# Number of densities that are summed at once, 1 MB of them, to stay in the cache; but a product of fewer frames than
# these is slow.
CACHED_DENSITIES, FEWEST_CACHED_FRAMES = 250_000, 64
# Weights of a pdf add up to 1, but for the rounding of float32.
WEIGHT_ROUNDING = 1e-3
# Distance by which each half of a split Gaussian is moved, in standard deviations (Kaldi's perturb-factor).
SPLIT_DEVIATIONS = 0.2


@dataclass(frozen=True)
class GmmStatistics:
    """Sums over aligned frames, weighted by the posteriors of the Gaussians.

    Attributes:
        occupancy: Sum of the posteriors, shape (M,), float64.
        first: Sum of the features, shape (M, D), float64.
        second: Sum of the squared features, shape (M, D), float64.
    """

    occupancy: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor

    def __add__(self, other: GmmStatistics) -> GmmStatistics:
        return GmmStatistics(self.occupancy + other.occupancy, self.first + other.first, self.second + other.second)

    @classmethod
    def of(cls, posteriors: GaussianPosteriors, features: torch.Tensor) -> GmmStatistics:
        """Statistics of features, weighted by posteriors that may come from other features of the same frames.

        With the posteriors of one model in its own space, these are the same Gaussians in another space (Kaldi's
        gmm-acc-stats-twofeats): so the model for a first pass is made from a speaker-adaptive one.

        Args:
            posteriors: Posteriors of the frames.
            features: Features of the frames, shape (T, D), float32.
        """
        return _sums(posteriors, _with_squares(features[posteriors.order]))


@dataclass(frozen=True)
class DiagonalGmm:
    """Mixtures of all pdfs; the Gaussians of a pdf are neighbours.

    Attributes:
        pdf: Pdf of each Gaussian, sorted, shape (M,), int64.
        weight: Mixture weight of each Gaussian, shape (M,).
        mean: Mean of each Gaussian, shape (M, D).
        variance: Variance of each Gaussian, shape (M, D).
        pdf_count: Number of pdfs, K.
    """

    pdf: torch.Tensor
    weight: torch.Tensor
    mean: torch.Tensor
    variance: torch.Tensor
    pdf_count: int

    @classmethod
    def flat(cls, mean: torch.Tensor, variance: torch.Tensor, pdf_count: int) -> DiagonalGmm:
        """The model in which every pdf is the same single Gaussian."""
        return cls(
            torch.arange(pdf_count),
            torch.ones(pdf_count),
            mean.float().repeat(pdf_count, 1),
            variance.float().clamp_min(VARIANCE_FLOOR).repeat(pdf_count, 1),
            pdf_count,
        )

    @property
    def gaussians(self) -> int:
        """Number of Gaussians, M."""
        return len(self.pdf)

    @property
    def dimension(self) -> int:
        """Number of features, D."""
        return int(self.mean.shape[1])

    def of_pdfs(self, pdfs: np.ndarray) -> DiagonalGmm:
        """The mixtures of some pdfs alone.

        Args:
            pdfs: Pdfs in ascending order, shape (K',); they become 0 to K' - 1.
        """
        chosen = torch.from_numpy(np.isin(self.pdf.numpy(), pdfs))
        pdf = torch.from_numpy(np.searchsorted(pdfs, self.pdf[chosen].numpy()))
        return DiagonalGmm(pdf, self.weight[chosen], self.mean[chosen], self.variance[chosen], len(pdfs))

    def log_likelihoods(self, features: torch.Tensor) -> torch.Tensor:
        """Log p(x | pdf).

        Args:
            features: Shape (T, D), float32.

        Returns:
            Shape (T, K).
        """
        linear, constant = self._linear_form()
        # Constants are the weights of a feature that is always one.
        weights = torch.cat([linear, constant.unsqueeze(1)], dim=1)
        starts = np.concatenate([[0], np.cumsum(np.bincount(self.pdf.numpy(), minlength=self.pdf_count))])
        frames = max(FEWEST_CACHED_FRAMES, CACHED_DENSITIES // self.gaussians)
        scores = features.new_empty(len(features), self.pdf_count)
        for rows, part in zip(scores.split(frames), features.split(frames), strict=True):
            values = torch.cat([_with_squares(part), part.new_ones(len(part), 1)], dim=1)
            rows.copy_(log_sum_exp(weights @ values.T, starts).T)
        return scores

    def posteriors(
        self, features: torch.Tensor, pdfs: torch.Tensor, weights: torch.Tensor | None = None
    ) -> GaussianPosteriors:
        """Posteriors of the Gaussians of each frame's pdf.

        Args:
            features: Shape (T, D), float32.
            pdfs: Pdf of each frame, shape (T,), int64; any number where the weight is zero.
            weights: Weight of each frame, shape (T,), float32; frames of weight zero are left out. None for one.
        """
        order = sorted_frames(pdfs, weights)
        return self._posteriors(_with_squares(features[order]), pdfs, weights, order)

    def accumulate(
        self, features: torch.Tensor, pdfs: torch.Tensor, weights: torch.Tensor | None = None
    ) -> GmmStatistics:
        """Statistics of aligned frames; arguments as for ``posteriors``."""
        order = sorted_frames(pdfs, weights)
        values = _with_squares(features[order])
        return _sums(self._posteriors(values, pdfs, weights, order), values)

    def _posteriors(
        self, values: torch.Tensor, pdfs: torch.Tensor, weights: torch.Tensor | None, order: torch.Tensor
    ) -> GaussianPosteriors:
        """Posteriors from the features of the sorted frames and their squares, shape (N, 2 D)."""
        blocks = []
        for frames, gaussians, scores in self._own_scores(values, pdfs[order]):
            posterior = torch.softmax(scores, dim=1)
            if weights is not None:
                posterior *= weights[order[frames]].unsqueeze(1)
            blocks.append(Block(frames, gaussians, posterior))
        return GaussianPosteriors(order, tuple(blocks), self.gaussians)

    def _own_scores(self, values: torch.Tensor, pdfs: torch.Tensor) -> Iterator[tuple[slice, slice, torch.Tensor]]:
        """Log densities under the Gaussians of each frame's pdf, -inf under others, in blocks of frames and Gaussians.

        Args:
            values: Features of frames sorted by pdf and their squares, shape (N, 2 D).
            pdfs: Pdf of each of these frames, shape (N,).
        """
        linear, constant = self._linear_form()
        for frames, gaussians in pdf_groups(self.pdf, pdfs, self.mean.shape[1]):
            scores = torch.addmm(constant[gaussians], values[frames], linear[gaussians].T)
            others = pdfs[frames].unsqueeze(1) != self.pdf[gaussians]
            yield frames, gaussians, scores.masked_fill_(others, -torch.inf)

    def update(self, statistics: GmmStatistics) -> DiagonalGmm:
        """Maximum likelihood estimates; Gaussians with too few frames keep their mean and variance."""
        occupancy = statistics.occupancy.unsqueeze(1)
        enough = occupancy >= MIN_GAUSSIAN_FRAMES
        safe = occupancy.clamp_min(1.0)
        mean = statistics.first / safe
        variance = (statistics.second / safe - mean.square()).clamp_min(VARIANCE_FLOOR)
        total = torch.zeros(self.pdf_count, dtype=torch.float64).index_add(0, self.pdf, statistics.occupancy)
        weight = torch.where(
            total[self.pdf] > 0, statistics.occupancy / total[self.pdf].clamp_min(1e-30), self.weight.double()
        )
        return DiagonalGmm(
            self.pdf,
            weight.float(),
            torch.where(enough, mean, self.mean.double()).float(),
            torch.where(enough, variance, self.variance.double()).float(),
            self.pdf_count,
        )

    def grown(self, target: int, occupancy: torch.Tensor, generator: torch.Generator) -> DiagonalGmm:
        """Split the Gaussians with the most frames until each pdf has its share, or none has enough frames to be split.

        A pdf that has more than its share already, since it had more frames before, keeps them, as in Kaldi: there may
        be more than ``target`` then.

        Args:
            target: Wanted number of Gaussians.
            occupancy: Frames of each Gaussian, shape (M,).
            generator: Source of the random directions in which the halves are moved apart.
        """
        model, frames = self, occupancy.double()
        wanted = _mixture_sizes(torch.zeros(self.pdf_count, dtype=torch.float64).index_add(0, self.pdf, frames), target)
        while True:
            size = torch.bincount(model.pdf, minlength=self.pdf_count)
            # In every pdf that still has too few Gaussians, the one with the most frames is split.
            table = torch.full((self.pdf_count, int(size.max())), -1.0, dtype=torch.float64)
            first = torch.cumsum(size, 0) - size
            column = torch.arange(model.gaussians) - first[model.pdf]
            table[model.pdf, column] = frames
            heaviest = first + table.argmax(1)
            split = heaviest[(size < wanted) & (frames[heaviest] >= 2 * MIN_GAUSSIAN_FRAMES)]
            if len(split) == 0:
                return model
            model, frames = model._split(split, frames, generator)

    def _split(
        self, chosen: torch.Tensor, frames: torch.Tensor, generator: torch.Generator
    ) -> tuple[DiagonalGmm, torch.Tensor]:
        push = SPLIT_DEVIATIONS * self.variance[chosen].sqrt()
        push = push * torch.randn(push.shape, generator=generator)
        weight, mean, frames = self.weight.clone(), self.mean.clone(), frames.clone()
        weight[chosen] *= 0.5
        frames[chosen] *= 0.5
        mean[chosen] += push
        pdf = torch.cat([self.pdf, self.pdf[chosen]])
        order = torch.argsort(pdf, stable=True)
        return (
            DiagonalGmm(
                pdf[order],
                torch.cat([weight, weight[chosen]])[order],
                torch.cat([mean, mean[chosen] - 2 * push])[order],
                torch.cat([self.variance, self.variance[chosen]])[order],
                self.pdf_count,
            ),
            torch.cat([frames, frames[chosen]])[order],
        )

    def _linear_form(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights of (x, x^2), shape (M, 2 D), and constants, shape (M,)."""
        precision = self.variance.reciprocal()
        constant = self.weight.clamp_min(1e-30).log() - 0.5 * (
            self.variance.log().sum(1) + (self.mean.square() * precision).sum(1) + self.mean.shape[1] * LOG_2PI
        )
        return torch.cat([self.mean * precision, -0.5 * precision], dim=1), constant

    def save(self, path: Path) -> None:
        """Write the model as safetensors."""
        save_tensors(path, {"pdf": self.pdf, "weight": self.weight, "mean": self.mean, "variance": self.variance})

    @classmethod
    def load(cls, path: Path, pdf_count: int, dimension: int | None = None) -> DiagonalGmm:
        """Read a model.

        Args:
            path: A file that ``save`` wrote.
            pdf_count: Number of pdfs that it must have, K.
            dimension: Number of features that it must have, D; None for any number.

        Raises:
            CheckpointError: The file is damaged, or the model has another number of pdfs or of features.
        """
        remedy = "delete it and run again"
        tensors = load_bare_tensors(path, ("pdf", "weight", "mean", "variance"), "a Gaussian mixture model", remedy)
        pdf = tensors.pop("pdf")
        if pdf.dim() != 1 or pdf.dtype != torch.int64 or not len(pdf):
            raise CheckpointError(f"{path}: the pdfs of its Gaussians are not a list of numbers; {remedy}")
        count = len(pdf)
        shapes: dict[str, Shape] = {"weight": (count,), "mean": (count, dimension), "variance": (count, dimension)}
        check_tensors(path, tensors, shapes, remedy)
        if tensors["mean"].shape != tensors["variance"].shape:
            raise CheckpointError(f"{path}: its means and variances are of different features; {remedy}")
        stored_pdfs = int(pdf[-1]) + 1
        if stored_pdfs != pdf_count:
            raise CheckpointError(
                f"{path}: mixtures of {stored_pdfs} pdfs, expected {pdf_count}: it belongs to another phone set; "
                f"{remedy}"
            )
        steps = pdf.diff()
        if int(pdf[0]) != 0 or not bool(((steps == 0) | (steps == 1)).all()):
            raise CheckpointError(f"{path}: its Gaussians are not sorted, or a pdf has none; {remedy}")
        if not bool((tensors["weight"] >= 0).all()) or not bool((tensors["variance"] > 0).all()):
            raise CheckpointError(f"{path}: a weight is negative, or a variance not positive; {remedy}")
        sums = torch.zeros(pdf_count, dtype=torch.float64).index_add(0, pdf, tensors["weight"].double())
        if not bool(((sums - 1.0).abs() <= WEIGHT_ROUNDING).all()):
            raise CheckpointError(f"{path}: the weights of a pdf's Gaussians do not add up to 1; {remedy}")
        return cls(pdf, tensors["weight"], tensors["mean"], tensors["variance"], pdf_count)


def _sums(posteriors: GaussianPosteriors, values: torch.Tensor) -> GmmStatistics:
    """Statistics from the features of the sorted frames and their squares, shape (N, 2 D)."""
    first, second = posteriors.sums(values).chunk(2, dim=1)
    return GmmStatistics(posteriors.occupancy, first, second)


def _with_squares(features: torch.Tensor) -> torch.Tensor:
    return torch.cat([features, features.square()], dim=1)


def _mixture_sizes(frames: torch.Tensor, target: int) -> torch.Tensor:
    """Number of Gaussians of each pdf, ``target`` in all, shape (K,), int64.

    Each pdf has one; every further one goes to the pdf whose occupancy to a power is largest for each Gaussian that it
    has (Kaldi's GetSplitTargets), as long as all of its Gaussians have enough frames.
    """
    sizes = [1] * len(frames)
    most = (frames / MIN_GAUSSIAN_FRAMES).tolist()
    share = frames.pow(OCCUPANCY_POWER).tolist()
    waiting = [(-share[pdf], pdf) for pdf in range(len(sizes)) if most[pdf] >= 2]
    heapq.heapify(waiting)
    for _ in range(target - len(sizes)):
        if not waiting:
            break
        _, pdf = waiting[0]
        sizes[pdf] += 1
        if most[pdf] >= sizes[pdf] + 1:
            heapq.heapreplace(waiting, (-share[pdf] / sizes[pdf], pdf))
        else:
            heapq.heappop(waiting)
    return torch.tensor(sizes)
