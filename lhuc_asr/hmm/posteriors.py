"""Posteriors of the Gaussians within the pdf that each frame is aligned to, and sums over them as matrix products.

A frame meets only the Gaussians of its own pdf. Frames are sorted by pdf, so that the posteriors are a few dense blocks
on a diagonal, one for a group of neighbouring pdfs. Every statistic of training and adaptation is a product with them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

# Multiplications and additions that take as long as starting a block's operations. It weighs blocks for many pdfs,
# which waste products on the Gaussians of other pdfs, against many blocks.
BLOCK_START_OPERATIONS = 1_000_000


@dataclass(frozen=True)
class Block:
    """Posteriors of some frames over the Gaussians of a group of pdfs.

    Attributes:
        frames: First frame, among the sorted ones, and the one after the last.
        gaussians: First Gaussian and the one after the last.
        weight: Posteriors times the weights of the frames, zero for Gaussians of other pdfs, shape (frames, Gaussians).
    """

    frames: slice
    gaussians: slice
    weight: torch.Tensor


@dataclass(frozen=True)
class GaussianPosteriors:
    """Posteriors of M Gaussians for the N frames of non-zero weight, which are sorted by pdf.

    Attributes:
        order: Row of each sorted frame among the frames that were given, shape (N,), int64.
        blocks: Posteriors of the groups of pdfs; groups without frames are left out.
        gaussians: Number of Gaussians of the model, M.
    """

    order: torch.Tensor
    blocks: tuple[Block, ...]
    gaussians: int

    @property
    def occupancy(self) -> torch.Tensor:
        """Sum over the frames of each Gaussian's posteriors, shape (M,), float64."""
        total = torch.zeros(self.gaussians, dtype=torch.float64)
        for block in self.blocks:
            total[block.gaussians] = block.weight.sum(0).double()
        return total

    def sums(self, values: torch.Tensor) -> torch.Tensor:
        """Sums over the frames, weighted by the posteriors.

        Args:
            values: Values of the sorted frames, shape (N, E): those of all frames, indexed with ``order``.

        Returns:
            Sum for each Gaussian, shape (M, E), float64.
        """
        total = torch.zeros(self.gaussians, values.shape[1], dtype=torch.float64)
        for block in self.blocks:
            total[block.gaussians] = block.weight.T @ values[block.frames]
        return total

    def expectations(self, table: torch.Tensor) -> torch.Tensor:
        """Sums over the Gaussians of each frame, weighted by the posteriors.

        Args:
            table: Values of the Gaussians, shape (M, E).

        Returns:
            Sum for each of the sorted frames, shape (N, E), in the type of ``table``.
        """
        values = table.new_empty(len(self.order), table.shape[1])
        for block in self.blocks:
            torch.mm(block.weight, table[block.gaussians], out=values[block.frames])
        return values


def sorted_frames(pdfs: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """Rows of the frames whose weight is not zero, sorted by pdf, shape (N,), int64.

    Args:
        pdfs: Pdf of each frame, shape (T,), int64; any number where the weight is zero.
        weights: Weight of each frame, shape (T,); None for one.
    """
    if weights is None:
        return torch.argsort(pdfs, stable=True)
    kept = torch.nonzero(weights).flatten()
    return kept[torch.argsort(pdfs[kept], stable=True)]


def pdf_groups(gaussian_pdf: torch.Tensor, pdfs: torch.Tensor, dimension: int) -> Iterator[tuple[slice, slice]]:
    """Frames and Gaussians of groups of neighbouring pdfs, for the groups that have frames.

    Args:
        gaussian_pdf: Pdf of each Gaussian, sorted, shape (M,), int64; every pdf has one or more.
        pdfs: Pdf of each frame, sorted, shape (N,), int64.
        dimension: Number of features, D.
    """
    gaussians, frames = len(gaussian_pdf), max(len(pdfs), 1)
    # M / w blocks to start, and N x w Gaussians, each with 4 D multiplications and additions: their sum is least at w.
    width = max(1.0, math.sqrt(BLOCK_START_OPERATIONS * gaussians / (4 * dimension * frames)))
    sizes = torch.bincount(gaussian_pdf)
    group = ((torch.cumsum(sizes, 0) - sizes) / width).to(torch.int64)
    bounds = [torch.cumsum(torch.bincount(group[of]), 0).tolist() for of in (pdfs, gaussian_pdf)]
    first_frame = first_gaussian = 0
    for frame, gaussian in zip(*bounds, strict=False):
        if frame > first_frame:
            yield slice(first_frame, frame), slice(first_gaussian, gaussian)
        first_frame, first_gaussian = frame, gaussian
