"""Context splicing: each frame with its neighbours; the first and last frame of an utterance are repeated.

A network may also take a vector of the frame's speaker, such as an i-vector. It follows the frame's own features in
each row, and the spliced window once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lhuc_asr.base.errors import FeatureError


@dataclass(frozen=True)
class Context:
    """The neighbours of a frame in its window.

    Attributes:
        left: Number of frames before it.
        right: Number of frames after it.
    """

    left: int
    right: int

    @classmethod
    def both(cls, frames: int) -> Context:
        """As many frames on either side."""
        return cls(frames, frames)

    @property
    def frames(self) -> int:
        """Number of frames of a window, w: the neighbours and the frame itself."""
        return self.left + 1 + self.right

    def __str__(self) -> str:
        """The neighbours in words.

        Example:
            >>> str(Context(13, 9)), str(Context.both(5))
            ('13 frames of context before and 9 after', '5 frames of context on each side')
        """
        if self.left == self.right:
            return f"{self.left} frames of context on each side"
        return f"{self.left} frames of context before and {self.right} after"


@dataclass(frozen=True)
class Splicing:
    """What a network takes of features: a window of each frame and its neighbours, and a vector of the speaker.

    Rows of features have the vector after the features, or lack it; it is 0 then, which stands for nobody's voice.

    Attributes:
        context: The neighbours of a frame in its window of w frames.
        dimension: Number of features per frame, D.
        vector: Number of the vector's values, R; 0 for none.
    """

    context: Context
    dimension: int
    vector: int = 0

    @property
    def window(self) -> int:
        """Number of values of a window, w D."""
        return self.context.frames * self.dimension

    @property
    def width(self) -> int:
        """Number of values of a window and the vector, w D + R."""
        return self.window + self.vector

    def fits(self, columns: int) -> bool:
        """Whether features with that number of columns can be spliced: D, or D + R."""
        return columns in (self.dimension, self.dimension + self.vector)

    def of(self, features: torch.Tensor, frames: torch.Tensor, first: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        """Splice some frames.

        Args:
            features: Utterances one after the other, shape (N, D) or (N, D + R).
            frames: Row of each frame, shape (B,), int64.
            first: First row of the utterance of each frame, shape (B,).
            last: Last row of the utterance of each frame, shape (B,).

        Returns:
            Windows and vectors, oldest frame first, shape (B, w D + R).

        Raises:
            FeatureError: The features have another number of columns.
        """
        columns = features.shape[1]
        if not self.fits(columns):
            raise FeatureError(f"{columns} features per frame, but the network takes {self.dimension}")
        index = splice_index(frames, first, last, self.context)
        windows = features[:, : self.dimension][index].flatten(1)
        if not self.vector:
            return windows
        if columns == self.dimension:
            return torch.cat([windows, windows.new_zeros(len(windows), self.vector)], dim=1)
        return torch.cat([windows, features[frames, self.dimension :]], dim=1)

    def utterance(self, features: torch.Tensor) -> torch.Tensor:
        """Splice a whole utterance.

        Args:
            features: Features of the utterance, shape (T, D) or (T, D + R).

        Returns:
            Shape (T, w D + R).

        Raises:
            FeatureError: The features have another number of columns.
        """
        frames = torch.arange(len(features))
        return self.of(features, frames, torch.zeros_like(frames), torch.full_like(frames, len(features) - 1))


def splice_index(frames: torch.Tensor, first: torch.Tensor, last: torch.Tensor, context: Context) -> torch.Tensor:
    """Rows of the frames in the context of each frame.

    Args:
        frames: Row of each frame, shape (B,), int64.
        first: First row of the utterance of each frame, shape (B,).
        last: Last row of the utterance of each frame, shape (B,).
        context: The neighbours.

    Returns:
        Shape (B, w), int64.
    """
    offsets = torch.arange(-context.left, context.right + 1)
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
    """Splice a whole utterance, with as many frames on either side.

    Args:
        features: Features of the utterance, shape (T, D).
        context: Number of frames on either side, c.

    Returns:
        Shape (T, (2c + 1) D), oldest frame first.

    Example:
        >>> splice(torch.tensor([[1.0], [2.0], [3.0]]), 1).tolist()
        [[1.0, 1.0, 2.0], [1.0, 2.0, 3.0], [2.0, 3.0, 3.0]]
    """
    return Splicing(Context.both(context), features.shape[1]).utterance(features)
