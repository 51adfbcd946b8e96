"""Levels of a recording over time, from which pauses are found.

What is steady is not speech, and does not count (``steady``). Otherwise hum that is louder than speech makes the level
flat, and all of the recording a pause.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lhuc_asr.audio.channels import check_channel, loudest_if_cancelled
from lhuc_asr.audio.decoding import read_blocks
from lhuc_asr.audio.formats import AudioInfo, probe
from lhuc_asr.audio.steady import HALF_WINDOW_SECONDS, without_steady
from lhuc_asr.base.units import FRAME_SHIFT_SECONDS

# Levels that are computed in one block: a minute; fewer at high sample rates and for many channels.
LEVELS_AT_ONCE, VALUES_AT_ONCE = 6_000, 2**23

# The largest value of 8 bits; converters that clip do so at it or above.
FULL_SCALE = 127 / 128

# Levels in half a window. A mirrored tone has a kink at the edges of a block; there the next levels stand for its own.
EDGE = round(HALF_WINDOW_SECONDS / FRAME_SHIFT_SECONDS)


@dataclass(frozen=True, slots=True)
class Levels:
    """Levels of a recording.

    Attributes:
        power: Mean squares of the samples of each 10 ms, full scale is 1, without what is steady, shape (N,), float64.
        seconds: Exact seconds that each covers, since 10 ms may not be a whole number of samples; the last one covers
            the rest.
        channel: Number of the channel that was taken, from 1; None for the mean of all.
        clipped: Share of the samples at full scale, 0 to 1; of all channels where their mean is taken.
    """

    power: np.ndarray
    seconds: float
    channel: int | None
    clipped: float


def levels(path: Path, channel: int | None = None) -> Levels:
    """Levels of a recording of any length, which is read in blocks.

    Args:
        path: A recording.
        channel: Number of the channel to take, from 1; None for the mean of all, or for the loudest channel where the
            channels cancel.

    Raises:
        AudioError: The recording cannot be used, or lacks the channel.
    """
    info = probe(path)
    check_channel(path, info.channels, channel)
    hop = round(FRAME_SHIFT_SECONDS * info.sample_rate)
    if channel is None and info.channels > 1:
        channel = loudest_if_cancelled(read_blocks(path, 0, info.frames, _block(info, hop)), info.sample_rate)
    parts, steady, clipped, count = [], np.zeros(0, dtype=bool), 0, 0
    for block in read_blocks(path, 0, info.frames, _block(info, hop)):
        samples = block.mean(axis=1) if channel is None else block[:, channel - 1]
        taken = block if channel is None else samples
        clipped, count = clipped + int((np.abs(taken) >= FULL_SCALE).sum()), count + taken.size
        changing, steady = without_steady(samples, info.sample_rate, steady)
        power = _mean_squares(changing, hop)
        if steady.any() and len(power) > 2 * EDGE:
            power[:EDGE], power[-EDGE:] = power[EDGE], power[-EDGE - 1]
        parts.append(power)
    return Levels(np.concatenate(parts), hop / info.sample_rate, channel, clipped / count)


def _block(info: AudioInfo, hop: int) -> int:
    return hop * max(1, min(LEVELS_AT_ONCE, VALUES_AT_ONCE // (hop * info.channels)))


def _mean_squares(samples: np.ndarray, hop: int) -> np.ndarray:
    squares = np.square(samples, dtype=np.float64)
    starts = np.arange(0, len(squares), hop)
    means: np.ndarray = np.add.reduceat(squares, starts) / np.diff(np.append(starts, len(squares)))
    return means
