"""One channel of several: the mean of all, the one that is asked for, or the loudest where the mean loses the sound.

The mean of two channels in opposite phase, as a swapped wire makes them, is silence. What is steady does not count,
because hum is often in both channels alike, and is kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from lhuc_asr.audio.steady import HALF_WINDOW_SECONDS, without_steady
from lhuc_asr.base.errors import AudioError

# The mean of C channels that have nothing in common keeps 1/C of their mean power. Below a quarter of that they cancel.
LEAST_KEPT = 0.25

# Mean squares of less than -120 dB are what rounding leaves of a steady sound.
ROUNDING = 1e-12

# Part of a recording that is looked at in one go.
BLOCK_SECONDS = 60


def cancelled(power_of_mean: float, powers: np.ndarray) -> bool:
    """Whether the mean of the channels has lost their sound.

    Args:
        power_of_mean: Power of the mean of all channels, without what is steady.
        powers: Power of each channel likewise, shape (C,).

    Example:
        >>> cancelled(0.5, np.array([1.0, 1.0])), cancelled(0.01, np.array([1.0, 1.0]))
        (False, True)
    """
    return power_of_mean * len(powers) < LEAST_KEPT * float(powers.mean())


def loudest_if_cancelled(blocks: Iterable[np.ndarray], sample_rate: int) -> int | None:
    """The number of the loudest channel where the mean of all loses the sound of a recording; None elsewhere.

    Args:
        blocks: Parts of the recording, one after the other, float32 (N, C).
        sample_rate: Sample rate, hertz.
    """
    edge = round(HALF_WINDOW_SECONDS * sample_rate)
    powers: list[float] = []  # of the mean, and of each channel
    steady: list[np.ndarray] = []
    count = 0
    for block in blocks:
        count += len(block)
        columns = [block.mean(axis=1), *block.T]
        powers = powers or [0.0] * len(columns)
        steady = steady or [np.zeros(0, dtype=bool)] * len(columns)
        for index, samples in enumerate(columns):
            changing, steady[index] = without_steady(samples, sample_rate, steady[index])
            if len(changing) > 2 * edge:  # a mirrored tone has a kink there
                changing = changing[edge:-edge]
            powers[index] += float(np.square(changing, dtype=np.float64).sum())
    each = np.array(powers[1:])
    nothing = not powers or each.max() < ROUNDING * count
    return None if nothing or not cancelled(powers[0], each) else 1 + int(each.argmax())


def mix_down(samples: np.ndarray, sample_rate: int, channel: int | None = None) -> tuple[np.ndarray, int | None]:
    """One channel of a recording.

    Args:
        samples: float32 (N, C).
        sample_rate: Sample rate, hertz.
        channel: Number of the channel to take, from 1 to C; None for the mean of all, or for the loudest channel where
            the mean loses the sound.

    Returns:
        Samples, float32 (N,), and the number of the channel that was taken; None for the mean.
    """
    if channel is None and samples.shape[1] > 1:
        step = BLOCK_SECONDS * sample_rate
        blocks = (samples[first : first + step] for first in range(0, len(samples), step))
        channel = loudest_if_cancelled(blocks, sample_rate)
        if channel is None:
            return samples.mean(axis=1), None
    return samples[:, (channel or 1) - 1], channel


def check_channel(path: Path, channels: int, channel: int | None) -> None:
    """Raise an error unless a recording has a channel.

    Args:
        path: The recording.
        channels: Number of its channels.
        channel: Number of the channel that is asked for, from 1; None for none.

    Raises:
        AudioError: The recording lacks the channel.
    """
    if channel is not None and not 1 <= channel <= channels:
        raise AudioError(f"{path}: channel {channel} was asked for, expected 1 to {channels}")
