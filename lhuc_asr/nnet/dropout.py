"""Dropout (Srivastava et al. 2014) with cheap random numbers.

On a CPU, the random numbers of torch's own dropout took half of the forward pass of a training step. Here a unit is
kept if a random byte reaches a threshold, and a 64-bit random number serves eight units. Probabilities are therefore
multiples of 1/256.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class Dropout(nn.Module):
    """Zeroes activations at random in training, and scales the others up; does nothing in evaluation mode.

    On devices other than the CPU it uses torch's own dropout and generator.

    Args:
        probability: Probability of zeroing an activation, rounded to a multiple of 1/256.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.threshold = round(256 * probability)
        self.seed(0)

    def seed(self, *entropy: int) -> None:
        """Seed the sequence of masks."""
        self._bits = np.random.SFC64(np.random.SeedSequence(entropy))

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        """The activations, of any shape, some of them zeroed in training."""
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


def train_dropout_alone(model: nn.Module, dropped: bool) -> None:
    """Set a network to evaluation mode, but for its dropout.

    Args:
        model: The network.
        dropped: Whether hidden units are dropped out.
    """
    model.eval()
    for module in model.modules():
        if isinstance(module, Dropout):
            module.train(dropped)


@contextmanager
def seeded_training(model: nn.Module, seed: int, device: torch.device) -> Iterator[None]:
    """Seed all that training draws while the block runs; torch's own generator is then restored.

    Args:
        model: The network, whose dropout is seeded.
        seed: The seed.
        device: Device that the network runs on.
    """
    for number, module in enumerate(module for module in model.modules() if isinstance(module, Dropout)):
        module.seed(seed, number)
    # SpecAugment, and dropout on a GPU, draw from torch's generator.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
