"""Which activations of the layer below a layer reads: all of them, or those at some positions of the window.

Activations at several positions have two forms. The modules of a network keep an axis for them, (B, P, C), so that
amplitudes find the batch and the channels; at a single position they are (B, C). Plain tensors lay the positions of all
frames one below the other, (B P, C), so that a layer is one matrix product, and the rows of a block of frames are a
block too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lhuc_asr.features.context import Splicing


class Arrangement:
    """Everything below as it is, at one position. Subclasses override the methods.

    Attributes:
        positions: Number of positions that the layer computes for a frame, P'.
    """

    positions = 1

    def of_grid(self, below: Tensor) -> Tensor:
        """Inputs of the layer, (B, P', I), or (B, I) where P' is 1.

        Args:
            below: Activations of the layer below, (B, P, C), or (B, C) where P is 1; for the lowest layer the
                network's inputs, (B, w D + R).
        """
        return below

    def of_rows(self, below: Tensor) -> Tensor:
        """The same with the positions of all frames one below the other.

        Args:
            below: Shape (..., B P, C); for the lowest layer (..., B, w D + R).

        Returns:
            Shape (..., B P', I).
        """
        return below


# The arrangement of fully connected layers.
EVERYTHING = Arrangement()


class Delays(Arrangement):
    """Activations at several positions, side by side.

    Args:
        below: Number of positions below, P.
        taken: The positions that each of the layer's positions reads, shape (P', k).
    """

    def __init__(self, below: int, taken: Sequence[Sequence[int]]) -> None:
        self.positions = len(taken)
        self._below = below
        # Lists in place of a tensor: a traced graph then has them as constants, and folding can follow the units.
        self._taken = [list(each) for each in taken]

    def of_grid(self, below: Tensor) -> Tensor:
        """Inputs (B, P', k C), or (B, k C), of activations (B, P, C); see ``Arrangement``."""
        inputs = self._side_by_side(below)
        return inputs if self.positions > 1 else inputs[..., 0, :]

    def of_rows(self, below: Tensor) -> Tensor:
        """Inputs (..., B P', k C) of activations (..., B P, C); see ``Arrangement``."""
        frames = below.shape[-2] // self._below
        return self._side_by_side(below.unflatten(-2, (frames, self._below))).flatten(-3, -2)

    def _side_by_side(self, grid: Tensor) -> Tensor:
        """Inputs (..., B, P', k C) of activations (..., B, P, C)."""
        return grid[..., self._taken, :].flatten(-2)


class WindowDelays(Delays):
    """Frames of the window, side by side, each time with the vector of the speaker, if there is one.

    Args:
        splicing: How the network's inputs are made.
        taken: Numbers in the window of the frames that each of the layer's positions reads, shape (P', k).
    """

    def __init__(self, splicing: Splicing, taken: Sequence[Sequence[int]]) -> None:
        super().__init__(splicing.context.frames, taken)
        self._splicing = splicing

    def of_rows(self, below: Tensor) -> Tensor:
        """Inputs (..., B P', k D + R) of the network's inputs (..., B, w D + R); see ``Arrangement``."""
        return self._side_by_side(below).flatten(-3, -2)

    def _side_by_side(self, grid: Tensor) -> Tensor:
        """Inputs (..., B, P', k D + R) of the network's inputs (..., B, w D + R)."""
        window = self._splicing.window
        frames = grid[..., :window].unflatten(-1, (self._below, self._splicing.dimension))
        inputs = super()._side_by_side(frames)
        if not self._splicing.vector:
            return inputs
        vectors = grid[..., window:].unsqueeze(-2).repeat_interleave(self.positions, dim=-2)
        return torch.cat([inputs, vectors], dim=-1)
