"""Linear hidden network, LHN: an affine map of each speaker's activations in one hidden layer, learned by the network.

    y_t = A^s h_t + b^s

Gemello et al. 2007, "Linear hidden transformations for adaptation of hybrid ANN/HMM models". After the last hidden
layer it is a linear output network (LON): the output layer's weights W become W A^s. A and b begin at the identity.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from lhuc_asr.adapt.moved import Move, MovedConfig, MovedSpeakers, Numbers, affine_map
from lhuc_asr.base.config import LearningRate
from lhuc_asr.base.errors import SiteError
from lhuc_asr.nnet.feed_forward import FeedForward


class LinearHidden(Move):
    """An affine map after one hidden layer.

    Attributes:
        layer: Number of the layer, from 0 at the bottom; -1 for the last.
    """

    layer: int = Field(-1, ge=-1, le=99)

    def start(self, network: FeedForward, seed: int) -> dict[str, Tensor]:
        """The identity; see ``Move``.

        Raises:
            SiteError: The network does not have the layer.
        """
        widths = network.widths
        if self.layer >= len(widths):
            raise SiteError(f"layer {self.layer}: the network has hidden layers 0 to {len(widths) - 1}")
        return {"matrix": torch.eye(widths[self.layer]), "offset": torch.zeros(widths[self.layer])}

    def activated(self, own: Numbers, layer: int, network: FeedForward, outputs: Tensor) -> Tensor:
        """The activations, those of the layer mapped; see ``Move``."""
        hidden = network.activated(layer, outputs)
        return affine_map(own, hidden) if layer == self.layer % len(network.widths) else hidden


class LhnSpeakers(MovedSpeakers):
    """Speakers with a map of one hidden layer each."""

    format: ClassVar[str] = "lhuc_asr lhn speaker 1"
    moves: ClassVar[type[Move]] = LinearHidden


class LhnConfig(MovedConfig):
    """Options of LHN: those of the descent, and the layer.

    Attributes:
        kind: Name of the method.
        layer: Number of the hidden layer whose activations are mapped, from 0 at the bottom; -1 for the last (LON).
    """

    speakers: ClassVar[type[MovedSpeakers]] = LhnSpeakers

    kind: Literal["lhn"] = "lhn"
    learning_rate: LearningRate = 0.0003
    layer: int = Field(-1, ge=-1, le=99)

    @property
    def move(self) -> LinearHidden:
        """What the numbers change."""
        return LinearHidden(layer=self.layer)
