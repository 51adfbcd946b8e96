"""A network of hidden layers one above the other: its shape, as a recipe and a file name it, and its forward pass."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import nn

from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.errors import SiteError
from lhuc_asr.base.tensors import Shape
from lhuc_asr.features.context import Splicing
from lhuc_asr.nnet.acoustic_model import AcousticModel
from lhuc_asr.nnet.arrangement import EVERYTHING
from lhuc_asr.nnet.feed_forward import FeedForward
from lhuc_asr.nnet.hidden_layer import HiddenLayer, LayerShape
from lhuc_asr.nnet.scaled_dnn import ScaledDnn


class NetworkShape(StrictModel):
    """Shape of a network; a subclass for each kind.

    Attributes:
        kind_name: Name of the kind: the value of ``kind`` in a recipe, and the key of the shape in a file.
    """

    kind_name: ClassVar[str]

    @abstractmethod
    def make(self, feature_dimension: int, pdf_count: int, vector_dimension: int = 0) -> LayeredNetwork:
        """A new network of this shape.

        Args:
            feature_dimension: Number of features per frame, D.
            pdf_count: Number of pdfs, K.
            vector_dimension: Number of values of the vector of the speaker beside the features, R; 0 for none.
        """

    @abstractmethod
    def splicing(self, feature_dimension: int, vector_dimension: int = 0) -> Splicing:
        """How the network's inputs are made of features; arguments as ``make``."""

    @abstractmethod
    def layers(self, splicing: Splicing) -> list[LayerShape]:
        """Shapes of the hidden layers from the bottom."""

    @property
    @abstractmethod
    def site_count(self) -> int:
        """Number of hidden layers, each of them a site."""

    @property
    @abstractmethod
    def rectified(self) -> bool:
        """Whether the non-linearity of the hidden layers is a rectifier."""

    @property
    @abstractmethod
    def summary(self) -> str:
        """The hidden layers in a few words."""

    def tensors(self, feature_dimension: int, pdf_count: int, vector_dimension: int = 0) -> dict[str, Shape]:
        """Shapes of the network's tensors, by name, without making one; arguments as ``make``."""
        layers = self.layers(self.splicing(feature_dimension, vector_dimension))
        shapes: dict[str, Shape] = {
            f"hidden.{number}.{name}": shape
            for number, layer in enumerate(layers)
            for name, shape in layer.tensors().items()
        }
        output: dict[str, Shape] = {"output.weight": (pdf_count, layers[-1].units), "output.bias": (pdf_count,)}
        return shapes | output | {"log_prior": (pdf_count,)}


class LayeredNetwork(AcousticModel):
    """A network of hidden layers and a softmax over pdfs.

    Args:
        config: Shape of the network.
        feature_dimension: Number of features per frame, D.
        pdf_count: Number of pdfs, K.
        vector_dimension: Number of values of the vector of the speaker that it takes beside the features, R.

    Attributes:
        config: Shape of the network.
        log_prior: Log prior of each pdf, shape (K,); zeros in a new network.
    """

    def __init__(self, config: NetworkShape, feature_dimension: int, pdf_count: int, vector_dimension: int = 0) -> None:
        super().__init__()
        self.config = config
        splicing = config.splicing(feature_dimension, vector_dimension)
        self.feature_dimension = feature_dimension
        self.pdf_count = pdf_count
        self.vector_dimension = vector_dimension
        self.context = splicing.context
        shapes = config.layers(splicing)
        self.hidden = nn.ModuleList(HiddenLayer(shape) for shape in shapes)
        self.output = nn.Linear(shapes[-1].units, pdf_count)
        self.register_buffer("log_prior", torch.zeros(pdf_count))

    def initialise(self, generator: torch.Generator) -> None:
        """Draw random weights; see ``HiddenLayer.initialise``."""
        for number, layer in enumerate(self._hidden):
            layer.initialise(generator, centred=number == 0)
        # All pdfs start equally likely, so that the first steps learn the priors instead of undoing noise.
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, spliced: torch.Tensor) -> torch.Tensor:
        """Logits of the pdfs, before the softmax.

        Args:
            spliced: Shape (B, w D + R).

        Returns:
            Shape (B, K).
        """
        hidden = spliced
        for layer in self.hidden:
            hidden = layer(hidden)
        logits: torch.Tensor = self.output(hidden)
        return logits

    def hidden_layers(self) -> Mapping[str, nn.Module]:
        """The hidden layers from the bottom, by the names of their sites: ``hidden.<layer>.activation``."""
        return {f"hidden.{number}.activation": layer for number, layer in enumerate(self.hidden)}

    def scaled(self, sites: Sequence[str], precision: torch.dtype | None = None) -> ScaledDnn:
        """The network with scaled sites; see ``AcousticModel.scaled``."""
        names = self.sites()
        unknown = [site for site in sites if site not in names]
        if unknown or not sites:
            raise SiteError(f"no site {', '.join(unknown) or 'was named'}; the network has {', '.join(names)}")
        return ScaledDnn(self.feed_forward(), [names.index(site) for site in sites], precision)

    def feed_forward(self) -> FeedForward:
        """Its layers as plain tensors; see ``AcousticModel.feed_forward``."""
        plain = [layer.plain() for layer in self._hidden]
        return FeedForward(
            inputs=self.splicing.width,
            affine=[*(affine for affine, _ in plain), (self.output.weight.detach(), self.output.bias.detach())],
            activation=self._hidden[0].activation,
            arrangements=[*(layer.shape.arrangement for layer in self._hidden), EVERYTHING],
            normalisations=[normalised for _, normalised in plain],
        )

    @property
    def _hidden(self) -> list[HiddenLayer]:
        return [layer for layer in self.hidden if isinstance(layer, HiddenLayer)]
