"""What alignment, search and adaptation ask of an acoustic model, whatever its layers are.

A *site* is the output of a hidden layer's non-linearity, which an adaptation method may scale. Sites have the names of
the modules there, so that hooks can be set on them. ``AcousticModel.scaled`` gives a ``ScaledNetwork``, which takes the
scales as an argument instead of hooks: threads can run it with different speakers at the same time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from lhuc_asr.base.errors import SiteError
from lhuc_asr.features.context import Context, Splicing
from lhuc_asr.nnet.feed_forward import FeedForward
from lhuc_asr.nnet.vector_tensors import VectorTensors


class AcousticModel(nn.Module, ABC):
    """A network from spliced features to pdf posteriors.

    Attributes:
        feature_dimension: Number of features per frame, D.
        pdf_count: Number of pdfs, K.
        context: The neighbours of a frame in its window of w frames.
        vector_dimension: Number of values of the vector of the speaker that it takes beside the features, R; 0 for
            none.
        vectors: What such a vector is computed with; None where it takes none.
        log_prior: Log prior of each pdf, shape (K,); a buffer.
    """

    feature_dimension: int
    pdf_count: int
    context: Context
    vector_dimension: int = 0
    vectors: VectorTensors | None
    log_prior: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.vectors = None

    @property
    def splicing(self) -> Splicing:
        """How its inputs are made of features. "Spliced" below means these inputs: w D + R values a frame."""
        return Splicing(self.context, self.feature_dimension, self.vector_dimension)

    @abstractmethod
    def hidden_layers(self) -> Mapping[str, nn.Module]:
        """The modules of the hidden layers from the bottom, by the names of the layers' sites.

        The lowest module takes the spliced features, each other module the output of the one below: activations (B, H),
        or (B, P, H) of a layer that computes several positions of the window (``over_positions``).
        """

    @abstractmethod
    def scaled(self, sites: Sequence[str], precision: torch.dtype | None = None) -> ScaledNetwork:
        """The network with scaled sites; it shares this network's weights.

        Args:
            sites: Names of the scaled sites, from the bottom.
            precision: Type of the matrix products above the lowest scaled site; None for the weights' type.

        Raises:
            SiteError: The network does not have a site.
        """

    def feed_forward(self) -> FeedForward:
        """The network as plain tensors, which share its weights, without gradient.

        Raises:
            SiteError: It is not a feed-forward network.
        """
        raise SiteError(f"{type(self).__name__} has no feed-forward layers to change; adapt a network, or by fmllr")

    def sites(self, layers: Sequence[int] | None = None) -> list[str]:
        """Names of the sites of some hidden layers.

        Args:
            layers: Numbers of the layers, from 0 at the bottom; None for all.

        Raises:
            SiteError: The network does not have one of the layers, or ``layers`` is empty.
        """
        names = list(self.hidden_layers())
        if layers is None:
            return names
        wrong = [layer for layer in layers if not 0 <= layer < len(names)]
        if wrong or not layers:
            raise SiteError(f"layers {wrong or 'none'}: the network has hidden layers 0 to {len(names) - 1}")
        return [names[layer] for layer in layers]

    def log_likelihoods(self, spliced: Tensor) -> Tensor:
        """Log p(x | pdf), up to a constant per frame (Bourlard and Morgan 1994).

        Args:
            spliced: Shape (B, w D + R).

        Returns:
            Shape (B, K), float32.
        """
        return over_priors(self(spliced), self.log_prior)


class ScaledNetwork(ABC):
    """A network in evaluation mode whose sites are scaled by an argument; its weights never change.

    Attributes:
        width: Number of outputs of the lowest scaled site for a frame: units H, times positions P where it has several.
        device: Device of the weights.
    """

    width: int
    device: torch.device

    @abstractmethod
    def psi(self, spliced: Tensor) -> Tensor:
        """Outputs (B, width) of the lowest scaled site before scaling, for inputs (B, w D + R); no gradient."""

    @abstractmethod
    def logits(self, psi: Tensor, scales: Sequence[Tensor]) -> Tensor:
        """Logits of the pdfs.

        Args:
            psi: N contiguous blocks of equal size, each with its own scales, shape (B, width).
            scales: Scales at each site, shapes (N, H).

        Returns:
            Shape (B, K).
        """


def over_positions(activations: Tensor) -> Tensor:
    """The mean over positions of activations (B, P, H), shape (B, H); activations (B, H) of one position themselves."""
    return activations if activations.dim() == 2 else activations.mean(1)


def over_priors(logits: Tensor, log_prior: Tensor) -> Tensor:
    """Log posteriors minus log priors: log p(x | pdf), up to a constant per frame, shape (B, K), float32."""
    return torch.log_softmax(logits.float(), dim=1) - log_prior
