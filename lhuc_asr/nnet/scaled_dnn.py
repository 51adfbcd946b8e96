"""A frozen feed-forward network with scaled sites, for adaptation and decoding without hooks.

Below the lowest scaled site nothing depends on the scales. Adaptation computes the output of this site before scaling
(``psi``) once for all sweeps. Above this site, the weights are plain tensors without gradient: a mini-batch costs one
matrix product per layer forward, one backward for each layer with a scaled site below it, and none for gradients of
weights.

Where a site has several positions, its scales are the same at all of them.

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
        self._network, self._layers = network, tuple(layers)
        self._type, self.device = network.affine[-1][0].dtype, network.device
        lowest = self._layers[0]
        self._channels = network.widths[lowest]
        self.width = network.positions[lowest] * self._channels
        self._affine = list(network.affine)
        if precision is not None:
            above = [(weight.to(precision), bias.to(precision)) for weight, bias in network.affine[lowest + 1 :]]
            self._affine[lowest + 1 :] = above

    def psi(self, spliced: Tensor) -> Tensor:
        """Outputs (B, P H) of the lowest scaled site before scaling, for inputs (B, w D + R)."""
        network, hidden = self._network, spliced.to(self._type)
        with torch.no_grad():
            for layer in range(self._layers[0] + 1):
                outputs = functional.linear(network.arranged(layer, hidden), *self._affine[layer])
                hidden = network.activated(layer, outputs)
        return hidden.reshape(-1, self.width)

    def logits(self, psi: Tensor, scales: Sequence[Tensor]) -> Tensor:
        """Logits (B, K) for psi (B, P H), N blocks of equal size, with scales (N, H); see ``ScaledNetwork``."""
        network, scale_of = self._network, dict(zip(self._layers, scales, strict=True))
        hidden, last = psi.reshape(-1, self._channels), len(self._affine) - 1
        for layer in range(self._layers[0], last):
            if layer in scale_of:
                blocks = hidden.unflatten(0, (len(scale_of[layer]), -1))  # (N, B P / N, H)
                hidden = (blocks * scale_of[layer].unsqueeze(1)).flatten(0, 1)
            weight, bias = self._affine[layer + 1]
            inputs = network.arranged(layer + 1, hidden)
            hidden = functional.linear(inputs.to(weight.dtype), weight, bias).to(self._type)
            if layer + 1 < last:
                hidden = network.activated(layer + 1, hidden)
        return hidden
