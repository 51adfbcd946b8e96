"""Filterbanks and MFCC whose frequencies are warped, as for vocal tract length normalisation (VTLN).

The warp is Kaldi's (MelBanks::VtlnWarpFreq): the edges of the mel bins are moved by a piecewise linear function,
F(f) = f / warp in the middle, bent below 100 Hz and in the top 500 Hz so that the ends of the band stay. A warp above 1
reads each bin at a lower frequency, which suits a longer vocal tract than the average one. The warped banks are
kaldi-native-fbank's own. An utterance's power spectrum is computed once, whatever the number of warps.

Source: Lee and Rose 1998, "A frequency warping approach to speaker normalization".
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import kaldi_native_fbank as knf
import numpy as np

from lhuc_asr.base.errors import FeatureError
from lhuc_asr.base.units import FRAME_SHIFT_SECONDS
from lhuc_asr.features.filterbank import SAMPLE_SCALE, FeatureConfig, add_deltas, kaldi_options, too_short

# Kaldi's floor of mel energies: digital silence has a logarithm.
ENERGY_FLOOR = np.finfo(np.float32).eps


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
    matrix = _stacked_banks(config, tuple(warps))
    energies = power_spectrum(samples, config) @ matrix
    static = np.log(np.maximum(energies, ENERGY_FLOOR)).reshape(len(energies), len(warps), config.bins)
    if config.kind == "mfcc":
        static = static @ _cosine_transform(config)
    frames, _, width = static.shape
    # The differences of all warps at once: columns by order, warp and static feature.
    columns = add_deltas(static.reshape(frames, -1), config.delta_order)
    ordered = columns.reshape(frames, 1 + config.delta_order, len(warps), width)
    return np.ascontiguousarray(ordered.swapaxes(1, 2)).reshape(frames, len(warps), config.dimension)


def power_spectrum(samples: np.ndarray, config: FeatureConfig) -> np.ndarray:
    """Power spectrum of every frame, as Kaldi computes it before the mel bins.

    Args:
        samples: Samples in [-1, 1) at ``config.sample_rate``, shape (N,).
        config: Kind of features.

    Returns:
        Shape (T, F) for F frequencies from 0 to half the sample rate, float32.

    Raises:
        FeatureError: Fewer samples than one window.
    """
    window = _window(config)
    if len(samples) < len(window):
        raise too_short(samples, config)
    scaled = (samples * SAMPLE_SCALE).astype(np.float32)
    # Kaldi cuts both lengths to whole samples.
    shift = int(config.sample_rate * FRAME_SHIFT_SECONDS)
    frames = np.lib.stride_tricks.sliding_window_view(scaled, len(window))[::shift]
    frames = frames - frames.mean(axis=1, keepdims=True)
    emphasis = np.float32(kaldi_options(config).frame_opts.preemph_coeff)
    # The sample before the first is the first itself.
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    frames = (frames - emphasis * before) * window
    spectrum = np.fft.rfft(frames, 1 << (len(window) - 1).bit_length(), axis=1)
    power: np.ndarray = np.square(spectrum.real) + np.square(spectrum.imag)
    return power


@lru_cache(maxsize=4)
def _window(config: FeatureConfig) -> np.ndarray:
    return np.array(knf.FeatureWindowFunction(kaldi_options(config).frame_opts).window, np.float32)


@lru_cache(maxsize=4)
def _stacked_banks(config: FeatureConfig, warps: tuple[float, ...]) -> np.ndarray:
    """Mel bins of all warps, shape (F, V * bins), float32."""
    return np.ascontiguousarray(np.concatenate([_banks(config, warp) for warp in warps]).T)


def _banks(config: FeatureConfig, warp: float) -> np.ndarray:
    """Mel bins of one warp, shape (bins, F), float32."""
    options: Any = kaldi_options(config)
    try:
        matrix: np.ndarray = knf.MelBanks(options.mel_opts, options.frame_opts, warp).get_matrix()
    except ValueError as error:
        raise FeatureError(f"{config.bins} mel bins at {config.sample_rate} Hz, warp {warp:g}: {error}") from error
    return matrix


@lru_cache(maxsize=4)
def _cosine_transform(config: FeatureConfig) -> np.ndarray:
    """Cosine transform and liftering, from log-mel energies to cepstra, shape (bins, cepstra), float32."""
    order = np.arange(config.cepstra)
    angle = np.pi / config.bins * (np.arange(config.bins)[:, None] + 0.5) * order
    transform = np.sqrt(2.0 / config.bins) * np.cos(angle)
    transform[:, 0] = np.sqrt(1.0 / config.bins)
    lifter = kaldi_options(config).cepstral_lifter
    return np.asarray(transform * (1.0 + 0.5 * lifter * np.sin(np.pi * order / lifter)), np.float32)
