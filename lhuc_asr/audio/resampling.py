"""Sample rates: resampling, and recordings at other speeds."""

from __future__ import annotations

import math

import numpy as np
import soxr


def resample(samples: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """Samples at another sample rate (soxr, high quality).

    Args:
        samples: Shape (N,).
        rate: Sample rate of ``samples``.
        new_rate: Sample rate of the result, in the same unit.

    Returns:
        N * ``new_rate`` / ``rate`` samples, rounded up, float32; the same array where the rates are equal.
    """
    if rate == new_rate:
        return samples
    resampled: np.ndarray = soxr.resample(samples, rate, new_rate, quality="soxr_hq")
    length = math.ceil(len(samples) * (new_rate / rate))
    # soxr rounds the length to the nearest, so that it lacks a sample at times.
    return np.pad(resampled[:length], (0, max(0, length - len(resampled))))


def change_speed(samples: np.ndarray, speed: float) -> np.ndarray:
    """Play a recording faster or slower: tempo, pitch and formants change together (Ko et al. 2015).

    Args:
        samples: Shape (N,).
        speed: Speed factor, rounded to hundredths; above 1 makes the recording faster and shorter.

    Returns:
        About N / ``speed`` samples, float32; the same array at speed 1.
    """
    # Only the ratio of the two rates matters.
    return resample(samples, round(100 * speed), 100)
