"""SpecAugment for spliced frames (Park et al. 2019): a random band of features is masked in training."""

from __future__ import annotations

import torch


def mask_bands(
    spliced: torch.Tensor, feature_dimension: int, width: int, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Set a random band of features to 0, which is their mean, in the whole context of each frame.

    Args:
        spliced: Shape (B, (2c + 1) D).
        feature_dimension: Number of features per frame, D.
        width: Limit of the band's width: each frame's is drawn from 0 to below this limit. 0 masks nothing.
        generator: Generator that bands are drawn from, on the device of ``spliced``; None for torch's own.

    Returns:
        A new tensor, shape (B, (2c + 1) D).
    """
    if width == 0:
        return spliced
    drawn = torch.rand(2, len(spliced), 1, generator=generator, device=spliced.device)
    widths = width * drawn[0]
    start = (drawn[1] * (feature_dimension - widths)).long()
    bins = torch.arange(feature_dimension, device=spliced.device)
    masked = (bins >= start) & (bins < start + widths.long())  # (B, D)
    grid = spliced.view(len(spliced), -1, feature_dimension)
    return grid.masked_fill(masked.unsqueeze(1), 0.0).flatten(1)
