"""Frames from Gaussian mixtures, and sums over them by their definitions, for the tests of the transforms."""

from __future__ import annotations

import torch

from lhuc_asr.hmm.gmm import DiagonalGmm


def mixtures(
    seed: int, sizes: tuple[int, ...], dimension: int, apart: float = 2.0, variance: float = 1.0
) -> DiagonalGmm:
    """Random mixtures: means ``apart`` in standard deviation, variances of half to one and a half of ``variance``."""
    generator = torch.Generator().manual_seed(seed)
    count = sum(sizes)
    return DiagonalGmm(
        torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)),
        torch.cat([torch.softmax(torch.randn(size, generator=generator), 0) for size in sizes]),
        apart * torch.randn(count, dimension, generator=generator),
        variance * (0.5 + torch.rand(count, dimension, generator=generator)),
        len(sizes),
    )


def drawn(gmm: DiagonalGmm, frames: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames of pdfs that are all alike in number, shape (T, D) in float64, and the pdf of each."""
    generator = torch.Generator().manual_seed(seed)
    pdfs = torch.randint(gmm.pdf_count, (frames,), generator=generator)
    table = torch.where(gmm.pdf == pdfs.unsqueeze(1), gmm.weight, 0.0)
    gaussian = torch.multinomial(table, 1, generator=generator).flatten()
    noise = torch.randn(frames, gmm.mean.shape[1], dtype=torch.float64, generator=generator)
    return gmm.mean[gaussian].double() + gmm.variance[gaussian].double().sqrt() * noise, pdfs


def dense_posteriors(
    gmm: DiagonalGmm, features: torch.Tensor, pdfs: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Weighted posteriors (T, M), by the formula, in float64."""
    mean, variance = gmm.mean.double(), gmm.variance.double()
    distance = (features.double().unsqueeze(1) - mean).square() / variance
    scores = gmm.weight.double().log() - 0.5 * (distance + variance.log()).sum(2)
    scores = scores.masked_fill(gmm.pdf != pdfs.unsqueeze(1), -torch.inf)
    posteriors = torch.softmax(scores, dim=1)
    return torch.where(weights.unsqueeze(1) > 0, posteriors * weights.double().unsqueeze(1), 0.0)


def affine(seed: int, dimension: int, size: float = 0.1) -> torch.Tensor:
    """A random transform near the identity, W of shape (D, D + 1), float64."""
    generator = torch.Generator().manual_seed(seed)
    change = size * torch.randn(dimension, dimension + 1, dtype=torch.float64, generator=generator)
    return torch.eye(dimension, dimension + 1, dtype=torch.float64) + change


def undone(transform: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """The features (T, D) that ``transform`` turns into the given ones, float32."""
    return torch.linalg.solve(transform[:, :-1], (features - transform[:, -1]).T).T.float().contiguous()
