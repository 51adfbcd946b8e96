"""Sample rates: resampling, the common rate of a corpus, recordings at other speeds."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import soxr

from lhuc_asr.audio.formats import probe
from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.errors import CorpusError


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


def resolve_sample_rate(utterances: Iterable[Utterance]) -> int:
    """The common sample rate of a corpus: the lowest among its recordings.

    Resampling to a higher rate would leave the upper filters without energy in some recordings only, and a network
    would learn to tell recordings apart by that.

    Raises:
        AudioError: A recording cannot be opened.
        CorpusError: There are no utterances.
    """
    recordings = {utterance.audio for utterance in utterances}
    if not recordings:
        raise CorpusError("no utterances, so the sample rate is unknown; give at least one recording")
    return min(probe(path).sample_rate for path in sorted(recordings))
