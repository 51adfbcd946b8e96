"""No adaptation, as a method: every speaker has neutral amplitudes.

A pass with this method decodes with the unadapted network, but may use the acoustic scale and insertion penalty of
another pass. A gain over it then does not come from how the scale and the penalty were tuned.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from lhuc_asr.adapt.amplitudes import Amplitudes, new_bank
from lhuc_asr.adapt.method import MethodConfig, ReadableSpeakers
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.nnet.acoustic_model import AcousticModel


class UnadaptedConfig(MethodConfig):
    """No options.

    Attributes:
        kind: Name of the method.
    """

    speakers: ClassVar[type[ReadableSpeakers]] = Amplitudes

    kind: Literal["none"] = "none"

    def make(self, folder: Path | None) -> Unadapted:
        """The method with these options."""
        return Unadapted(self)


class Unadapted:
    """Neutral amplitudes for everybody.

    Args:
        config: No options.
    """

    def __init__(self, config: UnadaptedConfig) -> None:
        self.config = config

    def estimate(self, model: AcousticModel, speakers: Mapping[str, SpeakerData], seed: int) -> Amplitudes:
        """Neutral amplitudes after every hidden layer; neither the data nor the seed matters."""
        return Amplitudes(new_bank(model, speakers))
