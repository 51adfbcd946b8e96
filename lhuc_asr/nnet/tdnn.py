"""A time-delay network from spliced features to pdf posteriors, one frame at a time.

Peddinti, Povey and Khudanpur 2015, "A time delay neural network architecture for efficient modeling of long temporal
contexts". A time-delay layer reads the activations below at some offsets in time, and does so with the same weights at
every position: a one-dimensional convolution over time. For the frame in the middle of the window only the positions
are computed that reach it ("sub-sampling" in the paper). With offsets -2 to 2 and then -1 and 2 these are

    output                             0
    second layer                       0
    first layer                  -1         2
    frames               -3 -2 -1 0 1 2 3 4

so that the top layer, and the fully connected layers above it, have one position. Amplitudes attach after the
non-linearity, one a channel, the same at all positions.

A vector of the speaker goes into the first layer at each of its positions, as the i-vectors of the paper are appended
to the features: all layers may then use it.

Mini-batches have shuffled frames, as those of a ``Dnn``, and positions that two frames share are computed for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from lhuc_asr.features.context import Context, Splicing
from lhuc_asr.nnet.arrangement import EVERYTHING, Arrangement, Delays, WindowDelays
from lhuc_asr.nnet.hidden_layer import ActivationName, LayerShape
from lhuc_asr.nnet.layered_network import LayeredNetwork, NetworkShape
from lhuc_asr.nnet.normalisation import NormalisationName

# How far from the classified frame a position may be: that of the longest window of a ``Dnn``.
FARTHEST = 100
# The offsets of one layer, in frames.
Offsets = Annotated[tuple[Annotated[int, Field(ge=-FARTHEST, le=FARTHEST)], ...], Field(min_length=1)]


class TdnnConfig(NetworkShape):
    """Shape of the network. The default offsets are those of the paper's table 1.

    Attributes:
        kind: Name of the kind.
        offsets: Offsets in time of each time-delay layer from the bottom, in frames, ascending.
        channels: Number of channels of each time-delay layer, C.
        hidden_layers: Number of fully connected layers above.
        hidden_units: Number of units in each of them, H.
        activation: Non-linearity of all layers.
        dropout: Probability of zeroing an activation in training, rounded to a multiple of 1/256.
        normalisation: Normalisation of all layers before the non-linearity: ``batch``, over frames and positions, or
            ``layer``, over the channels of a position; None for none.
    """

    kind_name: ClassVar[str] = "tdnn"

    kind: Literal["tdnn"] = "tdnn"
    offsets: tuple[Offsets, ...] = Field(((-2, -1, 0, 1, 2), (-1, 2), (-3, 3), (-7, 2)), min_length=1, max_length=50)
    channels: int = Field(512, ge=1, le=65_536)
    hidden_layers: int = Field(1, ge=0, le=50)
    hidden_units: int = Field(512, ge=1, le=65_536)
    activation: ActivationName = "relu"
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    normalisation: NormalisationName | None = None

    @model_validator(mode="after")
    def _reaches(self) -> Self:
        for layer, offsets in enumerate(self.offsets):
            if list(offsets) != sorted(set(offsets)):
                raise ValueError(f"offsets: layer {layer} has {list(offsets)}; expected ascending numbers")
        needed_positions(self.offsets)
        return self

    def make(self, feature_dimension: int, pdf_count: int, vector_dimension: int = 0) -> Tdnn:
        """A new network of this shape; see ``NetworkShape``."""
        return Tdnn(self, feature_dimension, pdf_count, vector_dimension)

    @property
    def context(self) -> Context:
        """The neighbours from the first position that is needed to the last one."""
        positions = needed_positions(self.offsets)[0]
        # The frame itself is in the window even where no layer reads it.
        return Context(max(0, -positions[0]), max(0, positions[-1]))

    def splicing(self, feature_dimension: int, vector_dimension: int = 0) -> Splicing:
        """How the network's inputs are made of features; see ``NetworkShape``."""
        return Splicing(self.context, feature_dimension, vector_dimension)

    def layers(self, splicing: Splicing) -> list[LayerShape]:
        """Shapes of the hidden layers; see ``NetworkShape``."""
        _, *needed = needed_positions(self.offsets)
        plans: list[tuple[int, int, Arrangement]] = []
        below: Sequence[int] = range(-splicing.context.left, splicing.context.right + 1)
        for offsets, positions in zip(self.offsets, needed, strict=True):
            taken = [[below.index(position + offset) for offset in offsets] for position in positions]
            if not plans:
                inputs = len(offsets) * splicing.dimension + splicing.vector
                plans.append((inputs, self.channels, WindowDelays(splicing, taken)))
            else:
                single = len(below) == 1
                arrangement = EVERYTHING if single else Delays(len(below), taken)
                plans.append((len(offsets) * self.channels, self.channels, arrangement))
            below = positions
        widths = [self.channels] + [self.hidden_units] * self.hidden_layers
        plans += [(width, self.hidden_units, EVERYTHING) for width in widths[:-1]]
        return [
            LayerShape(inputs, units, self.activation, self.dropout, self.normalisation, arrangement)
            for inputs, units, arrangement in plans
        ]

    @property
    def site_count(self) -> int:
        """Number of hidden layers, time-delay layers and fully connected ones."""
        return len(self.offsets) + self.hidden_layers

    @property
    def rectified(self) -> bool:
        """Whether the non-linearity is a rectifier; see ``NetworkShape``."""
        return self.activation == "relu"

    @property
    def summary(self) -> str:
        """The hidden layers in a few words."""
        delays = " ".join("{" + ",".join(map(str, offsets)) + "}" for offsets in self.offsets)
        above = f", {self.hidden_layers} x {self.hidden_units}" if self.hidden_layers else ""
        normalised = f", {self.normalisation} normalised" if self.normalisation else ""
        return f"time delays {delays} x {self.channels}{above} {self.activation}{normalised}"


class Tdnn(LayeredNetwork):
    """A time-delay acoustic model: a ``LayeredNetwork`` whose lower layers read several positions of the one below."""


def needed_positions(offsets: Sequence[Sequence[int]]) -> list[list[int]]:
    """The positions that reach the classified frame, in frames from it.

    Args:
        offsets: Offsets of each time-delay layer from the bottom.

    Returns:
        Positions of the features, then of each layer's activations, ascending; those of the top layer are [0].

    Raises:
        ValueError: A position is farther than ``FARTHEST`` from the classified frame.

    Example:
        >>> needed_positions([(-1, 0, 1), (-2, 3)])
        [[-3, -2, -1, 2, 3, 4], [-2, 3], [0]]
    """
    needed = [[0]]
    for each in reversed(offsets):
        below = sorted({position + offset for position in needed[0] for offset in each})
        if max(map(abs, below)) > FARTHEST:
            raise ValueError(f"offsets: they reach {max(below, key=abs)} frames; expected at most {FARTHEST}")
        needed.insert(0, below)
    return needed
