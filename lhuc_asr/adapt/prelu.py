"""Parameterised ReLU: two slopes of each hidden unit and speaker.

    h_j = r_j^s max(z_j, 0) + q_j^s min(z_j, 0)

Zhang and Woodland 2016, "DNN speaker adaptation using parameterised sigmoid and ReLU hidden activation functions". The
slope r of what is positive is LHUC's amplitude with xi(r) = r; q lets through what the unit holds back. They begin at 1
and 0.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from lhuc_asr.adapt.moved import Move, MovedConfig, MovedSpeakers, Numbers
from lhuc_asr.base.config import LearningRate
from lhuc_asr.base.errors import SiteError
from lhuc_asr.nnet.feed_forward import FeedForward


class Slopes(Move):
    """Two slopes of each hidden unit."""

    def start(self, network: FeedForward, seed: int) -> dict[str, Tensor]:
        """The slopes of a ReLU; see ``Move``.

        Raises:
            SiteError: The network has another non-linearity.
        """
        if not isinstance(network.activation, nn.ReLU):
            raise SiteError(
                f"prelu: the network's non-linearity is {type(network.activation).__name__}; it needs a ReLU"
            )
        positive = {f"positive.{layer}": torch.ones(width) for layer, width in enumerate(network.widths)}
        return positive | {f"negative.{layer}": torch.zeros(width) for layer, width in enumerate(network.widths)}

    def activated(self, own: Numbers, layer: int, network: FeedForward, outputs: Tensor) -> Tensor:
        """The activations with the speakers' slopes; see ``Move``."""
        outputs = network.normalised(layer, outputs)
        positive, negative = (own[f"{sign}.{layer}"].unsqueeze(1) for sign in ("positive", "negative"))
        return torch.where(outputs > 0, positive, negative) * outputs


class PreluSpeakers(MovedSpeakers):
    """Speakers with two slopes of each hidden unit."""

    format: ClassVar[str] = "lhuc_asr prelu speaker 1"
    moves: ClassVar[type[Move]] = Slopes


class PreluConfig(MovedConfig):
    """Options of parameterised ReLU: those of the descent.

    Attributes:
        kind: Name of the method.
    """

    speakers: ClassVar[type[MovedSpeakers]] = PreluSpeakers

    kind: Literal["prelu"] = "prelu"
    learning_rate: LearningRate = 0.005

    @property
    def move(self) -> Slopes:
        """What the numbers change."""
        return Slopes()
