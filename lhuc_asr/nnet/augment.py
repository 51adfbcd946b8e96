"""SpecAugment for spliced frames (Park et al. 2019): a random band of features is masked in training."""

from __future__ import annotations

import torch

from lhuc_asr.base.errors import ConfigError
from lhuc_asr.base.pairs import torchaudio_beside_torch

with torchaudio_beside_torch():
    from torchaudio.functional import mask_along_axis_iid


def mask_bands(spliced: torch.Tensor, feature_dimension: int, width: int) -> torch.Tensor:
    """Set a random band of features to 0, which is their mean, in the whole context of each frame.

    Args:
        spliced: Shape (B, (2c + 1) D).
        feature_dimension: Number of features per frame, D.
        width: Limit of the band's width: each frame's is drawn from 0 to below this limit. 0 masks nothing.

    Returns:
        A new tensor, shape (B, (2c + 1) D).

    Raises:
        ConfigError: The limit is above D.
    """
    if width == 0:
        return spliced
    if width > feature_dimension:
        raise ConfigError(f"band_mask: expected at most the number of features, {feature_dimension}; found {width}")
    grid = spliced.view(len(spliced), 1, -1, feature_dimension)  # (B, channel, 2c + 1, D)
    masked: torch.Tensor = mask_along_axis_iid(grid, mask_param=width, mask_value=0.0, axis=3)
    return masked.flatten(1)
