"""SpecAugment for spliced frames (Park et al. 2019): a random band of features is masked in training."""

from __future__ import annotations

import torch

from lhuc_asr.base.errors import ConfigError
from lhuc_asr.base.pairs import torchaudio_beside_torch
from lhuc_asr.features.context import Splicing

with torchaudio_beside_torch():
    from torchaudio.functional import mask_along_axis_iid


def mask_bands(spliced: torch.Tensor, splicing: Splicing, width: int) -> torch.Tensor:
    """Set a random band of features to 0, which is their mean, in the whole context of each frame.

    A vector of the speaker is not masked.

    Args:
        spliced: Shape (B, w D + R).
        splicing: What the frames were spliced by.
        width: Limit of the band's width: each frame's is drawn from 0 to below this limit. 0 masks nothing.

    Returns:
        A tensor of the same shape.

    Raises:
        ConfigError: The limit is above D.
    """
    if width == 0:
        return spliced
    if width > splicing.dimension:
        raise ConfigError(f"band_mask: expected at most the number of features, {splicing.dimension}; found {width}")
    windows, vectors = spliced.split([splicing.window, splicing.vector], dim=1)
    grid = windows.unflatten(1, (1, -1, splicing.dimension))  # (B, channel, w, D)
    masked: torch.Tensor = mask_along_axis_iid(grid, mask_param=width, mask_value=0.0, axis=3)
    return torch.cat([masked.flatten(1), vectors], dim=1) if splicing.vector else masked.flatten(1)
