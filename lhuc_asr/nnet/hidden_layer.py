"""A hidden layer: an affine map, normalisation, a non-linearity and dropout. Amplitudes attach after the non-linearity.

What it reads of the layer below is its arrangement: everything, or the activations at some positions of the window.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from lhuc_asr.base.tensors import Shape
from lhuc_asr.nnet.arrangement import EVERYTHING, Arrangement
from lhuc_asr.nnet.dropout import Dropout
from lhuc_asr.nnet.feed_forward import Affine, unchanged
from lhuc_asr.nnet.normalisation import BatchNormalisation, NormalisationName, normalisation, normalisation_tensors

ActivationName = Literal["sigmoid", "relu"]


@dataclass(frozen=True)
class LayerShape:
    """Shape of a hidden layer.

    Attributes:
        inputs: Number of inputs of the affine map, I.
        units: Number of units, or of channels at each position, H.
        activation: Name of the non-linearity.
        dropout: Probability of zeroing a unit in training.
        normalisation: Name of the normalisation; None for none.
        arrangement: What the layer reads of the one below.
    """

    inputs: int
    units: int
    activation: ActivationName
    dropout: float = 0.0
    normalisation: NormalisationName | None = None
    arrangement: Arrangement = EVERYTHING

    def tensors(self) -> dict[str, Shape]:
        """Shapes of the layer's tensors, by name."""
        affine: dict[str, Shape] = {"linear.weight": (self.units, self.inputs), "linear.bias": (self.units,)}
        normal = normalisation_tensors(self.normalisation, self.units)
        return affine | {f"normalisation.{name}": shape for name, shape in normal.items()}


class HiddenLayer(nn.Module):
    """A hidden layer.

    Args:
        shape: Its shape.

    Attributes:
        shape: Its shape.
    """

    def __init__(self, shape: LayerShape) -> None:
        super().__init__()
        self.shape = shape
        self.linear = nn.Linear(shape.inputs, shape.units)
        self.normalisation = normalisation(shape.normalisation, shape.units)
        self.activation: nn.Module = nn.Sigmoid() if shape.activation == "sigmoid" else nn.ReLU()
        self.dropout = Dropout(shape.dropout)

    def forward(self, below: Tensor) -> Tensor:
        """Activations (B, H), or (B, P', H), of those of the layer below; see ``Arrangement.of_grid``."""
        outputs = self.normalisation(self.linear(self.shape.arrangement.of_grid(below)))
        hidden: Tensor = self.dropout(self.activation(outputs))
        return hidden

    def initialise(self, generator: torch.Generator, centred: bool) -> None:
        """Draw random weights: He et al. (2015) for ReLU, four times Glorot and Bengio (2010) for sigmoid.

        Args:
            generator: Generator of the weights.
            centred: Whether the inputs are around 0, as features are, and not around 1/2, as sigmoid activations are.
        """
        weight, sigmoid = self.linear.weight, self.shape.activation == "sigmoid"
        fan_out, fan_in = weight.shape
        limit = 4.0 * (6.0 / (fan_in + fan_out)) ** 0.5 if sigmoid else (6.0 / fan_in) ** 0.5
        nn.init.uniform_(weight, -limit, limit, generator=generator)
        nn.init.zeros_(self.linear.bias)
        if sigmoid and not centred:
            # Without this shift, the higher layers would start in the flat part of the sigmoid.
            with torch.no_grad():
                self.linear.bias.sub_(0.5 * weight.sum(1))
        if isinstance(self.normalisation, BatchNormalisation):
            self.normalisation.reset()
        elif isinstance(self.normalisation, nn.LayerNorm):
            self.normalisation.reset_parameters()

    def plain(self) -> tuple[Affine, Callable[[Tensor], Tensor]]:
        """Its affine map, batch normalisation folded in, and its layer normalisation, as in evaluation.

        Returns:
            Weight (H, I) and bias (H,), without gradient, and a function of outputs (..., H).
        """
        weight, bias = self.linear.weight.detach(), self.linear.bias.detach()
        normal = self.normalisation
        if isinstance(normal, BatchNormalisation):
            scale, shift = (each.detach() for each in normal.affine_map())
            folded = scale[:, None] * weight, shift + scale * bias  # in float64: each is rounded once
            return (folded[0].to(weight.dtype), folded[1].to(bias.dtype)), unchanged
        if isinstance(normal, nn.LayerNorm):
            scale, shift = normal.weight.detach(), normal.bias.detach()
            return (weight, bias), partial(
                functional.layer_norm, normalized_shape=[self.shape.units], weight=scale, bias=shift, eps=normal.eps
            )
        return (weight, bias), unchanged
