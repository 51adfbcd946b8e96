"""One channel of several: the mean of all, the one that is asked for, or the loudest where the mean loses the sound.

The mean of two channels in opposite phase, as a swapped wire makes them, is silence.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lhuc_asr.base.errors import AudioError

# The mean of C channels that have nothing in common keeps 1/C of their mean power. Below a quarter of that they cancel.
LEAST_KEPT = 0.25


def cancelled(power_of_mean: float, powers: np.ndarray) -> bool:
    """Whether the mean of the channels has lost their sound.

    Args:
        power_of_mean: Power of the mean of all channels, without its DC offset.
        powers: Power of each channel likewise, shape (C,).

    Example:
        >>> cancelled(0.5, np.array([1.0, 1.0])), cancelled(0.01, np.array([1.0, 1.0]))
        (False, True)
    """
    return power_of_mean * len(powers) < LEAST_KEPT * float(powers.mean())


def mix_down(samples: np.ndarray, channel: int | None = None) -> tuple[np.ndarray, int | None]:
    """One channel of a recording.

    Args:
        samples: float32 (N, C).
        channel: Number of the channel to take, from 1 to C; None for the mean of all, or for the loudest channel where
            the mean loses the sound.

    Returns:
        Samples, float32 (N,), and the number of the channel that was taken; None for the mean.
    """
    if channel is None and samples.shape[1] > 1:
        mean = samples.mean(axis=1)
        powers = samples.var(axis=0, dtype=np.float64)
        if not cancelled(float(mean.var(dtype=np.float64)), powers):
            return mean, None
        channel = 1 + int(powers.argmax())
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
