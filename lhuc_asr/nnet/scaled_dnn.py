"""A frozen feed-forward network with scaled sites, for adaptation and decoding without hooks.

Below the lowest scaled site nothing depends on the scales. Adaptation computes the output of this site before scaling
(``psi``) once for all sweeps. Above this site, the weights are plain tensors without gradient: a mini-batch costs one
matrix product per layer forward, one backward for each layer with a scaled site below it, and none for gradients of
weights.

The network computes equation 3 of Swietojanski et al. (2016), as hooks on the network would.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from lhuc_asr.nnet.acoustic_model import ScaledNetwork
from lhuc_asr.nnet.feed_forward import FeedForward


class ScaledDnn(ScaledNetwork):
    """A feed-forward network with scaled sites.

    Args:
        network: The network.
        layers: Numbers of the hidden layers whose outputs are scaled, ascending.
        precision: Type of the matrix products above the lowest scaled site; everything else keeps the weights' type.
    """

    def __init__(
        self,
        network: FeedForward,
        layers: Sequence[int],
        precision: torch.dtype | None = None,
    ) -> None:
        self._layers, self._activation = tuple(layers), network.activation
        self._type, self.device = network.affine[-1][0].dtype, network.device
        cut = self._layers[0] + 1
        self._below, self._above = network.affine[:cut], network.affine[cut:]
        self.width = len(self._below[-1][1])
        if precision is not None:
            self._above = [(weight.to(precision), bias.to(precision)) for weight, bias in self._above]

    def psi(self, spliced: Tensor) -> Tensor:
        """Outputs (B, H) of the lowest scaled site before scaling, for inputs (B, (2c + 1) D)."""
        with torch.no_grad():
            hidden = spliced.to(self._type)
            for weight, bias in self._below:
                hidden = self._activation(functional.linear(hidden, weight, bias))
        return hidden

    def logits(self, psi: Tensor, scales: Sequence[Tensor]) -> Tensor:
        """Logits (B, K) for psi (B, H), N blocks of equal size, with scales of shapes (N, H); see ``ScaledNetwork``."""
        scale_of = dict(zip(self._layers, scales, strict=True))
        hidden = psi
        for layer, (weight, bias) in enumerate(self._above, start=self._layers[0]):
            if layer in scale_of:
                blocks = hidden.unflatten(0, (len(scale_of[layer]), -1))  # (N, B / N, H)
                hidden = (blocks * scale_of[layer].unsqueeze(1)).flatten(0, 1)
            hidden = functional.linear(hidden.to(weight.dtype), weight, bias).to(self._type)
            if layer < self._layers[0] + len(self._above) - 1:
                hidden = self._activation(hidden)
        return hidden
