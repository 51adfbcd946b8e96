"""Synthetic speech of vocal tracts of any length: noise through the formants of random phones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lhuc_asr.base.units import samples_of

RATE = 16_000
PHONES, PHONE_FRAMES = 8, 12


@dataclass(frozen=True)
class AlignedRecording:
    """A recording, and the phone and weight of each of its frames."""

    samples: np.ndarray
    pdfs: np.ndarray
    weights: np.ndarray


def spoken(factor: float, seed: int, phones: int = 40) -> AlignedRecording:
    """Noise through the formants of random phones, all frequencies times ``factor``, as of a shorter vocal tract."""
    formants = np.random.default_rng(99).uniform([250, 800, 2000], [900, 2200, 3800], (PHONES, 3))
    generator = np.random.default_rng(seed)
    length = samples_of(0.01 * PHONE_FRAMES, RATE)
    hertz = np.fft.rfftfreq(length, 1 / RATE)
    chosen = generator.integers(0, PHONES, phones)
    pieces = []
    for phone in chosen:
        distance = (hertz[:, None] / factor - formants[phone]) / (60 + 0.06 * formants[phone])
        envelope = 0.01 + (1 / (1 + distance**2)).sum(axis=1)
        pieces.append(np.fft.irfft(np.fft.rfft(generator.standard_normal(length)) * envelope, length))
    samples = np.concatenate(pieces)
    samples = (0.1 * samples / samples.std()).astype(np.float32)
    frames = 1 + (len(samples) - samples_of(0.025, RATE)) // samples_of(0.01, RATE)
    return AlignedRecording(samples, np.repeat(chosen, PHONE_FRAMES)[:frames], np.ones(frames, np.float32))
