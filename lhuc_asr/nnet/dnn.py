"""A feed-forward network from spliced features to pdf posteriors (Swietojanski et al. 2016, sec. V).

Each hidden layer is an affine map, a non-linearity and dropout; the output is a softmax over pdfs. Amplitudes attach
after the non-linearity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.errors import SiteError
from lhuc_asr.nnet.acoustic_model import AcousticModel
from lhuc_asr.nnet.dropout import Dropout
from lhuc_asr.nnet.feed_forward import FeedForward
from lhuc_asr.nnet.scaled_dnn import ScaledDnn


class DnnConfig(StrictModel):
    """Shape of the network. The defaults are the paper's.

    Attributes:
        hidden_layers: Number of hidden layers.
        hidden_units: Number of units in each hidden layer, H.
        activation: Non-linearity of the hidden layers.
        dropout: Probability of zeroing a hidden unit in training, rounded to a multiple of 1/256.
        context: Number of frames on either side of the classified frame, c.
    """

    hidden_layers: int = Field(6, ge=1, le=100)
    hidden_units: int = Field(2048, ge=1, le=65_536)
    activation: Literal["sigmoid", "relu"] = "sigmoid"
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    context: int = Field(5, ge=0, le=100)


class HiddenLayer(nn.Module):
    """An affine map, a non-linearity and dropout.

    Args:
        inputs: Number of inputs, I.
        units: Number of units, H.
        activation: Name of the non-linearity.
        dropout: Probability of zeroing a unit in training.
    """

    def __init__(self, inputs: int, units: int, activation: str, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, units)
        self.activation: nn.Module = nn.Sigmoid() if activation == "sigmoid" else nn.ReLU()
        self.dropout = Dropout(dropout)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Outputs (B, H) of inputs (B, I)."""
        hidden: torch.Tensor = self.dropout(self.activation(self.linear(inputs)))
        return hidden


class Dnn(AcousticModel):
    """A feed-forward acoustic model.

    Args:
        config: Shape of the network.
        feature_dimension: Number of features per frame, D.
        pdf_count: Number of pdfs, K.
        vector_dimension: Number of values of the vector of the speaker, R; 0 for none.

    Attributes:
        config: Shape of the network.
        log_prior: Log prior of each pdf, shape (K,); zeros in a new network.
    """

    def __init__(self, config: DnnConfig, feature_dimension: int, pdf_count: int, vector_dimension: int = 0) -> None:
        super().__init__()
        self.vector_dimension = vector_dimension
        self.config = config
        self.feature_dimension = feature_dimension
        self.pdf_count = pdf_count
        self.context = config.context
        widths = [self.splicing.width] + [config.hidden_units] * config.hidden_layers
        self.hidden = nn.ModuleList(
            HiddenLayer(below, above, config.activation, config.dropout) for below, above in pairwise(widths)
        )
        self.output = nn.Linear(config.hidden_units, pdf_count)
        self.register_buffer("log_prior", torch.zeros(pdf_count))

    def initialise(self, generator: torch.Generator) -> None:
        """Draw random weights: He et al. (2015) for ReLU, four times Glorot and Bengio (2010) for sigmoid."""
        for number, layer in enumerate(self.hidden):
            if not isinstance(layer, HiddenLayer):
                raise TypeError(f"found a {type(layer).__name__}; expected every hidden layer to be a HiddenLayer")
            weight = layer.linear.weight
            fan_out, fan_in = weight.shape
            if self.config.activation == "relu":
                limit = (6.0 / fan_in) ** 0.5
            else:
                limit = 4.0 * (6.0 / (fan_in + fan_out)) ** 0.5
            nn.init.uniform_(weight, -limit, limit, generator=generator)
            nn.init.zeros_(layer.linear.bias)
            if self.config.activation == "sigmoid" and number > 0:
                # Inputs are around 1/2, not 0. Without this shift, the higher layers would start in the flat part of
                # the sigmoid.
                with torch.no_grad():
                    layer.linear.bias.sub_(0.5 * weight.sum(1))
        # All pdfs start equally likely, so that the first steps learn the priors instead of undoing noise.
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, spliced: torch.Tensor) -> torch.Tensor:
        """Logits of the pdfs, before the softmax.

        Args:
            spliced: Shape (B, (2c + 1) D + R).

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
        hidden = [layer for layer in self.hidden if isinstance(layer, HiddenLayer)]
        linear = (*(layer.linear for layer in hidden), self.output)
        affine = [(part.weight.detach(), part.bias.detach()) for part in linear]
        return FeedForward(affine, hidden[0].activation)
