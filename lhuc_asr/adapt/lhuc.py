"""Test-only LHUC: amplitudes of a frozen network by gradient descent (Swietojanski et al. 2016, sec. III)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from lhuc_asr.adapt.amplitudes import Amplitudes, Layers, new_bank
from lhuc_asr.adapt.descent import Descent, DescentConfig
from lhuc_asr.adapt.method import MethodConfig, ReadableSpeakers
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.lhuc.amplitude import AmplitudeName
from lhuc_asr.nnet.acoustic_model import AcousticModel


class LhucConfig(DescentConfig, MethodConfig):
    """Options of test-only LHUC: those of the descent, the amplitude function, and the layers.

    Attributes:
        kind: Name of the method.
        amplitude: Name of the amplitude function xi.
        layers: Hidden layers that get amplitudes, from 0 at the bottom; None for all.
    """

    speakers: ClassVar[type[ReadableSpeakers]] = Amplitudes

    kind: Literal["lhuc"] = "lhuc"
    amplitude: AmplitudeName = "exp"
    layers: Layers | None = None

    def make(self, folder: Path | None) -> Lhuc:
        """The method with these options."""
        return Lhuc(self)

    @property
    def amplitude_layers(self) -> tuple[int, ...] | None:
        """Hidden layers that get amplitudes; None for all."""
        return self.layers


class Lhuc:
    """Test-only LHUC as an adaptation method.

    Args:
        config: Options of the method.
    """

    def __init__(self, config: LhucConfig) -> None:
        self.config = config

    def estimate(self, model: AcousticModel, speakers: Mapping[str, SpeakerData], seed: int) -> Amplitudes:
        """Estimate the amplitudes of all speakers together.

        A speaker whose frames all have weight 0, or whose row becomes infinite or not a number, stays unadapted; a
        warning names them.

        Args:
            model: The network; it comes back unchanged.
            speakers: Each speaker's data.
            seed: Seeds the order of each speaker's frames, which does not depend on the other speakers.

        Raises:
            SiteError: The network does not have one of the layers.
            AlignmentError: A speaker's targets or features do not fit the network.
        """
        bank = new_bank(model, speakers, self.config.amplitude, self.config.layers)
        Descent(self.config).adapt(bank, model, speakers, seed)
        return Amplitudes(bank)
