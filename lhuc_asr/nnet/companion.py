"""Companions: what is trained in a network's mini-batches without being part of the network, such as amplitudes.

The trainer calls a companion at the beginning of an epoch, and in each mini-batch around the forward pass and after the
backward pass. The companion's tensors are kept in the training state.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch


class Companion:
    """A companion that does nothing: the network is trained alone. Subclasses override the methods.

    Attributes:
        rates: Names of the options with the learning rates, for the message when training diverges.
    """

    rates = "trainer.schedule.learning_rate"

    def begin_epoch(self, seed: int) -> None:
        """Begin an epoch; ``seed`` seeds all of its random choices."""

    def set_rate(self, share: float) -> None:
        """Change the learning rate; ``share`` is the network's, divided by that of the first mini-batch."""

    def batch(self, frames: torch.Tensor) -> AbstractContextManager[object]:
        """A context for the forward pass of a mini-batch.

        Args:
            frames: Rows of the mini-batch's frames in the array of features, shape (B,), int64.
        """
        return nullcontext()

    def step(self) -> None:
        """Update the companion's parameters after a backward pass, and clear their gradients."""

    def learned(self) -> dict[str, torch.Tensor]:
        """The parameters that are learned, by name; they are averaged over epochs as the network's weights are."""
        return {}

    def state(self) -> dict[str, torch.Tensor]:
        """All tensors that the next epoch depends on, by name."""
        return {}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Restore what ``state`` returned.

        Raises:
            KeyError, RuntimeError: The state is another companion's.
        """


# The companion of a network that is trained alone.
ALONE = Companion()
