"""Sample rates: resampling, and recordings at other speeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

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


def resample_blocks(blocks: Iterable[np.ndarray], rate: int, new_rate: int) -> Iterator[np.ndarray]:
    """A recording at another sample rate, block by block, for recordings that are too long for the memory.

    Args:
        blocks: Parts of the recording, one after the other, float32, shape (N,) each.
        rate: Sample rate of ``blocks``.
        new_rate: Sample rate of the result, in the same unit.

    Yields:
        Blocks of float32 samples; together they are what ``resample`` gives for the whole, but for rounding and the
        last sample or two. The blocks as they are where the rates are equal.
    """
    stream = ResamplingStream(rate, new_rate)
    for block in blocks:
        yield stream.take(block)
    yield stream.rest()


class ResamplingStream:
    """Sound that comes block by block, at another sample rate (soxr, high quality).

    Args:
        rate: Sample rate of the blocks.
        new_rate: Sample rate of the result, in the same unit.
    """

    def __init__(self, rate: int, new_rate: int) -> None:
        self._stream = None
        if rate != new_rate:
            self._stream = soxr.ResampleStream(rate, new_rate, 1, dtype="float32", quality="soxr_hq")

    def take(self, block: np.ndarray) -> np.ndarray:
        """The samples that a block, float32 (N,), completes; the same array where the rates are equal."""
        return block if self._stream is None else self._stream.resample_chunk(block)

    def rest(self) -> np.ndarray:
        """The samples after the last block, float32; nothing may be taken afterwards."""
        nothing = np.zeros(0, dtype=np.float32)
        return nothing if self._stream is None else self._stream.resample_chunk(nothing, last=True)


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
