"""Samples of an utterance: the part of a recording that it names, one channel, at any sample rate.

A recording that ends before its utterance does is an error, not a shorter utterance.
"""

from __future__ import annotations

import math

import numpy as np

from lhuc_asr.audio.channels import check_channel, mix_down
from lhuc_asr.audio.decoding import read_blocks
from lhuc_asr.audio.formats import AudioInfo, probe
from lhuc_asr.audio.resampling import resample
from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.errors import AudioError
from lhuc_asr.base.units import FRAME_SHIFT_SECONDS, samples_of

# Manifests are written with rounded lengths; less than a frame shift changes at most one frame.
TOLERANCE_SECONDS = FRAME_SHIFT_SECONDS

# Digital silence is constant, or has a dither of two steps of 16 bits around its mean.
LARGEST_DITHER = 2 / 32768


def read_audio(utterance: Utterance, sample_rate: int) -> np.ndarray:
    """Samples of one utterance, clipped to full scale: of its channel, or the mean of all.

    Args:
        utterance: A recording, and the part and the channel of it to read. Where it names no channel and the channels
            cancel, it is the loudest.
        sample_rate: Sample rate of the result, hertz; the recording is resampled if it has another.

    Returns:
        float32 (N,), in [-1, 1), N = seconds * sample_rate up to rounding.

    Raises:
        AudioError: The recording is missing, unreadable, shorter than the utterance, or not finite, or lacks the
            channel.
    """
    samples, native_rate = read_native(utterance)
    samples = resample(samples, native_rate, sample_rate)
    return samples.clip(-1.0, np.nextafter(np.float32(1.0), np.float32(0.0)))


def read_native(utterance: Utterance) -> tuple[np.ndarray, int]:
    """Samples of one utterance at the sample rate of its recording: one channel, checked, not clipped.

    Args:
        utterance: As in ``read_audio``.

    Returns:
        Samples, float32 (N,), and their sample rate in hertz.

    Raises:
        AudioError: As in ``read_audio``.
    """
    samples, info = read_channels(utterance)
    return mix_down(samples, info.sample_rate, utterance.channel)[0], info.sample_rate


def read_channels(utterance: Utterance) -> tuple[np.ndarray, AudioInfo]:
    """Samples of all channels of one utterance at the sample rate of its recording, checked, not clipped.

    Returns:
        Samples, float32 (N, C), and the header of the recording.

    Raises:
        AudioError: The recording is missing, unreadable, shorter than the utterance, or not finite, or lacks its
            channel.
    """
    path, start, seconds = utterance.audio, utterance.start, utterance.seconds
    if not (math.isfinite(start) and math.isfinite(seconds) and start >= 0 and seconds > 0):
        raise AudioError(
            f"{path}: utterance {utterance.id} begins at {start} s and lasts {seconds} s; "
            "expected a beginning of 0 or more and a length above 0"
        )
    info = probe(path)
    check_channel(path, info.channels, utterance.channel)
    if start + seconds > info.seconds + TOLERANCE_SECONDS:
        raise AudioError(
            f"{path}: truncated: it lasts {info.seconds:.3f} s, but utterance {utterance.id} ends at "
            f"{start + seconds:.3f} s; fetch the recording again or correct the manifest"
        )
    first = samples_of(start, info.sample_rate)
    count = min(samples_of(start + seconds, info.sample_rate), info.frames) - first
    if count <= 0:
        raise AudioError(f"{path}: utterance {utterance.id} has no samples (it lasts {seconds} s)")
    samples = np.concatenate(list(read_blocks(path, first, count)))  # (N, C)
    return samples, info


def is_silent(samples: np.ndarray) -> bool:
    """Whether samples are digital silence: all the same value, or a dither around one.

    Args:
        samples: Shape (N,), full scale is 1.
    """
    return float(np.abs(samples - samples.mean(dtype=np.float64)).max()) <= LARGEST_DITHER
