"""A frozen network with amplitudes, cut where they begin: what adaptation runs instead of hooks.

Below the lowest amplitudes nothing depends on r, so it is computed once for all sweeps: ``psi``, the output of the
lowest adapted layer's non-linearity (in the bottom layer psi(W x + b) of every frame). Above, the weights are plain
tensors that take no gradient: for each mini-batch there is one product forward a layer, one backward a layer with
amplitudes below it, and none for weights.

The mathematics is equation 3 of Swietojanski et al. (2016), as hooks on the network itself give it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from lhuc_asr.nnet.dnn import Dnn, HiddenLayer


class ScaledDnn:
    """The network in evaluation mode, its weights shared with ``model`` and never changed.

    Args:
        model: The network.
        layers: Hidden layers that have amplitudes, rising.
        precision: Of the matrix products above the lowest amplitudes; everything else keeps the model's type.

    Attributes:
        width: Units of the lowest adapted layer, H.
        device: Where it runs.
    """

    def __init__(self, model: Dnn, layers: Sequence[int], precision: torch.dtype | None = None) -> None:
        self._layers = tuple(layers)
        hidden = [layer for layer in model.hidden if isinstance(layer, HiddenLayer)]
        self._activation = hidden[0].activation
        self._type = model.output.weight.dtype
        affine = [(map_.weight.detach(), map_.bias.detach()) for map_ in (*(h.linear for h in hidden), model.output)]
        cut = self._layers[0] + 1
        self._below, self._above = affine[:cut], affine[cut:]
        self.width = len(self._below[-1][1])
        self.device = model.output.weight.device
        if precision is not None:
            self._above = [(weight.to(precision), bias.to(precision)) for weight, bias in self._above]

    def psi(self, spliced: Tensor) -> Tensor:
        """Activations (B, H) of the lowest adapted layer, before its amplitudes, of inputs (B, (2c+1) D)."""
        with torch.no_grad():
            hidden = spliced.to(self._type)
            for weight, bias in self._below:
                hidden = self._activation(functional.linear(hidden, weight, bias))
        return hidden

    def logits(self, psi: Tensor, amplitudes: Sequence[Tensor]) -> Tensor:
        """Logits of the pdfs.

        Args:
            psi: Shape (B, H); N contiguous blocks of equal size, each a speaker's.
            amplitudes: xi(r) of each adapted layer, shape (N, H).

        Returns:
            Shape (B, K).
        """
        scale = dict(zip(self._layers, amplitudes, strict=True))
        hidden = psi
        for layer, (weight, bias) in enumerate(self._above, start=self._layers[0]):
            if layer in scale:
                blocks = hidden.unflatten(0, (len(scale[layer]), -1))  # (N, B / N, H)
                hidden = (blocks * scale[layer].unsqueeze(1)).flatten(0, 1)
            hidden = functional.linear(hidden.to(weight.dtype), weight, bias).to(self._type)
            if layer < self._layers[0] + len(self._above) - 1:
                hidden = self._activation(hidden)
        return hidden
