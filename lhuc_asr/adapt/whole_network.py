"""The whole network for each speaker: all weights and biases, held back by the unadapted network's outputs.

Yu, Yao, Su, Li and Seide 2013, "KL-divergence regularized deep neural network adaptation for improved large vocabulary
speech recognition": ``kl_weight`` is their rho. A speaker's numbers are what is added to the weights. Batch
normalisation is in the weights; scale and shift of layer normalisation stay as they are.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from lhuc_asr.adapt.moved import Move, MovedConfig, MovedSpeakers, Numbers
from lhuc_asr.base.config import LearningRate
from lhuc_asr.nnet.feed_forward import FeedForward


class AllWeights(Move):
    """What is added to every weight and bias."""

    def start(self, network: FeedForward, seed: int) -> dict[str, Tensor]:
        """Nothing; see ``Move``."""
        numbers: dict[str, Tensor] = {}
        for layer, (weight, bias) in enumerate(network.affine):
            numbers |= {f"weight.{layer}": torch.zeros(weight.shape), f"bias.{layer}": torch.zeros(bias.shape)}
        return numbers

    def affine(self, own: Numbers, layer: int, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """The outputs of a layer's affine map with the speakers' weights; see ``Move``."""
        weights, biases = weight + own[f"weight.{layer}"], bias + own[f"bias.{layer}"]
        return torch.baddbmm(biases.unsqueeze(1), hidden.expand(len(weights), -1, -1), weights.mT)


class WholeSpeakers(MovedSpeakers):
    """Speakers with a network each."""

    format: ClassVar[str] = "lhuc_asr whole network speaker 1"
    moves: ClassVar[type[Move]] = AllWeights


class WholeNetworkConfig(MovedConfig):
    """Options of the adaptation of the whole network: those of the descent.

    Attributes:
        kind: Name of the method.
    """

    speakers: ClassVar[type[MovedSpeakers]] = WholeSpeakers

    kind: Literal["whole_network"] = "whole_network"
    learning_rate: LearningRate = 0.0001

    @property
    def move(self) -> AllWeights:
        """What the numbers change."""
        return AllWeights()
