"""Log-mel filterbanks and MFCC with Kaldi's definitions, computed by kaldi-native-fbank.

Frames are 25 ms long and 10 ms apart, with the Povey window and pre-emphasis 0.97. There is no dither, so that the
same recording gives the same bits.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import kaldi_native_fbank as knf
import numpy as np
from pydantic import Field

from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.errors import FeatureError
from lhuc_asr.base.units import FRAME_LENGTH_SECONDS, FRAME_SHIFT_SECONDS

# Kaldi's features are defined on 16-bit sample values.
SAMPLE_SCALE = 32768.0


class FeatureConfig(StrictModel):
    """Kind of features.

    Attributes:
        kind: ``fbank`` (log-mel energies) or ``mfcc``.
        sample_rate: Sample rate, hertz; recordings with other rates are resampled.
        bins: Number of mel bins between 20 Hz and half the sample rate.
        cepstra: Number of cepstral coefficients, including C0 (``mfcc`` only).
        delta_order: Order of the differences: 0 has none, 1 adds first, 2 adds second differences too.
    """

    kind: Literal["fbank", "mfcc"] = "fbank"
    sample_rate: int = Field(16000, ge=8000, le=48000)
    bins: int = Field(40, ge=10, le=128)
    cepstra: int = Field(13, ge=2, le=60)
    delta_order: int = Field(0, ge=0, le=2)

    @property
    def dimension(self) -> int:
        """Number of features per frame, D."""
        static = self.bins if self.kind == "fbank" else self.cepstra
        return static * (1 + self.delta_order)


def compute_features(samples: np.ndarray, config: FeatureConfig) -> np.ndarray:
    """Features of one utterance.

    Args:
        samples: Samples in [-1, 1) at ``config.sample_rate``, shape (N,).
        config: Kind of features.

    Returns:
        Shape (T, D), float32, T by ``base.units.frames_of``.

    Raises:
        FeatureError: Fewer samples than one window, or bins too narrow for the spectrum's resolution.
    """
    try:
        computer = (knf.OnlineFbank if config.kind == "fbank" else knf.OnlineMfcc)(_options(config))
    except ValueError as error:
        cepstra = f", {config.cepstra} cepstra" if config.kind == "mfcc" else ""
        raise FeatureError(f"{config.bins} mel bins at {config.sample_rate} Hz{cepstra}: {error}") from error
    # As a list: the binding reads an array element by element, which took a third of the total time.
    scaled = (samples * SAMPLE_SCALE).astype(np.float32).tolist()
    computer.accept_waveform(float(config.sample_rate), scaled)
    computer.input_finished()
    frames = computer.num_frames_ready
    if frames == 0:
        raise FeatureError(
            f"{len(samples)} samples at {config.sample_rate} Hz are less than one window of "
            f"{1000 * FRAME_LENGTH_SECONDS:g} ms"
        )
    features = np.stack([computer.get_frame(t) for t in range(frames)])
    return add_deltas(features, config.delta_order)


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


@lru_cache(maxsize=4)
def _options(config: FeatureConfig) -> Any:
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
