"""Log-mel filterbanks and MFCC with Kaldi's definitions, computed by kaldi-native-fbank.

Frames are 25 ms long and 10 ms apart, with the Povey window and pre-emphasis 0.97. There is no dither, so that the
same recording gives the same bits.
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
        try:
            _computer(self)
        except ValueError as error:
            cepstra = f", {self.cepstra} cepstra" if self.kind == "mfcc" else ""
            raise ValueError(f"{self.bins} mel bins at {self.sample_rate} Hz{cepstra}: {error}") from error
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
    computer = _computer(config)
    # As a list: the binding reads an array element by element, which took a third of the total time.
    scaled = (samples * SAMPLE_SCALE).astype(np.float32).tolist()
    computer.accept_waveform(float(config.sample_rate), scaled)
    computer.input_finished()
    frames = computer.num_frames_ready
    if frames == 0:
        raise too_short(samples, config)
    features = np.stack([computer.get_frame(t) for t in range(frames)])
    return add_deltas(features, config.delta_order)


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


def _computer(config: FeatureConfig) -> Any:
    return (knf.OnlineFbank if config.kind == "fbank" else knf.OnlineMfcc)(kaldi_options(config))


@lru_cache(maxsize=4)
def kaldi_options(config: FeatureConfig) -> Any:
    """Options of kaldi-native-fbank for a kind of features."""
    options = knf.FbankOptions() if config.kind == "fbank" else knf.MfccOptions()
    options.frame_opts.samp_freq = float(config.sample_rate)
    options.frame_opts.dither = 0.0
    options.frame_opts.frame_shift_ms = 1000 * FRAME_SHIFT_SECONDS
    options.frame_opts.frame_length_ms = 1000 * FRAME_LENGTH_SECONDS
    options.mel_opts.num_bins = config.bins
    if config.kind == "mfcc":
        options.num_ceps = config.cepstra
        options.use_energy = False  # C0 in place of the raw energy, which the recording level shifts
    return options
