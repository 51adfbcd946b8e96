"""A mini-batch of examples, as the networks read it. B examples, N categories in all of a feature's cells."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Bag:
    """Any number of categories an example, as ``torch.nn.EmbeddingBag`` takes them.

    Attributes:
        values: Rows of the table, example after example, shape (N,), int64.
        offsets: Where each example's begin, shape (B,), int64; an example without any begins where the next does.
    """

    values: Tensor
    offsets: Tensor

    @classmethod
    def of_parts(cls, values: Tensor, starts: Tensor, lengths: Tensor) -> Bag:
        """Parts of a row of categories, joined.

        Args:
            values: Shape (M,).
            starts: Where each example's part begins, shape (B,).
            lengths: How long it is, shape (B,).
        """
        offsets = lengths.cumsum(0) - lengths
        positions = torch.arange(int(lengths.sum())) + (starts - offsets).repeat_interleave(lengths)
        return cls(values[positions], offsets)

    def take(self, examples: Tensor) -> Bag:
        """Some of the examples, by their places, shape (b,)."""
        ends = torch.cat([self.offsets[1:], torch.tensor([len(self.values)])])
        return Bag.of_parts(self.values, self.offsets[examples], (ends - self.offsets)[examples])

    def to(self, device: torch.device) -> Bag:
        """The same on a device."""
        return Bag(self.values.to(device), self.offsets.to(device))


@dataclass(frozen=True, slots=True)
class Batch:
    """A mini-batch; every feature of the schema is in one of the first three, by its name.

    Attributes:
        ids: Features of one category: rows of their tables, shape (B,), int64. Row 0 stands for every category that
            training has not seen.
        bags: Features of any number of categories.
        numbers: Standardised numbers, shape (B,), float32.
        labels: 0 or 1, shape (B, tasks), float32; shape (B, 0) where there are none.
        users: Whose examples these are, for GAUC, shape (B,), int64: the same number for the same user, be he known
            to the vocabulary or not.
    """

    ids: dict[str, Tensor]
    bags: dict[str, Bag]
    numbers: dict[str, Tensor]
    labels: Tensor
    users: Tensor

    def __len__(self) -> int:
        return len(self.users)

    def take(self, examples: Tensor) -> Batch:
        """Some of the examples, by their places, shape (b,)."""
        return Batch(
            {name: rows[examples] for name, rows in self.ids.items()},
            {name: bag.take(examples) for name, bag in self.bags.items()},
            {name: numbers[examples] for name, numbers in self.numbers.items()},
            self.labels[examples],
            self.users[examples],
        )

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(
            {name: rows.to(device) for name, rows in self.ids.items()},
            {name: bag.to(device) for name, bag in self.bags.items()},
            {name: numbers.to(device) for name, numbers in self.numbers.items()},
            self.labels.to(device),
            self.users.to(device),
        )
