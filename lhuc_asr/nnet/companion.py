"""What is trained in the same mini-batches as a network, and is no part of it: amplitudes of speakers, for one.

The trainer tells it when an epoch begins, whose frames a mini-batch holds, and when gradients are there; and keeps
its tensors in the training state. The class itself does nothing: training a network alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch


class Companion:
    """Follows a network's training and takes no part in it; subclasses do.

    Attributes:
        rates: The options that hold the learning rates, for the message when training diverges.
    """

    rates = "trainer.schedule.learning_rate"

    def begin_epoch(self, seed: int, rate_share: float) -> None:
        """An epoch begins.

        Args:
            seed: All random choices of the epoch depend on it alone.
            rate_share: The epoch's learning rate as a share of the first epoch's.
        """

    def batch(self, frames: torch.Tensor) -> AbstractContextManager[object]:
        """A context for the forward pass of a mini-batch.

        Args:
            frames: Rows of its frames in the features' array, shape (B,), int64.
        """
        return nullcontext()

    def step(self) -> None:
        """Update what is the companion's own, after the backward pass; leaves no gradient behind."""

    def state(self) -> dict[str, torch.Tensor]:
        """Everything that the next epoch depends on, by names."""
        return {}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go back to what ``state`` returned.

        Raises:
            KeyError, RuntimeError: It is the state of something else.
        """


ALONE = Companion()
