"""Context splicing: each frame with its neighbours; the first and last frame of an utterance are repeated."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def splice_index(frames: torch.Tensor, first: torch.Tensor, last: torch.Tensor, context: int) -> torch.Tensor:
    """Rows of the frames in the context of each frame.

    Args:
        frames: Row of each frame, shape (B,), int64.
        first: First row of the utterance of each frame, shape (B,).
        last: Last row of the utterance of each frame, shape (B,).
        context: Number of frames on either side, c.

    Returns:
        Shape (B, 2c + 1), int64.
    """
    offsets = torch.arange(-context, context + 1)
    rows = frames.unsqueeze(1) + offsets
    return torch.minimum(torch.maximum(rows, first.unsqueeze(1)), last.unsqueeze(1))


def utterance_bounds(lengths: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """First and last row of each frame's utterance, where utterances lie one after the other.

    Args:
        lengths: Number of frames of each utterance.

    Returns:
        Two tensors of shape (T,), int64, as ``splice_index`` takes them.

    Example:
        >>> [rows.tolist() for rows in utterance_bounds([2, 1])]
        [[0, 0, 2], [1, 1, 2]]
    """
    frames = torch.tensor(lengths, dtype=torch.int64)
    ends = torch.cumsum(frames, 0)
    return torch.repeat_interleave(ends - frames, frames), torch.repeat_interleave(ends - 1, frames)


def splice(features: torch.Tensor, context: int) -> torch.Tensor:
    """Splice a whole utterance.

    Args:
        features: Features of the utterance, shape (T, D).
        context: Number of frames on either side, c.

    Returns:
        Shape (T, (2c + 1) * D), oldest frame first.

    Example:
        >>> splice(torch.tensor([[1.0], [2.0], [3.0]]), 1).tolist()
        [[1.0, 1.0, 2.0], [1.0, 2.0, 3.0], [2.0, 3.0, 3.0]]
    """
    frames = torch.arange(len(features))
    index = splice_index(frames, torch.zeros_like(frames), torch.full_like(frames, len(features) - 1), context)
    return features[index].flatten(1)
