"""Test-only LHUC: amplitudes of a frozen network by gradient descent (Swietojanski et al. 2016, sec. III)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from lhuc_asr.adapt.amplitudes import Amplitudes, Layers, new_bank
from lhuc_asr.adapt.descent import Descent, DescentConfig
from lhuc_asr.adapt.method import AdaptedSpeakers, MethodConfig, ReadableSpeakers
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.base.config import LearningRate
from lhuc_asr.base.errors import ConfigError
from lhuc_asr.lhuc.amplitude import AmplitudeName
from lhuc_asr.lhuc.bank import SpeakerBank
from lhuc_asr.nnet.acoustic_model import AcousticModel

# The options of ``preset: paper``: sec. V of the paper.
PAPER = {"optimizer": "sgd", "learning_rate": 0.8, "sweeps": 1, "kl_weight": 0.0}


class LhucConfig(DescentConfig, MethodConfig):
    """Options of test-only LHUC: those of the descent, the amplitude function, and the layers.

    Attributes:
        kind: Name of the method.
        preset: ``paper`` changes the defaults of the descent to the paper's: SGD with rate 0.8, one sweep, hard
            targets. None keeps them.
        amplitude: Name of the amplitude function xi.
        layers: Hidden layers that get amplitudes, from 0 at the bottom; None for all.
    """

    speakers: ClassVar[type[ReadableSpeakers]] = Amplitudes

    kind: Literal["lhuc"] = "lhuc"
    preset: Literal["paper"] | None = None
    amplitude: AmplitudeName = "exp"
    layers: Layers | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, values: Any) -> Any:
        return {**PAPER, **values} if isinstance(values, dict) and values.get("preset") == "paper" else values

    def make(self, folder: Path | None) -> Lhuc:
        """The method with these options."""
        return Lhuc(self)

    @property
    def amplitude_layers(self) -> tuple[int, ...] | None:
        """Hidden layers that get amplitudes; None for all."""
        return self.layers

    @property
    def goes_on(self) -> bool:
        """Whether the amplitudes can go on with each recording: they can."""
        return True


class InnerLhucConfig(LhucConfig):
    """Options of LHUC inside another method, which alone says what it is on."""

    @model_validator(mode="after")
    def _is_inside(self) -> Self:
        if self.on is not None:
            raise ValueError("on: give it to the method around this descent")
        return self


class LearnedLhucConfig(InnerLhucConfig):
    """Options of LHUC for the training speakers' amplitudes, from which a method learns.

    Their targets are references, so that nothing need draw them towards the unadapted network's outputs.
    """

    learning_rate: LearningRate = 0.01
    kl_weight: float = Field(0.0, ge=0.0, lt=1.0)


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
        increments = self.begin(model, speakers)
        increments.go_on(speakers, {name: name for name in speakers}, seed)
        return increments.speakers

    def begin(self, model: AcousticModel, names: Iterable[str], start: AdaptedSpeakers | None = None) -> LhucIncrements:
        """Neutral amplitudes, or some speakers' own, for a descent that goes on with each recording.

        Raises:
            SiteError: The network does not have one of the layers.
            ConfigError: The speakers to start from were adapted by another method.
            ModelMismatchError: They have amplitudes of another kind, or of other layers.
        """
        bank = new_bank(model, names, self.config.amplitude, self.config.layers)
        if start is not None:
            if not isinstance(start, Amplitudes):
                raise ConfigError("lhuc cannot start from parameters of another method; adapt the speaker again")
            bank.put(*(start.bank.state(name) for name in start.speakers if name in bank.speakers))
        return LhucIncrements(model, bank, self.config)


class LhucIncrements:
    """Amplitudes that go on with each recording: a descent over it alone, from where they are. ``Increments``.

    Args:
        model: The network.
        bank: A detached bank of the network.
        config: Options of the descent.
    """

    def __init__(self, model: AcousticModel, bank: SpeakerBank, config: DescentConfig) -> None:
        self._model, self._bank, self._descent = model, bank, Descent(config)

    @property
    def speakers(self) -> Amplitudes:
        """The amplitudes of all names."""
        return Amplitudes(self._bank)

    def go_on(self, heard: Mapping[str, SpeakerData], after: Mapping[str, str], seed: int) -> None:
        """Descend over what is new, with averages of the optimizer that begin anew; see ``Increments``."""
        self._bank.copy_rows({name: after[name] for name in heard})
        self._descent.adapt(self._bank, self._model, heard, seed)
