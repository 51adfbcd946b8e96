"""Levels of a recording over time, from which pauses are found.

What is steady is not speech, and does not count: a DC offset, whatever is below the lowest voice, and each frequency
whose power hardly changes for seconds, as those of mains hum and its harmonics or of a whistle. Otherwise hum that is
louder than speech makes the level flat, and all of the recording a pause.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lhuc_asr.audio.channels import cancelled, check_channel
from lhuc_asr.audio.decoding import read_blocks
from lhuc_asr.audio.formats import AudioInfo, probe
from lhuc_asr.base.units import FRAME_SHIFT_SECONDS

# Levels that are computed in one block: a minute; fewer at high sample rates and for many channels.
LEVELS_AT_ONCE, VALUES_AT_ONCE = 6_000, 2**23

# Half of the window of the spectra; the whole window tells frequencies apart that are 50 Hz apart.
HALF_WINDOW_SECONDS = 0.040

# Levels in half a window. A mirrored tone has a kink at the edges of a block; there the next levels stand for its own.
EDGE = round(HALF_WINDOW_SECONDS / FRAME_SHIFT_SECONDS)

# Mains hum has 50 or 60 Hz; the window spreads it by 25 Hz. Voices keep their harmonics.
LOWEST_HERTZ = 100.0

# A frequency is steady where its quietest tenth has more than this part of its mean power. Noise has 0.1 (a tenth of
# exponential values is below 0.105 times their mean), speech less.
QUIET_TENTH, STEADY_PART = 0.1, 0.3

# A vowel may be steady for a second or two; nobody holds it for so long.
STEADY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Levels:
    """Levels of a recording.

    Attributes:
        power: Mean squares of the samples of each 10 ms, full scale is 1, without what is steady, shape (N,), float64.
        seconds: Exact seconds that each covers, since 10 ms may not be a whole number of samples; the last one covers
            the rest.
        channel: Number of the channel that was taken, from 1; None for the mean of all.
    """

    power: np.ndarray
    seconds: float
    channel: int | None


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
    if channel is None and info.channels > 1:
        channel = _loudest_if_cancelled(path, info)
    hop = round(FRAME_SHIFT_SECONDS * info.sample_rate)
    parts, steady = [], np.zeros(0, dtype=bool)
    for block in read_blocks(path, 0, info.frames, _block(info, hop)):
        samples = block.mean(axis=1) if channel is None else block[:, channel - 1]
        changing, steady = _without_steady(samples, info.sample_rate, steady)
        power = _mean_squares(changing, hop)
        if steady.any() and len(power) > 2 * EDGE:
            power[:EDGE], power[-EDGE:] = power[EDGE], power[-EDGE - 1]
        parts.append(power)
    return Levels(np.concatenate(parts), hop / info.sample_rate, channel)


def _block(info: AudioInfo, hop: int) -> int:
    return hop * max(1, min(LEVELS_AT_ONCE, VALUES_AT_ONCE // (hop * info.channels)))


def _loudest_if_cancelled(path: Path, info: AudioInfo) -> int | None:
    """The number of the loudest channel where the mean of all loses the sound of the recording; None elsewhere."""
    of_mean, of_each = 0.0, np.zeros(info.channels)
    for block in read_blocks(path, 0, info.frames):
        of_mean += len(block) * float(block.mean(axis=1).var(dtype=np.float64))
        of_each += len(block) * block.var(axis=0, dtype=np.float64)
    return 1 + int(of_each.argmax()) if cancelled(of_mean, of_each) else None


def _without_steady(samples: np.ndarray, sample_rate: int, steady: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Samples without the frequencies that are steady, and which those are.

    The windows add up to 1 and overlap by half, so that samples of which nothing is taken out stay as they are.

    Args:
        samples: Shape (N,).
        sample_rate: Sample rate, hertz.
        steady: Whether each frequency of the spectrum was steady before, for samples too short to tell, shape (F,);
            empty at the beginning.
    """
    half = round(HALF_WINDOW_SECONDS * sample_rate)
    window = np.hanning(2 * half + 1)[:-1].astype(np.float32)
    # Edges are mirrored: a constant that begins there would be a click.
    padded = np.pad(samples, (half, half + -len(samples) % half), mode="symmetric")
    spectra = np.fft.rfft(np.lib.stride_tricks.sliding_window_view(padded, 2 * half)[::half] * window)
    if len(samples) >= STEADY_SECONDS * sample_rate:
        power = np.square(np.abs(spectra))
        steady = np.quantile(power, QUIET_TENTH, axis=0) > STEADY_PART * power.mean(axis=0)
    spectra[:, np.fft.rfftfreq(2 * half, 1 / sample_rate) < LOWEST_HERTZ] = 0.0
    spectra[:, np.flatnonzero(steady)] = 0.0
    frames = np.fft.irfft(spectra, 2 * half)  # (windows, 2 * half)
    changing: np.ndarray = (frames[:-1, half:] + frames[1:, :half]).reshape(-1)[: len(samples)]
    return changing, steady


def _mean_squares(samples: np.ndarray, hop: int) -> np.ndarray:
    squares = np.square(samples, dtype=np.float64)
    starts = np.arange(0, len(squares), hop)
    means: np.ndarray = np.add.reduceat(squares, starts) / np.diff(np.append(starts, len(squares)))
    return means
