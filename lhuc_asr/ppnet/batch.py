"""Mini-batches of examples, as the networks read them: B examples, N categories in all cells of a field."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# The number of the user where the user is missing: such examples are not one person's.
NO_USER = -1


@dataclass(frozen=True, slots=True)
class Bag:
    """Any number of categories for each example, as ``torch.nn.EmbeddingBag`` takes them.

    Attributes:
        values: Rows of the table, example after example, shape (N,), int64.
        offsets: Position in ``values`` of each example's first row, shape (B,), int64; an example without categories
            has the position of the next one.
    """

    values: Tensor
    offsets: Tensor

    @classmethod
    def of_parts(cls, values: Tensor, starts: Tensor, lengths: Tensor) -> Bag:
        """Join parts of a row of categories.

        Args:
            values: Rows of the table, shape (M,).
            starts: Position of each example's part, shape (B,).
            lengths: Length of each example's part, shape (B,).
        """
        offsets = lengths.cumsum(0) - lengths
        positions = torch.arange(int(lengths.sum())) + (starts - offsets).repeat_interleave(lengths)
        return cls(values[positions], offsets)

    def take(self, examples: Tensor) -> Bag:
        """The examples at some positions, shape (b,)."""
        ends = torch.cat([self.offsets[1:], torch.tensor([len(self.values)])])
        return Bag.of_parts(self.values, self.offsets[examples], (ends - self.offsets)[examples])

    def to(self, device: torch.device) -> Bag:
        """A copy on a device."""
        return Bag(self.values.to(device), self.offsets.to(device))


@dataclass(frozen=True, slots=True)
class Batch:
    """A mini-batch; every field of the schema is in one of the first three attributes, by name.

    Attributes:
        ids: Fields of one category: rows of their tables, shape (B,), int64. Row 0 stands for every category that
            training has not seen.
        bags: Fields of any number of categories.
        numbers: Standardised numbers, shape (B,), float32.
        labels: 0 or 1, shape (B, tasks), float32; shape (B, 0) without labels.
        users: Number of each example's user, for GAUC, shape (B,), int64: the same for the same user, also for users
            that the vocabulary does not have; ``NO_USER`` where the user is missing.
    """

    ids: dict[str, Tensor]
    bags: dict[str, Bag]
    numbers: dict[str, Tensor]
    labels: Tensor
    users: Tensor

    def __len__(self) -> int:
        return len(self.users)

    def take(self, examples: Tensor) -> Batch:
        """The examples at some positions, shape (b,)."""
        return Batch(
            {name: rows[examples] for name, rows in self.ids.items()},
            {name: bag.take(examples) for name, bag in self.bags.items()},
            {name: numbers[examples] for name, numbers in self.numbers.items()},
            self.labels[examples],
            self.users[examples],
        )

    def to(self, device: torch.device) -> Batch:
        """A copy on a device."""
        return Batch(
            {name: rows.to(device) for name, rows in self.ids.items()},
            {name: bag.to(device) for name, bag in self.bags.items()},
            {name: numbers.to(device) for name, numbers in self.numbers.items()},
            self.labels.to(device),
            self.users.to(device),
        )
