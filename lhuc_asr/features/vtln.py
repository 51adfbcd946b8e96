"""Filterbanks and MFCC whose frequencies are warped, as for vocal tract length normalisation (VTLN).

The warp is Kaldi's (MelBanks::VtlnWarpFreq): the edges of the mel bins are moved by a piecewise linear function,
F(f) = f / warp in the middle, bent below 100 Hz and in the top 500 Hz so that the ends of the band stay. A warp above 1
reads each bin at a lower frequency, which suits a longer vocal tract than the average one. An
utterance's power spectrum is computed once, whatever the number of warps.

Source: Lee and Rose 1998, "A frequency warping approach to speaker normalization".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lhuc_asr.features.filterbank import FeatureConfig, add_deltas, static_features


def warped_features(samples: np.ndarray, config: FeatureConfig, warps: Sequence[float]) -> np.ndarray:
    """Features of one utterance at several warps.

    Args:
        samples: Samples in [-1, 1) at ``config.sample_rate``, shape (N,).
        config: Kind of features.
        warps: Warps; 1 gives ``filterbank.compute_features``, up to rounding.

    Returns:
        Shape (T, V, D) for V warps, float32.

    Raises:
        FeatureError: Fewer samples than one window, or a warp leaves a mel bin empty.
    """
    static = static_features(samples, config, tuple(warps))
    frames, _, width = static.shape
    # The differences of all warps at once: columns by order, warp and static feature.
    columns = add_deltas(static.reshape(frames, -1), config.delta_order)
    ordered = columns.reshape(frames, 1 + config.delta_order, len(warps), width)
    return np.ascontiguousarray(ordered.swapaxes(1, 2)).reshape(frames, len(warps), config.dimension)
