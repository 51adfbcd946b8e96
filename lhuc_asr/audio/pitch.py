"""The pitch of a voice, by probabilistic YIN (extra ``pitch``).

librosa is imported where it is used, and nowhere else: its first import takes half a minute where nothing of it is
compiled yet.

Source: Mauch and Dixon, "pYIN: a fundamental frequency estimator using probabilistic threshold distributions", ICASSP
2014; librosa's implementation.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from lhuc_asr.audio.decoding import read_blocks
from lhuc_asr.audio.formats import probe
from lhuc_asr.audio.resampling import resample
from lhuc_asr.base.extras import extra

# Deep voices and children's.
LOWEST_HERTZ, HIGHEST_HERTZ = 60.0, 500.0
# Voices' harmonics that matter are below 8 kHz; a window of 64 ms has four periods of the deepest voice.
SAMPLE_RATE, WINDOW_SAMPLES, HOP_SAMPLES = 16000, 1024, 256
# The path through a block's frames is found at once. Three minutes of a recording settle its median.
BLOCK_SECONDS, MOST_SECONDS = 20, 180


Pyin = Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]]


def load_pyin() -> Pyin:
    """librosa's function, for ``find_pitch``.

    Raises:
        MissingExtraError: librosa is not installed.
    """
    with extra("pitch"):
        from librosa import pyin
    function: Pyin = pyin
    return function


def find_pitch(pyin: Pyin, path: Path, channel: int | None = None) -> np.ndarray:
    """Fundamental frequency of the voiced frames in the first three minutes of a recording.

    Args:
        pyin: What ``load_pyin`` returns.
        path: The recording.
        channel: Number of the channel to take, from 1; None for the mean of all.

    Returns:
        Hertz, float64 (T,), of the frames that are voiced, one each 16 ms; empty where nothing is.

    Raises:
        AudioError: The recording cannot be used.
    """
    info = probe(path)
    voiced = [np.zeros(0)]
    frames = min(info.frames, MOST_SECONDS * info.sample_rate)
    for block in read_blocks(path, 0, frames, BLOCK_SECONDS * info.sample_rate):
        samples = resample(
            block.mean(axis=1) if channel is None else block[:, channel - 1], info.sample_rate, SAMPLE_RATE
        )
        voiced.append(pitch_of(pyin, samples))
    return np.concatenate(voiced)


def pitch_of(pyin: Pyin, samples: np.ndarray) -> np.ndarray:
    """Fundamental frequency of the voiced frames of samples (N,) at ``SAMPLE_RATE``, hertz (T,)."""
    hertz, is_voiced, _ = pyin(
        samples,
        fmin=LOWEST_HERTZ,
        fmax=HIGHEST_HERTZ,
        sr=SAMPLE_RATE,
        frame_length=WINDOW_SAMPLES,
        hop_length=HOP_SAMPLES,
    )
    voiced: np.ndarray = hertz[is_voiced]
    return voiced
