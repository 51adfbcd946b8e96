"""Dropout whose random numbers cost little: half of a training step's forward pass on a CPU went into torch's.

A unit is kept where a random byte reaches a threshold, eight units a 64-bit number; probabilities are therefore
multiples of 1/256 (Srivastava et al. 2014, kept units scaled up in training).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class Dropout(nn.Module):
    """Zeroes activations at random in training; passes them through in evaluation.

    On other devices than the CPU torch's own dropout is used, and torch's own generator.

    Args:
        probability: Of zeroing an activation, rounded to 1/256.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.threshold = round(256 * probability)
        self.seed(0)

    def seed(self, *entropy: int) -> None:
        """Begin the sequence of masks that these numbers name."""
        self._bits = np.random.SFC64(np.random.SeedSequence(entropy))

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        """Activations of any shape, some of them zeroed."""
        if not self.training or self.threshold == 0:
            return activations
        if activations.device.type != "cpu":
            return functional.dropout(activations, self.threshold / 256)
        count = activations.numel()
        draws = self._bits.random_raw(-(-count // 8)).view(np.uint8)[:count]
        kept = torch.from_numpy(draws).view(activations.shape) >= self.threshold
        return activations * kept.to(activations.dtype).mul_(256 / (256 - self.threshold))

    def extra_repr(self) -> str:
        """The probability, for ``print``."""
        return f"p={self.threshold / 256:g}"
