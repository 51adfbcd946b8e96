"""Spaces of the Gaussians' features: the store's columns as they are, or a matrix times spliced cepstra."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Protocol

import torch

from lhuc_asr.base.errors import CheckpointError, TransformError
from lhuc_asr.base.tensors import check_tensors, load_format, save_tensors
from lhuc_asr.features.context import Context, splice_index, utterance_bounds

# What a file says of itself.
FORMAT = "lhuc_asr feature space 1"
REMEDY = "delete it and run again"


class FeatureSpace(Protocol):
    """What turns rows of the feature store into the Gaussians' features."""

    @property
    def dimension(self) -> int:
        """Number of features, D."""
        ...

    @property
    def context(self) -> int:
        """Number of neighbours on either side that a frame's features depend on."""
        ...

    def apply(self, rows: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
        """Features of a block of utterances.

        Args:
            rows: The store's rows, utterances one after the other, shape (T, columns), float32.
            lengths: Number of frames of each utterance.

        Returns:
            Shape (T, D), float32.
        """
        ...

    def save(self, path: Path) -> None:
        """Write the space as safetensors."""
        ...


@dataclass(frozen=True)
class AsStored:
    """The store's columns as they are: cepstra with their differences.

    Attributes:
        columns: Number of columns.
    """

    columns: int
    context: ClassVar[int] = 0

    @property
    def dimension(self) -> int:
        """Number of features, D."""
        return self.columns

    def apply(self, rows: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
        """The rows themselves; arguments as for ``FeatureSpace.apply``.

        Raises:
            TransformError: The rows have another number of columns.
        """
        _check_columns(rows, lengths, self.columns)
        return rows

    def save(self, path: Path) -> None:
        """Write the space as safetensors."""
        save_tensors(path, {}, {"format": FORMAT, "kind": "as stored", "columns": self.columns})


@dataclass(frozen=True)
class SplicedLinear:
    """A matrix times the static cepstra of a frame and its neighbours; the utterance's ends are repeated.

    Attributes:
        columns: Number of columns of the store; the static cepstra are the first of them.
        cepstra: Number of static cepstra.
        context: Number of neighbours on either side, c. Kaldi's default for LDA is 4.
        matrix: The transform, shape (D, cepstra (2c + 1)), float32; oldest frame first.
    """

    columns: int
    cepstra: int
    context: int
    matrix: torch.Tensor

    def __post_init__(self) -> None:
        spliced = self.cepstra * (2 * self.context + 1)
        if not 0 < self.cepstra <= self.columns or self.context < 0:
            raise TransformError(
                f"{self.cepstra} cepstra of {self.columns} columns with {self.context} neighbours on either side; "
                "the cepstra are some of the columns"
            )
        if self.matrix.dim() != 2 or self.matrix.shape[1] != spliced or not len(self.matrix):
            raise TransformError(
                f"a matrix of shape {list(self.matrix.shape)} for {spliced} spliced cepstra; expected a column for "
                "each, and a row or more"
            )

    @property
    def dimension(self) -> int:
        """Number of features, D."""
        return len(self.matrix)

    def apply(self, rows: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
        """Features of a block of utterances; arguments as for ``FeatureSpace.apply``.

        Raises:
            TransformError: The rows have another number of columns or frames.
        """
        _check_columns(rows, lengths, self.columns)
        return spliced_cepstra(rows, lengths, self.cepstra, self.context) @ self.matrix.T

    def multiplied(self, matrix: torch.Tensor) -> SplicedLinear:
        """The space with another matrix on top of its own, MLLT's for example.

        Args:
            matrix: Shape (D', D).
        """
        return replace(self, matrix=(matrix.double() @ self.matrix.double()).float())

    def save(self, path: Path) -> None:
        """Write the space as safetensors."""
        description = {
            "format": FORMAT,
            "kind": "spliced linear",
            "columns": self.columns,
            "cepstra": self.cepstra,
            "context": self.context,
        }
        save_tensors(path, {"matrix": self.matrix}, description)


def spliced_cepstra(rows: torch.Tensor, lengths: Sequence[int], cepstra: int, context: int) -> torch.Tensor:
    """The first columns of each frame and its neighbours in the same utterance.

    Args:
        rows: The store's rows, utterances one after the other, shape (T, columns).
        lengths: Number of frames of each utterance.
        cepstra: Number of columns to take.
        context: Number of neighbours on either side, c.

    Returns:
        Shape (T, cepstra (2c + 1)), oldest frame first.
    """
    first, last = utterance_bounds(lengths)
    index = splice_index(torch.arange(len(rows)), first, last, Context.both(context))
    return rows[:, :cepstra][index].flatten(1)


def load_feature_space(path: Path, columns: int) -> FeatureSpace:
    """Read a feature space.

    Args:
        path: A file that ``save`` wrote.
        columns: Number of columns of the store that it is to be used with.

    Raises:
        CheckpointError: The file is missing or damaged, or is for a store of other columns.
    """
    tensors, description = load_format(path, "a feature space", FORMAT)
    space: FeatureSpace
    match description:
        case {"kind": "as stored", "columns": int(stored)}:
            check_tensors(path, tensors, {}, REMEDY)
            space = AsStored(stored)
        case {"kind": "spliced linear", "columns": int(stored), "cepstra": int(cepstra), "context": int(context)}:
            check_tensors(path, tensors, {"matrix": (None, None)}, REMEDY)
            try:
                space = SplicedLinear(stored, cepstra, context, tensors["matrix"].float())
            except TransformError as error:
                raise CheckpointError(f"{path}: {error}; {REMEDY}") from error
            if int(torch.linalg.matrix_rank(space.matrix)) < space.dimension:
                raise CheckpointError(f"{path}: its matrix is singular; {REMEDY}")
        case _:
            raise CheckpointError(f"{path}: its description is not that of a feature space; {REMEDY}")
    if stored != columns:
        raise CheckpointError(f"{path}: for features of {stored} columns, expected {columns}; {REMEDY}")
    return space


def _check_columns(rows: torch.Tensor, lengths: Sequence[int], columns: int) -> None:
    if rows.shape[1] != columns or len(rows) != sum(lengths):
        raise TransformError(
            f"features of {rows.shape[1]} columns and {len(rows)} frames, expected {columns} columns and "
            f"{sum(lengths)} frames; use the store that the model was trained on"
        )
