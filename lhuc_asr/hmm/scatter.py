"""Sums of outer products over frames, as one matrix product a piece of frames, added up in float64."""

from __future__ import annotations

import torch

# Number of frames whose outer products are made at once: 861 products of 41 numbers x 500 x 4 bytes stay in the cache.
CACHED_FRAMES = 500


def product_sum(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Sums over the frames of l r^T, in the types of ``weighted_scatter``.

    Args:
        left: Vectors of the frames, shape (T, D).
        right: Other vectors of the frames, shape (T, N).

    Returns:
        Shape (D, N), float64.
    """
    total = torch.zeros(left.shape[1], right.shape[1], dtype=torch.float64)
    for one, other in zip(left.split(CACHED_FRAMES), right.split(CACHED_FRAMES), strict=True):
        total += one.T @ other
    return total


def weighted_scatter(weights: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Sums over the frames of w x x^T, one for each column of weights.

    Products within a piece of ``CACHED_FRAMES`` are in the type of the arguments, sums over pieces in float64.

    Args:
        weights: Weights of the frames, shape (T, D).
        vectors: Vectors of the frames, shape (T, N).

    Returns:
        Symmetric matrices, shape (D, N, N), float64.
    """
    size = vectors.shape[1]
    rows, columns = torch.triu_indices(size, size)
    total = torch.zeros(weights.shape[1], len(rows), dtype=torch.float64)
    products = vectors.new_empty(len(rows), min(CACHED_FRAMES, len(vectors)))
    for weight, part in zip(weights.split(CACHED_FRAMES), vectors.split(CACHED_FRAMES), strict=True):
        # Coordinates along rows: the products of a coordinate with those after it are neighbours in memory.
        coordinates, out = part.T.contiguous(), products[:, : len(part)]
        first = 0
        for row in range(size):
            torch.mul(coordinates[row], coordinates[row:], out=out[first : first + size - row])
            first += size - row
        total += weight.T @ out.T
    scatter = total.new_empty(len(total), size, size)
    scatter[:, rows, columns] = total
    scatter[:, columns, rows] = total
    return scatter
