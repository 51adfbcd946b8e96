"""Linear input network, LIN: an affine map of each speaker's spliced input, learned by the network.

    y_t = A^s [x_{t-l}, ..., x_{t+r}] + b^s        l frames before t and r after it

Each position in the window has a map of its own, unlike fDLR's (Neto et al. 1995, "Speaker-adaptation for hybrid
HMM-ANN continuous speech recognition system"). A and b begin at the identity.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from lhuc_asr.adapt.moved import Move, MovedConfig, MovedSpeakers, Numbers, affine_map
from lhuc_asr.base.config import LearningRate
from lhuc_asr.nnet.feed_forward import FeedForward


class LinearInput(Move):
    """An affine map before the first layer."""

    def start(self, network: FeedForward, seed: int) -> dict[str, Tensor]:
        """The identity; see ``Move``."""
        return {"matrix": torch.eye(network.inputs), "offset": torch.zeros(network.inputs)}

    def inputs(self, own: Numbers, spliced: Tensor) -> Tensor:
        """The mapped inputs; see ``Move``."""
        return affine_map(own, spliced)


class LinSpeakers(MovedSpeakers):
    """Speakers with a map of their inputs each."""

    format: ClassVar[str] = "lhuc_asr lin speaker 1"
    moves: ClassVar[type[Move]] = LinearInput


class LinConfig(MovedConfig):
    """Options of LIN: those of the descent.

    Attributes:
        kind: Name of the method.
    """

    speakers: ClassVar[type[MovedSpeakers]] = LinSpeakers

    kind: Literal["lin"] = "lin"
    learning_rate: LearningRate = 0.0003

    @property
    def move(self) -> LinearInput:
        """What the numbers change."""
        return LinearInput()
