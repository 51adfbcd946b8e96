"""Sound as it comes: the samples of the piece that is being said, its features, and how loud it was.

Levels are those of ``audio/levels.py``, without what is steady, as far as it is known by then: a frequency is steady if
it was so in the last seconds. All is computed in steps of fixed times, so that nothing depends on how the sound is
cut into blocks.

Frames are counted from the start of the piece. A frame is 10 ms; its features are of a window of 25 ms.
"""

from __future__ import annotations

import numpy as np

from lhuc_asr.audio.steady import HALF_WINDOW_SECONDS, STEADY_SECONDS, without_steady
from lhuc_asr.base.errors import AudioError
from lhuc_asr.base.units import FRAME_LENGTH_SECONDS, FRAME_SHIFT_SECONDS, samples_of
from lhuc_asr.features.filterbank import FeatureConfig, compute_features
from lhuc_asr.recognizer.pauses import has_speech, quietest

# Levels are computed for so many frames at a time.
LEVEL_FRAMES = 5
# What is steady is looked for every second, in the last seconds.
STEADY_EVERY_FRAMES, STEADY_FRAMES = 100, round((STEADY_SECONDS + 1.0) / FRAME_SHIFT_SECONDS)
# Earlier frames that tell what is silence. After a louder noise has ended, a tenth of them is enough to know it.
EARLIER_FRAMES = 1000
# Louder samples are not sound on a scale of 1.
LARGEST_SAMPLE = 100.0


def as_samples(values: object) -> np.ndarray:
    """Samples on a scale of 1, shape (N,), float32, of floats or of integers of 16 or 32 bits.

    Raises:
        AudioError: They are of another kind or shape, not finite, or far above full scale.
    """
    samples = np.asarray(values)
    if samples.ndim != 1 or samples.dtype.name not in ("float32", "float64", "int16", "int32"):
        raise AudioError(
            f"samples of shape {samples.shape} and type {samples.dtype}: expected one channel (N,) of float32, "
            "float64, int16 or int32"
        )
    if samples.dtype.kind == "i":
        return (samples / -float(np.iinfo(samples.dtype).min)).astype(np.float32)
    if not (np.abs(samples) <= LARGEST_SAMPLE).all():  # not so for NaN
        raise AudioError(f"samples that are not finite, or beyond {LARGEST_SAMPLE:g}: full scale is 1")
    return samples.astype(np.float32)


class LiveSound:
    """The sound of one piece after the other.

    Args:
        features: Options of the features.
    """

    def __init__(self, features: FeatureConfig) -> None:
        self._config = features
        self._shift = int(features.sample_rate * FRAME_SHIFT_SECONDS)
        self._window = samples_of(FRAME_LENGTH_SECONDS, features.sample_rate)
        self._half = round(HALF_WINDOW_SECONDS * features.sample_rate)
        # All samples from ``_base`` on; the piece begins at the frame ``_begin``. Both count from the first sample.
        self._samples, self._base, self._begin = np.zeros(0, np.float32), 0, 0
        # Levels of the frames from ``_first_level`` on.
        self._levels, self._first_level = np.zeros(0), 0
        self._steady, self._next_steady = np.zeros(0, dtype=bool), STEADY_EVERY_FRAMES

    def add(self, samples: np.ndarray) -> None:
        """Add samples, as ``as_samples`` gives them."""
        self._samples = np.concatenate([self._samples, samples])
        while self._level(self._half):
            pass

    def end(self) -> None:
        """Nothing comes after these samples for now: levels are known to their end."""
        while self._level(0):
            pass

    @property
    def seconds(self) -> float:
        """When the piece begins, since the first sample."""
        return self._begin * self._shift / self._config.sample_rate

    @property
    def frames(self) -> int:
        """Number of frames of the piece whose windows are there."""
        samples = self._base + len(self._samples) - self._begin * self._shift
        return 0 if samples < self._window else 1 + (samples - self._window) // self._shift

    @property
    def known_frames(self) -> int:
        """Number of frames of the piece whose levels are known."""
        return max(0, self._first_level + len(self._levels) - self._begin)

    def features(self, first: int, end: int) -> np.ndarray:
        """Features of some frames as if it were they alone, not normalised, shape (end - first, D)."""
        start = (self._begin + first) * self._shift - self._base
        return compute_features(
            self._samples[start : start + (end - first - 1) * self._shift + self._window], self._config
        )

    def spoken(self, first: int, end: int) -> bool:
        """Whether some frames, whose levels are known, hold more than silence and steady noise."""
        if first == end:
            return False
        level = self._levels[: self._begin + end - self._first_level]
        start = self._begin + first - self._first_level
        level, start = level[max(0, start - EARLIER_FRAMES) :], min(start, EARLIER_FRAMES)
        return has_speech(level, [(0, len(level)), (start, len(level))])[-1]

    def quietest(self, first: int, end: int) -> int:
        """The quietest of some frames."""
        start = self._begin - self._first_level
        return first + quietest(self._levels[start + first : start + end])

    def forget(self, frames: int) -> None:
        """Let the piece begin so many frames later."""
        self._begin += frames
        kept = self._begin - max(STEADY_FRAMES, EARLIER_FRAMES)
        if (gone := kept * self._shift - self._base) > 0:
            self._samples, self._base = self._samples[gone:], kept * self._shift
        if (gone := kept - self._first_level) > 0:
            self._levels, self._first_level = self._levels[gone:], kept

    def begin_anew(self) -> None:
        """Let the next piece begin with the next sample."""
        end = self._base + len(self._samples)
        missing = -end % self._shift
        self._samples = np.concatenate([self._samples, np.zeros(missing, np.float32)])
        self.end()
        self.forget((end + missing) // self._shift - self._begin)

    def _level(self, context: int) -> bool:
        """Compute the levels of the next frames, if their samples and so many after them are there."""
        first = self._first_level + len(self._levels)
        there = (self._base + len(self._samples) - context) // self._shift
        count = min(LEVEL_FRAMES, there - first)
        if count < LEVEL_FRAMES and (context or count <= 0):
            return False
        if first >= self._next_steady:
            self._find_steady(first)
            self._next_steady = first + STEADY_EVERY_FRAMES
        start = first * self._shift - self._base
        before = min(self._half, start)
        part = self._samples[start - before : start + count * self._shift + context]
        changing = without_steady(part, self._config.sample_rate, self._steady)[0][before:]
        squares = np.square(changing[: count * self._shift].astype(np.float64))
        self._levels = np.concatenate([self._levels, squares.reshape(count, -1).mean(axis=1)])
        return True

    def _find_steady(self, frame: int) -> None:
        """Find what is steady in the seconds before a frame, if there are enough."""
        end = frame * self._shift - self._base
        recent = self._samples[max(0, end - STEADY_FRAMES * self._shift) : end]
        if len(recent) >= STEADY_SECONDS * self._config.sample_rate:
            _, self._steady = without_steady(recent, self._config.sample_rate, self._steady)
