"""Speaker biases: an offset of each hidden unit before its non-linearity, LHUC's twin.

    h_j = psi(w_j^T x + b_j + r_j^s)

Where LHUC scales a unit, this shifts it (Abdel-Hamid and Jiang 2013, "Fast speaker adaptation of hybrid NN/HMM model
for speech recognition based on discriminative learning of speaker code", whose codes give such offsets). r begins at 0.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from lhuc_asr.adapt.moved import Move, MovedConfig, MovedSpeakers, Numbers
from lhuc_asr.base.config import LearningRate
from lhuc_asr.nnet.feed_forward import FeedForward


class Offsets(Move):
    """An offset of each hidden unit."""

    def start(self, network: FeedForward, seed: int) -> dict[str, Tensor]:
        """No offsets; see ``Move``."""
        return {f"offset.{layer}": torch.zeros(width) for layer, width in enumerate(network.widths)}

    def activated(self, own: Numbers, layer: int, network: FeedForward, outputs: Tensor) -> Tensor:
        """The activations of shifted outputs; layer normalisation comes before the shift; see ``Move``."""
        return network.activation(network.normalised(layer, outputs) + own[f"offset.{layer}"].unsqueeze(1))


class BiasSpeakers(MovedSpeakers):
    """Speakers with an offset of each hidden unit."""

    format: ClassVar[str] = "lhuc_asr speaker bias 1"
    moves: ClassVar[type[Move]] = Offsets


class SpeakerBiasConfig(MovedConfig):
    """Options of speaker biases: those of the descent.

    Attributes:
        kind: Name of the method.
    """

    speakers: ClassVar[type[MovedSpeakers]] = BiasSpeakers

    kind: Literal["speaker_bias"] = "speaker_bias"
    learning_rate: LearningRate = 0.005

    @property
    def move(self) -> Offsets:
        """What the numbers change."""
        return Offsets()
