"""LoRA on the hidden layers: an update of low rank to the weights of each speaker.

    W^s = W + B^s A^s        A: (rank, H), B: (H', rank)

Hu et al. 2022, "LoRA: low-rank adaptation of large language models". A begins at random, the same for everybody, with
variance 1/H; B begins at 0. The mean of speakers averages A and B each, which is the mean of their updates only as far
as their A are alike; they began alike.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from lhuc_asr.adapt.moved import Move, MovedConfig, MovedSpeakers, Numbers
from lhuc_asr.base.config import LearningRate
from lhuc_asr.nnet.feed_forward import FeedForward


class LowRank(Move):
    """Updates of low rank to the weights of the hidden layers.

    Attributes:
        rank: Their rank.
    """

    rank: int = Field(4, ge=1, le=1024)

    def start(self, network: FeedForward, seed: int) -> dict[str, Tensor]:
        """Updates of 0; see ``Move``."""
        generator = torch.Generator().manual_seed(seed)
        numbers = {}
        for layer, (weight, _) in enumerate(network.affine[:-1]):
            units, inputs = weight.shape
            numbers[f"down.{layer}"] = torch.randn(self.rank, inputs, generator=generator) / inputs**0.5
            numbers[f"up.{layer}"] = torch.zeros(units, self.rank)
        return numbers

    def affine(self, own: Numbers, layer: int, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """The outputs of a layer's affine map with the updated weight; see ``Move``."""
        outputs = functional.linear(hidden, weight, bias)
        down, up = (own.get(f"{part}.{layer}") for part in ("down", "up"))
        if down is None or up is None:
            return outputs
        return torch.baddbmm(outputs, hidden @ down.mT, up.mT)


class LoraSpeakers(MovedSpeakers):
    """Speakers with updates of low rank each."""

    format: ClassVar[str] = "lhuc_asr lora speaker 1"
    moves: ClassVar[type[Move]] = LowRank


class LoraConfig(MovedConfig):
    """Options of LoRA: those of the descent, and the rank.

    Attributes:
        kind: Name of the method.
        rank: Rank of the updates.
    """

    speakers: ClassVar[type[MovedSpeakers]] = LoraSpeakers

    kind: Literal["lora"] = "lora"
    learning_rate: LearningRate = 0.001
    rank: int = Field(4, ge=1, le=1024)

    @property
    def move(self) -> LowRank:
        """What the numbers change."""
        return LowRank(rank=self.rank)
