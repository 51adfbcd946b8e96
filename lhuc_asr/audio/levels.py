"""Levels of a recording over time, from which pauses are found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from lhuc_asr.audio.recording import one_channel
from lhuc_asr.base.errors import AudioError
from lhuc_asr.base.units import FRAME_SHIFT_SECONDS

# Levels that are computed in one block: ten minutes, 38 MB at 16 kHz.
LEVELS_AT_ONCE = 60_000


def levels(path: Path, channel: int | None = None) -> tuple[np.ndarray, float]:
    """Power of a recording in each 10 ms. A recording of any length is read in blocks.

    Args:
        path: A recording that ``probe`` accepts.
        channel: Number of the channel to take, from 1; None mixes all down.

    Returns:
        Mean squares of the samples, mixed down to one channel with full scale 1, shape (N,), float64, and the exact
        seconds that each covers, since 10 ms may not be a whole number of samples. The last one covers the rest.

    Raises:
        AudioError: The recording is damaged.
    """
    try:
        with soundfile.SoundFile(path) as file:
            hop = round(FRAME_SHIFT_SECONDS * file.samplerate)
            blocks = file.blocks(blocksize=hop * LEVELS_AT_ONCE, dtype="float32", always_2d=True)
            parts = [_mean_squares(one_channel(block, channel), hop) for block in blocks]
            return np.concatenate(parts), hop / file.samplerate
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{path}: damaged or truncated ({error.error_string}); fetch it again") from error


def _mean_squares(samples: np.ndarray, hop: int) -> np.ndarray:
    squares = np.square(samples, dtype=np.float64)
    starts = np.arange(0, len(squares), hop)
    means: np.ndarray = np.add.reduceat(squares, starts) / np.diff(np.append(starts, len(squares)))
    return means
