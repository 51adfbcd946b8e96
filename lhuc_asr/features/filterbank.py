"""Log-mel filterbanks and MFCC with Kaldi's definitions; the window and the mel bins are kaldi-native-fbank's.

Frames are 25 ms long and 10 ms apart, with the Povey window and pre-emphasis 0.97. There is no dither, so that the
same recording gives the same bits. What dither does for digital silence a floor does: a mel energy is at least that of
16-bit quantization noise. Without it, pauses that an editor or a codec has muted have energies far below any that a
network was trained on, and a speaker's mean and variance are those of his muted pauses.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, Literal, Self

import kaldi_native_fbank as knf
import numpy as np
from pydantic import Field, model_validator

from lhuc_asr.base.config import StrictModel, parse_config
from lhuc_asr.base.errors import FeatureError
from lhuc_asr.base.units import FRAME_LENGTH_SECONDS, FRAME_SHIFT_SECONDS

# Kaldi's features are defined on 16-bit sample values.
SAMPLE_SCALE = 32768.0

# Number of frames whose spectra are computed at a time; they stay in the cache, and the memory is bounded.
BLOCK = 512

# Limits in hertz, and the rate of a recipe that does not name one.
LOWEST_RATE, HIGHEST_RATE, USUAL_RATE = 8000, 48000, 16000
SampleRate = Annotated[int, Field(ge=LOWEST_RATE, le=HIGHEST_RATE)]


class FeatureShape(StrictModel):
    """Kind of features, at any sample rate.

    Attributes:
        kind: ``fbank`` (log-mel energies) or ``mfcc``.
        bins: Number of mel bins between 20 Hz and half the sample rate.
        cepstra: Number of cepstral coefficients, including C0 (``mfcc`` only).
        delta_order: Order of the differences: 0 has none, 1 adds first, 2 adds second differences too.
    """

    kind: Literal["fbank", "mfcc"] = "fbank"
    bins: int = Field(40, ge=10, le=128)
    cepstra: int = Field(13, ge=2, le=60)
    delta_order: int = Field(0, ge=0, le=2)

    @property
    def dimension(self) -> int:
        """Number of features per frame, D."""
        static = self.bins if self.kind == "fbank" else self.cepstra
        return static * (1 + self.delta_order)


class FeatureConfig(FeatureShape):
    """Kind of features at one sample rate.

    Attributes:
        sample_rate: Sample rate, hertz; recordings with other rates are resampled.
    """

    sample_rate: SampleRate = USUAL_RATE

    @model_validator(mode="after")
    def _computable(self) -> Self:
        described = f"{self.bins} mel bins at {self.sample_rate} Hz"
        if self.kind == "mfcc" and self.cepstra > self.bins:
            raise ValueError(f"{described}, {self.cepstra} cepstra: expected at most as many cepstra as bins")
        try:
            _mel_banks(self, 1.0)
        except ValueError as error:
            raise ValueError(f"{described}: {error}") from error
        return self


class RecipeFeatures(FeatureShape):
    """Kind of features in a recipe, which may leave their sample rate to the recordings.

    Attributes:
        sample_rate: Sample rate, hertz; None for the lowest rate of the recordings, and at most 16,000.
    """

    sample_rate: SampleRate | None = None

    @model_validator(mode="after")
    def _computable(self) -> Self:
        self._at(self.sample_rate or USUAL_RATE)
        return self

    def with_rate(self, sample_rate: int) -> Self:
        """The features at a sample rate.

        Raises:
            ConfigError: The rate is beyond the limits, or there are too many bins for it.
        """
        return parse_config(type(self), self.model_dump() | {"sample_rate": sample_rate}, "features")

    @property
    def resolved(self) -> FeatureConfig:
        """The features at their sample rate.

        Raises:
            ValueError: The rate is left to the recordings, which have not been read.
        """
        if self.sample_rate is None:
            raise ValueError("the features have no sample rate before the recordings are read")
        return self._at(self.sample_rate)

    def _at(self, sample_rate: int) -> FeatureConfig:
        return FeatureConfig.model_validate(self.model_dump() | {"sample_rate": sample_rate})


def compute_features(samples: np.ndarray, config: FeatureConfig) -> np.ndarray:
    """Features of one utterance.

    Args:
        samples: Samples in [-1, 1) at ``config.sample_rate``, shape (N,).
        config: Kind of features.

    Returns:
        Shape (T, D), float32, T by ``base.units.frames_of``.

    Raises:
        FeatureError: Fewer samples than one window.
    """
    return add_deltas(static_features(samples, config)[:, 0], config.delta_order)


def static_features(samples: np.ndarray, config: FeatureConfig, warps: tuple[float, ...] = (1.0,)) -> np.ndarray:
    """Features of one utterance without differences, at one or several warps of the mel bins (``features/vtln.py``).

    Returns:
        Shape (T, V, static D) for V warps, float32.

    Raises:
        FeatureError: Fewer samples than one window, or a warp leaves a mel bin empty.
    """
    window = _window(config)
    if len(samples) < len(window):
        raise too_short(samples, config)
    scaled = (samples * SAMPLE_SCALE).astype(np.float32)
    # Kaldi cuts both lengths to whole samples.
    shift = int(config.sample_rate * FRAME_SHIFT_SECONDS)
    frames = np.lib.stride_tricks.sliding_window_view(scaled, len(window))[::shift]
    banks, floor = _banks(config, warps), _floor(config, warps)
    log_mel = np.empty((len(frames), floor.size), np.float32)
    for start in range(0, len(frames), BLOCK):
        energies = _power(frames[start : start + BLOCK], config) @ banks
        np.log(np.maximum(energies, floor), out=log_mel[start : start + BLOCK])
    static = log_mel.reshape(len(frames), len(warps), config.bins)
    return static @ _cosine_transform(config) if config.kind == "mfcc" else static


def too_short(samples: np.ndarray, config: FeatureConfig) -> FeatureError:
    """The error of an utterance without a frame."""
    return FeatureError(
        f"{len(samples)} samples at {config.sample_rate} Hz are less than one window of "
        f"{1000 * FRAME_LENGTH_SECONDS:g} ms"
    )


def add_deltas(features: np.ndarray, order: int) -> np.ndarray:
    """Append differences over two frames on either side (HTK, Kaldi): d_t = sum_n n (x_{t+n} - x_{t-n}) / 10.

    Args:
        features: Features, shape (T, D).
        order: Order of the differences: 0, 1 or 2.

    Returns:
        Shape (T, D * (1 + order)), float32.
    """
    if order == 0:
        return np.ascontiguousarray(features, dtype=np.float32)
    options = knf.DeltaOptions()
    options.order, options.window = order, 2
    return np.ascontiguousarray(knf.compute_deltas(options, features), dtype=np.float32)


def _power(frames: np.ndarray, config: FeatureConfig) -> np.ndarray:
    """Power spectrum (T, F) of frames (T, N), from 0 to half the sample rate, as Kaldi computes it."""
    window, emphasis = _window(config), np.float32(kaldi_options(config).frame_opts.preemph_coeff)
    centred = frames - frames.mean(axis=1, keepdims=True)
    # The sample before the first is the first itself.
    before = np.concatenate([centred[:, :1], centred[:, :-1]], axis=1)
    spectrum = np.fft.rfft((centred - emphasis * before) * window, 1 << (len(window) - 1).bit_length(), axis=1)
    power: np.ndarray = np.square(spectrum.real) + np.square(spectrum.imag)
    return power


@lru_cache(maxsize=4)
def kaldi_options(config: FeatureConfig) -> Any:
    """Options of kaldi-native-fbank for a kind of features."""
    options = knf.FbankOptions() if config.kind == "fbank" else knf.MfccOptions()
    options.frame_opts.samp_freq = float(config.sample_rate)
    options.frame_opts.frame_shift_ms = 1000 * FRAME_SHIFT_SECONDS
    options.frame_opts.frame_length_ms = 1000 * FRAME_LENGTH_SECONDS
    options.mel_opts.num_bins = config.bins
    if config.kind == "mfcc":
        options.num_ceps = config.cepstra
    return options


@lru_cache(maxsize=4)
def _window(config: FeatureConfig) -> np.ndarray:
    return np.array(knf.FeatureWindowFunction(kaldi_options(config).frame_opts).window, np.float32)


@lru_cache(maxsize=4)
def _banks(config: FeatureConfig, warps: tuple[float, ...]) -> np.ndarray:
    """Mel bins of all warps, shape (F, V * bins), float32."""
    matrices = []
    for warp in warps:
        try:
            matrices.append(_mel_banks(config, warp))
        except ValueError as error:
            raise FeatureError(f"{config.bins} mel bins at {config.sample_rate} Hz, warp {warp:g}: {error}") from error
    return np.ascontiguousarray(np.concatenate(matrices).T)


def _mel_banks(config: FeatureConfig, warp: float) -> np.ndarray:
    """Mel bins of one warp, shape (bins, F), float32; ValueError for a bin without a frequency."""
    options = kaldi_options(config)
    matrix: np.ndarray = knf.MelBanks(options.mel_opts, options.frame_opts, warp).get_matrix()
    return matrix


@lru_cache(maxsize=4)
def _floor(config: FeatureConfig, warps: tuple[float, ...]) -> np.ndarray:
    """Mel energies of the noise of 16-bit quantization, which is white and has variance 1/12; shape (V * bins,).

    A frame's spectrum is linear in its samples, so the power of white noise is the sum over frames of one sample each.
    """
    samples = np.eye(len(_window(config)), dtype=np.float32)
    floor: np.ndarray = _power(samples, config).sum(axis=0) / 12.0 @ _banks(config, warps)
    return floor


@lru_cache(maxsize=4)
def _cosine_transform(config: FeatureConfig) -> np.ndarray:
    """Cosine transform and liftering, from log-mel energies to cepstra, shape (bins, cepstra), float32."""
    order = np.arange(config.cepstra)
    angle = np.pi / config.bins * (np.arange(config.bins)[:, None] + 0.5) * order
    transform = np.sqrt(2.0 / config.bins) * np.cos(angle)
    transform[:, 0] = np.sqrt(1.0 / config.bins)
    lifter = kaldi_options(config).cepstral_lifter
    return np.asarray(transform * (1.0 + 0.5 * lifter * np.sin(np.pi * order / lifter)), np.float32)
