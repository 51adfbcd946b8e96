"""A frozen feed-forward network as plain tensors, into which adaptation methods reach layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Weight (H', H) and bias (H',) of a layer.
Affine = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class FeedForward:
    """Weights without gradient, and the non-linearity.

    Attributes:
        affine: Weight and bias of each hidden layer from the bottom, then of the output layer.
        activation: Non-linearity of the hidden layers.
    """

    affine: Sequence[Affine]
    activation: Callable[[Tensor], Tensor]

    @property
    def inputs(self) -> int:
        """Number of inputs, (2c + 1) D."""
        return self.affine[0][0].shape[1]

    @property
    def widths(self) -> list[int]:
        """Number of units of each hidden layer."""
        return [len(bias) for _, bias in self.affine[:-1]]

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.affine[0][0].device
