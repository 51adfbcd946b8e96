"""A feed-forward network from spliced features to pdf posteriors (Swietojanski et al. 2016, sec. V).

Each hidden layer is an affine map, normalisation if it is asked for, a non-linearity and dropout; the output is a
softmax over pdfs. Amplitudes attach after the non-linearity.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar

from pydantic import Field, model_validator

from lhuc_asr.features.context import Context, Splicing
from lhuc_asr.nnet.hidden_layer import ActivationName, LayerShape
from lhuc_asr.nnet.layered_network import LayeredNetwork, NetworkShape
from lhuc_asr.nnet.normalisation import NormalisationName


class DnnConfig(NetworkShape):
    """Shape of the network. The defaults are the paper's.

    Attributes:
        hidden_layers: Number of hidden layers.
        hidden_units: Number of units in each hidden layer, H.
        activation: Non-linearity of the hidden layers.
        dropout: Probability of zeroing a hidden unit in training, rounded to a multiple of 1/256.
        context: Number of frames on either side of the classified frame, c.
        normalisation: Normalisation of the hidden layers before the non-linearity: ``batch`` or ``layer``; None for
            none.
    """

    kind_name: ClassVar[str] = "dnn"

    hidden_layers: int = Field(6, ge=1, le=100)
    hidden_units: int = Field(2048, ge=1, le=65_536)
    activation: ActivationName = "sigmoid"
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    context: int = Field(5, ge=0, le=100)
    normalisation: NormalisationName | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_kind(cls, values: Any) -> Any:
        """The values without ``kind: dnn``, which a recipe may say of one of several shapes.

        It is not a field: the files and the finished stages of before there were other kinds do not have it.
        """
        if not isinstance(values, dict) or values.get("kind") != cls.kind_name:
            return values
        return {name: value for name, value in values.items() if name != "kind"}

    def make(self, feature_dimension: int, pdf_count: int, vector_dimension: int = 0) -> Dnn:
        """A new network of this shape; see ``NetworkShape``."""
        return Dnn(self, feature_dimension, pdf_count, vector_dimension)

    def splicing(self, feature_dimension: int, vector_dimension: int = 0) -> Splicing:
        """How the network's inputs are made of features; see ``NetworkShape``."""
        return Splicing(Context.both(self.context), feature_dimension, vector_dimension)

    def layers(self, splicing: Splicing) -> list[LayerShape]:
        """Shapes of the hidden layers; see ``NetworkShape``."""
        widths = [splicing.width] + [self.hidden_units] * self.hidden_layers
        return [
            LayerShape(below, above, self.activation, self.dropout, self.normalisation)
            for below, above in pairwise(widths)
        ]

    @property
    def site_count(self) -> int:
        """Number of hidden layers."""
        return self.hidden_layers

    @property
    def rectified(self) -> bool:
        """Whether the non-linearity is a rectifier; see ``NetworkShape``."""
        return self.activation == "relu"

    @property
    def summary(self) -> str:
        """The hidden layers in a few words."""
        normalised = f", {self.normalisation} normalised" if self.normalisation else ""
        return f"{self.hidden_layers} x {self.hidden_units} {self.activation}{normalised}"


class Dnn(LayeredNetwork):
    """A feed-forward acoustic model: a ``LayeredNetwork`` whose layers read all of the layer below."""
