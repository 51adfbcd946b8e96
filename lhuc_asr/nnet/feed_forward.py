"""A frozen feed-forward network as plain tensors, into which adaptation methods reach layer by layer.

Activations are rows, one a frame, or one a position of each frame (``Arrangement.of_rows``). What is done to a row is
then done at all positions of the window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lhuc_asr.nnet.arrangement import Arrangement

# Weight (H', I) and bias (H',) of a layer.
Affine = tuple[Tensor, Tensor]


def unchanged(outputs: Tensor) -> Tensor:
    """The outputs themselves: no normalisation."""
    return outputs


@dataclass(frozen=True)
class FeedForward:
    """Weights without gradient, and what is between them.

    A layer is ``affine`` of ``arranged`` of the layer below, and if it is hidden, ``activated`` of that.

    Attributes:
        inputs: Number of inputs of a frame, w D + R.
        affine: Weight and bias of each hidden layer from the bottom, then of the output layer. Batch normalisation is
            in them.
        activation: Non-linearity of the hidden layers.
        arrangements: What each layer reads of the one below, the output layer too.
        normalisations: Normalisation of each hidden layer, where it is not an affine map.
    """

    inputs: int
    affine: Sequence[Affine]
    activation: Callable[[Tensor], Tensor]
    arrangements: Sequence[Arrangement]
    normalisations: Sequence[Callable[[Tensor], Tensor]]

    def arranged(self, layer: int, below: Tensor) -> Tensor:
        """Inputs of a layer's affine map, shape (..., B P', I), of the activations below, shape (..., B P, C)."""
        return self.arrangements[layer].of_rows(below)

    def normalised(self, layer: int, outputs: Tensor) -> Tensor:
        """Inputs of a hidden layer's non-linearity for the outputs of its affine map, shapes (..., B P, H)."""
        return self.normalisations[layer](outputs)

    def activated(self, layer: int, outputs: Tensor) -> Tensor:
        """Activations of a hidden layer for the outputs of its affine map, shapes (..., B P, H)."""
        return self.activation(self.normalised(layer, outputs))

    @property
    def widths(self) -> list[int]:
        """Number of units of each hidden layer, or of channels at each position."""
        return [len(bias) for _, bias in self.affine[:-1]]

    @property
    def positions(self) -> list[int]:
        """Number of positions that each hidden layer computes for a frame, P."""
        return [arrangement.positions for arrangement in self.arrangements[:-1]]

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.affine[0][0].device
