"""Hypotheses: sequences of tokens that a model puts out, and how far two lots of them are apart."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# A token sequence: words, characters, or numbers of classes.
Hypothesis = Sequence[Hashable]
# Scores (B, T, ...) and the number of valid frames of each element, (B,) -> B hypotheses.
Decode = Callable[[Tensor, Tensor], Sequence[Hypothesis]]


@dataclass(frozen=True)
class GreedyCtc:
    """The best class of each frame, repetitions joined, blanks left out.

    Attributes:
        blank: The class of the blank; None for frame classes without one.
    """

    blank: int | None = 0

    def __call__(self, scores: Tensor, lengths: Tensor) -> list[list[int]]:
        """The hypotheses.

        Args:
            scores: Logits or log posteriors, shape (B, T, K).
            lengths: Number of valid frames of each element, shape (B,).

        Example:
            >>> scores = torch.eye(3)[torch.tensor([[1, 1, 0, 1, 2, 2]])]
            >>> GreedyCtc()(scores, torch.tensor([5]))
            [[1, 1, 2]]
        """
        best = scores.argmax(2).cpu()
        runs = [torch.unique_consecutive(row[:length]) for row, length in zip(best, lengths.tolist(), strict=True)]
        return [[token for token in run.tolist() if token != self.blank] for run in runs]


def edits(one: Hypothesis, other: Hypothesis) -> int:
    """The least number of insertions, deletions and substitutions that turn one into the other.

    Example:
        >>> edits("kitten", "sitting")
        3
    """
    row = list(range(len(other) + 1))
    for position, token in enumerate(one, start=1):
        diagonal, row[0] = row[0], position
        for column, counterpart in enumerate(other, start=1):
            change = min(row[column] + 1, row[column - 1] + 1, diagonal + (token != counterpart))
            diagonal, row[column] = row[column], change
    return row[-1]
