"""Normalisation of a hidden layer before its non-linearity: over a mini-batch, or over the units of a layer.

    batch:  scale_j (z_j - m_j) / sqrt(v_j + epsilon) + shift_j        m_j, v_j of unit j over the frames
    layer:  the same, m and v of a frame over its units

Ioffe and Szegedy 2015, "Batch normalization: accelerating deep network training by reducing internal covariate shift";
Ba, Kiros and Hinton 2016, "Layer normalization". In training, batch normalisation takes m and v of the mini-batch,
afterwards those of the training frames: it is then an affine map, and is folded into the weights below it
(``HiddenLayer.plain``). Layer normalisation is not, and stays a function.

The statistics of the training frames are not moving averages of those of mini-batches. They are estimated after an
epoch (``estimating``), so that they are a function of the weights: an average of several epochs' weights, whose
statistics are not the average of theirs, gets its own, and an epoch that is undone leaves nothing behind. Sequence
training keeps those of the network that it begins with: the lattices have this network's scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from lhuc_asr.base.errors import CheckpointError
from lhuc_asr.base.numerics import NORMALISATION_FLOOR
from lhuc_asr.base.tensors import Shape

NormalisationName = Literal["batch", "layer"]


class BatchNormalisation(nn.BatchNorm1d):
    """Batch normalisation of the last axis, over all others.

    Args:
        units: Number of units, H.

    Attributes:
        mean: m_j over the training frames, shape (H,); 0 in a new network.
        variance: v_j, shape (H,); 1 in a new network.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, units: int) -> None:
        super().__init__(units, eps=NORMALISATION_FLOOR, track_running_stats=False)
        self.register_buffer("mean", torch.zeros(units))
        self.register_buffer("variance", torch.ones(units))
        self._sums: _Sums | None = None

    def forward(self, input: Tensor) -> Tensor:
        """Normalised values (..., H) of values (..., H)."""
        # A single row is its own mean: in training it would teach nothing, and torch refuses it.
        if not self.training or input.numel() == self.num_features:
            scale, shift = (each.to(self.weight.dtype) for each in self.affine_map())
            return torch.addcmul(shift, input, scale)
        rows = input.flatten(0, -2)
        if self._sums is not None:
            self._sums.add(rows)
        normalised = functional.batch_norm(rows, None, None, self.weight, self.bias, training=True, eps=self.eps)
        return normalised.view(input.shape)

    def affine_map(self) -> tuple[Tensor, Tensor]:
        """Factor and summand of each unit with the statistics of the training frames, shapes (H,), float64."""
        scale = self.weight.double() * (self.variance.double() + self.eps).rsqrt()
        return scale, self.bias.double() - scale * self.mean.double()

    def reset(self) -> None:
        """Set scale, shift and statistics to those of a new network."""
        self.reset_parameters()
        nn.init.zeros_(self.mean)
        nn.init.ones_(self.variance)

    def begin_statistics(self) -> None:
        """Collect statistics of what comes through, which is normalised as in training."""
        self._sums, self.training = _Sums(self.mean), True

    def take_statistics(self) -> None:
        """Replace the statistics by those that were collected, if anything came."""
        if self._sums is not None and self._sums.count:
            mean, variance = self._sums.moments()
            self.mean.copy_(mean)
            self.variance.copy_(variance)

    def end_statistics(self) -> None:
        """Forget what was collected, and return to evaluation mode."""
        self._sums, self.training = None, False


class _Sums:
    """Sums over rows, in float64."""

    def __init__(self, like: Tensor) -> None:
        self.count = 0
        self._first, self._second = (torch.zeros_like(like, dtype=torch.float64) for _ in range(2))

    def add(self, rows: Tensor) -> None:
        """Add rows (B, H)."""
        values = rows.detach().double()
        self.count += len(values)
        self._first += values.sum(0)
        self._second += values.square().sum(0)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance, shapes (H,)."""
        mean = self._first / self.count
        return mean, (self._second / self.count - mean.square()).clamp(min=0.0)


def normalisation(name: NormalisationName | None, units: int) -> nn.Module:
    """A module that normalises ``units`` units; None for one that does nothing."""
    if name is None:
        return nn.Identity()
    return BatchNormalisation(units) if name == "batch" else nn.LayerNorm(units, eps=NORMALISATION_FLOOR)


def normalisation_tensors(name: NormalisationName | None, units: int) -> dict[str, Shape]:
    """Shapes of the tensors of such a module, by name."""
    names = {None: (), "layer": ("weight", "bias"), "batch": ("weight", "bias", "mean", "variance")}[name]
    return {each: (units,) for each in names}


def check_variances(path: Path | str, tensors: Mapping[str, Tensor], remedy: str) -> None:
    """Refuse variances of batch normalisation below 0.

    Args:
        path: File of the tensors, for the message.
        tensors: Tensors of a network, by name.
        remedy: What to do about such a file, for the message.

    Raises:
        CheckpointError: There are some.
    """
    for name, tensor in tensors.items():
        if name.endswith(".normalisation.variance") and bool((tensor < 0).any()):
            raise CheckpointError(f"{path}: {name} is below 0, expected variances; {remedy}")


def batch_normalised(model: nn.Module) -> bool:
    """Whether a network has statistics to estimate."""
    return any(isinstance(module, BatchNormalisation) for module in model.modules())


@contextmanager
def estimating(model: nn.Module) -> Iterator[None]:
    """A context that estimates batch statistics from the frames passed through the network.

    Nothing but the normalisation is in training mode: without dropout the statistics are those of the activations that
    the network will be used with. Afterwards the network is in evaluation mode. After an exception it keeps the
    statistics that it had: those of a part of the frames would be nobody's.
    """
    layers = [module for module in model.modules() if isinstance(module, BatchNormalisation)]
    model.eval()
    for layer in layers:
        layer.begin_statistics()
    try:
        with torch.no_grad():
            yield
        for layer in layers:
            layer.take_statistics()
    finally:
        for layer in layers:
            layer.end_statistics()
