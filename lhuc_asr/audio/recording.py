"""Samples of an utterance: the part of a recording that it names, mixed down, at any sample rate.

A recording that ends before its utterance does is an error, not a shorter utterance.
"""

from __future__ import annotations

import math

import numpy as np
import soundfile

from lhuc_asr.audio.formats import probe
from lhuc_asr.audio.resampling import resample
from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.errors import AudioError
from lhuc_asr.base.units import FRAME_SHIFT_SECONDS, samples_of

# Manifests are written with rounded lengths; less than a frame shift changes at most one frame.
TOLERANCE_SECONDS = FRAME_SHIFT_SECONDS

# Lossy codecs and resampling overshoot full scale a little, and are clipped. A sample at twice full scale (6 dB) is
# not an overshoot: integer samples were stored as floats.
LARGEST_OVERSHOOT = 2.0


def read_audio(utterance: Utterance, sample_rate: int) -> np.ndarray:
    """Samples of one utterance, mixed down to one channel and clipped to full scale.

    Args:
        utterance: A recording and the part of it to read.
        sample_rate: Sample rate of the result, hertz; the recording is resampled if it has another.

    Returns:
        float32 (N,), in [-1, 1), N = seconds * sample_rate up to rounding.

    Raises:
        AudioError: The recording is missing, unreadable, shorter than the utterance, or not finite.
    """
    samples, native_rate = read_native(utterance)
    samples = resample(samples, native_rate, sample_rate)
    return samples.clip(-1.0, np.nextafter(np.float32(1.0), np.float32(0.0)))


def read_native(utterance: Utterance) -> tuple[np.ndarray, int]:
    """Samples of one utterance at the sample rate of its recording: mixed down and checked, not clipped.

    Returns:
        Samples, float32 (N,), and their sample rate in hertz.

    Raises:
        AudioError: The recording is missing, unreadable, shorter than the utterance, or not finite.
    """
    path, start, seconds = utterance.audio, utterance.start, utterance.seconds
    if not (math.isfinite(start) and math.isfinite(seconds) and start >= 0 and seconds > 0):
        raise AudioError(
            f"{path}: utterance {utterance.id} begins at {start} s and lasts {seconds} s; "
            "expected a beginning of 0 or more and a length above 0"
        )
    info = probe(path)
    if start + seconds > info.seconds + TOLERANCE_SECONDS:
        raise AudioError(
            f"{path}: truncated: it lasts {info.seconds:.3f} s, but utterance {utterance.id} ends at "
            f"{start + seconds:.3f} s; fetch the recording again or correct the manifest"
        )
    first = samples_of(start, info.sample_rate)
    count = min(samples_of(start + seconds, info.sample_rate), info.frames) - first
    if count <= 0:
        raise AudioError(f"{path}: utterance {utterance.id} has no samples (it lasts {seconds} s)")
    try:
        channels, _ = soundfile.read(path, start=first, frames=count, dtype="float32", always_2d=True)  # (N, C)
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{path}: damaged or truncated ({error.error_string}); fetch it again") from error
    if len(channels) < count:
        raise AudioError(f"{path}: truncated: {count} samples expected, {len(channels)} found; fetch it again")
    samples = one_channel(channels, utterance.channel)  # (N,)
    peak = float(np.abs(samples).max())
    if not math.isfinite(peak):
        raise AudioError(f"{path}: holds samples that are NaN or infinite; make the recording again")
    if peak > LARGEST_OVERSHOOT:
        raise AudioError(
            f"{path}: samples reach {peak:.0f}, expected at most 1; "
            "integer samples were stored as floats: divide them by full scale (32768 for 16 bits)"
        )
    return samples, info.sample_rate


def one_channel(channels: np.ndarray, channel: int | None) -> np.ndarray:
    """One channel of a recording, or all mixed down.

    Args:
        channels: Samples, shape (N, C).
        channel: Number of the channel, from 1; None mixes all down.

    Returns:
        Shape (N,).
    """
    if channel is not None:
        return channels[:, channel - 1]
    mixed: np.ndarray = channels[:, 0] if channels.shape[1] == 1 else channels.mean(axis=1)
    return mixed
