"""Cepstral mean and variance normalisation: the features of each speaker get mean 0 and variance 1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lhuc_asr.base.errors import FeatureError
from lhuc_asr.base.numerics import DEVIATION_FLOOR


@dataclass(frozen=True)
class Cmvn:
    """Mean and standard deviation, shape (D,) each."""

    mean: np.ndarray
    deviation: np.ndarray

    def apply(self, features: np.ndarray) -> np.ndarray:
        """Normalised features, shape (T, D), float32."""
        normalised: np.ndarray = ((features - self.mean) / self.deviation).astype(np.float32)
        return normalised


class CmvnAccumulator:
    """Sums over the frames of a speaker, in float64: float32 loses the variance of long recordings.

    Attributes:
        frames: Number of frames that were added.
    """

    def __init__(self, dimension: int) -> None:
        self.frames = 0
        self._sum = np.zeros(dimension)
        self._square = np.zeros(dimension)

    def add(self, features: np.ndarray) -> None:
        """Add the features of an utterance, shape (T, D)."""
        values = features.astype(np.float64)
        self.frames += len(values)
        self._sum += values.sum(axis=0)
        self._square += np.square(values).sum(axis=0)

    def estimate(self) -> Cmvn:
        """Mean and standard deviation of the speaker.

        Raises:
            FeatureError: No frame was added.
        """
        if self.frames == 0:
            raise FeatureError("no frames to estimate mean and variance from")
        mean = self._sum / self.frames
        variance = np.maximum(self._square / self.frames - np.square(mean), 0.0)
        return Cmvn(mean, np.maximum(np.sqrt(variance), DEVIATION_FLOOR))
