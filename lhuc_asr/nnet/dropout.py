"""Dropout (Srivastava et al. 2014) with cheap random numbers.

On a CPU, the random numbers of torch's own dropout took half of the forward pass of a training step. Here a unit is
kept if a random byte reaches a threshold, and a 64-bit random number serves eight units. Probabilities are therefore
multiples of 1/256.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from torch.nn import functional

# 64-bit numbers in the state of the generator of masks.
SFC64_WORDS = 4


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

    def state(self) -> torch.Tensor:
        """Where the sequence of masks is, shape (4,), int64."""
        return torch.from_numpy(self._bits.state["state"]["state"].view(np.int64).copy())

    def restore(self, state: torch.Tensor) -> None:
        """Go to a place in the sequence of masks.

        Raises:
            RuntimeError: It is not what ``state`` returns.
        """
        if state.shape != (SFC64_WORDS,) or state.dtype != torch.int64:
            raise RuntimeError(f"{state.dtype} of shape {tuple(state.shape)}, expected int64 of shape ({SFC64_WORDS},)")
        words = state.numpy().view(np.uint64).copy()
        self._bits.state = {**self._bits.state, "state": {"state": words}}

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
    for number, module in enumerate(_dropouts(model)):
        module.seed(seed, number)
    # SpecAugment, and dropout on a GPU, draw from torch's generator.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def random_state(model: nn.Module, device: torch.device) -> dict[str, torch.Tensor]:
    """Where everything is that ``seeded_training`` seeds, by name; on the CPU.

    Args:
        model: The network.
        device: Device that the network runs on.
    """
    state = {f"dropout.{number}": module.state() for number, module in enumerate(_dropouts(model))}
    state["torch"] = torch.get_rng_state()
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(model: nn.Module, device: torch.device, state: Mapping[str, torch.Tensor]) -> None:
    """Go to where ``random_state`` was called. A generator of the other kind of device is left as it is.

    Raises:
        KeyError, RuntimeError: It is the state of another network.
    """
    for number, module in enumerate(_dropouts(model)):
        module.restore(state[f"dropout.{number}"])
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def _dropouts(model: nn.Module) -> list[Dropout]:
    return [module for module in model.modules() if isinstance(module, Dropout)]
