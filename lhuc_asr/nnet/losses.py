"""Frame cross-entropy, hard or soft targets, weighted frames."""

from __future__ import annotations

import torch
from torch.nn import functional


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Weighted sum over frames of -sum_k q_tk log p_tk.

    Args:
        logits: Shape (B, K).
        targets: Pdf ids, shape (B,), or posteriors, shape (B, K).
        weights: Shape (B,); 1 where left out.

    Returns:
        A scalar: the sum, not the mean; a caller who wants means divides by what it means.
    """
    losses = functional.cross_entropy(logits, targets, reduction="none")
    return losses.sum() if weights is None else (losses * weights).sum()
