"""A method that only looks at what a speaker's features were computed from, and estimates nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from lhuc_asr.adapt.amplitudes import Amplitudes, new_bank
from lhuc_asr.adapt.method import MethodConfig, ReadableSpeakers
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.features.filterbank import FeatureConfig, compute_features
from lhuc_asr.hmm.gmm import DiagonalGmm
from lhuc_asr.nnet.acoustic_model import AcousticModel


@dataclass(frozen=True)
class Heard:
    """What the method has seen of one speaker.

    Attributes:
        lengths: Number of frames of each utterance.
        waveform_frames: Number of frames that the features of each waveform have.
        waveform_type: Type of the samples.
        gmms: Gaussian mixtures of unadapted and of adapted features.
    """

    lengths: tuple[int, ...]
    waveform_frames: tuple[int, ...]
    waveform_type: np.dtype
    gmms: tuple[DiagonalGmm, DiagonalGmm]


# Everything that the method has seen, by the speakers' names.
HEARD: dict[str, Heard] = {}


class HearingConfig(MethodConfig):
    """No options.

    Attributes:
        kind: Name of the method.
    """

    speakers: ClassVar[type[ReadableSpeakers]] = Amplitudes

    kind: Literal["hearing"] = "hearing"

    def make(self, folder: Path | None) -> Hearing:
        return Hearing()


class Hearing:
    """Looks at waveforms and Gaussian mixtures, as vocal tract length normalisation does."""

    def estimate(self, model: AcousticModel, speakers: Mapping[str, SpeakerData], seed: int) -> Amplitudes:
        for name, data in speakers.items():
            assert data.alignment_model is not None
            waveforms = list(data.waveforms(16_000))
            HEARD[name] = Heard(
                data.lengths,
                tuple(len(compute_features(samples, FeatureConfig(sample_rate=16_000))) for samples in waveforms),
                waveforms[0].dtype,
                data.alignment_model.gmms,
            )
        return Amplitudes(new_bank(model, speakers))
