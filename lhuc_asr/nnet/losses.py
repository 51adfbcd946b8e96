"""Frame cross-entropy, summed over frames: the loss that networks are trained with."""

from __future__ import annotations

import torch
from torch.nn import functional

# The target of a frame that does not count, as torch has it.
NO_TARGET = -100


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Sum over frames of -log p(pdf).

    Args:
        logits: Shape (B, K).
        targets: Pdf of each frame, ``NO_TARGET`` where it does not count, shape (B,), int64.

    Returns:
        A scalar, the sum and not the mean: a caller that wants a mean divides by a number of frames.
    """
    return functional.cross_entropy(logits, targets, reduction="none").sum()
