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


def candidate_cross_entropy(
    logits: torch.Tensor, pdfs: torch.Tensor, posteriors: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """``cross_entropy`` where all but a few posteriors of a frame are zero.

    Args:
        logits: Shape (B, K).
        pdfs: Candidates, int64, shape (B, M).
        posteriors: Theirs, shape (B, M).
        weights: Shape (B,).

    Returns:
        A scalar: the sum over frames.
    """
    log_probabilities = torch.log_softmax(logits, dim=1).gather(1, pdfs)
    return -((posteriors * log_probabilities).sum(1) * weights).sum()
