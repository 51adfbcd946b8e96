"""The deep network: hidden layers, each adapted by a gate or not, and logits.

    a_l = norm(W_l h_{l-1} + b_l)
    h_l = dropout(m_l(relu(a_l), c))       the gate m after the activation, or
    h_l = dropout(relu(m_l(a_l, c)))       before it
    logits = W h_L + b                     or m(W h_L + b, c), where the output has a gate too

m_l is a layer of ``layer.py`` and c its conditioning vector. Without gates this is the plain DNN.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from lhuc_asr.base.config import StrictModel
from lhuc_asr.lhuc.gate import check_sizes
from lhuc_asr.ppnet.layer import linear


class GateConfig(StrictModel):
    """The gates of a network.

    Attributes:
        scale: Amplitude function of the gate (see ``lhuc/gate.py``).
        hidden: Number of units of each gate's hidden layer; None for a single linear map.
        position: Position of a gate relative to the activation.
        output: Whether the logits have a gate as well.
        unseen_share: Share of the training examples, drawn at random, whose user is treated as unseen. The network thus
            learns to work without the gates, as with the share of speaker-independent data in SAT-LHUC.
    """

    scale: Literal["2sigmoid", "sigmoid", "exp", "identity"] = "2sigmoid"
    hidden: int | None = Field(32, ge=1, le=65_536)
    position: Literal["after", "before"] = "after"
    output: bool = False
    unseen_share: float = Field(0.1, ge=0.0, lt=1.0)


class TowerConfig(StrictModel):
    """The shape of a deep network.

    Attributes:
        hidden_units: Number of units of each hidden layer, from the input up.
        batch_norm: Whether the outputs of the hidden layers' linear maps are normalised over the mini-batch.
        dropout: Probability that a hidden unit is dropped in training.
    """

    hidden_units: tuple[Annotated[int, Field(ge=1, le=65_536)], ...] = Field((128, 64), min_length=1)
    batch_norm: bool = False
    dropout: float = Field(0.0, ge=0.0, lt=1.0)


class Tower(nn.Module):
    """A deep network, with gates or without.

    Args:
        inputs: Length of the input, E.
        outputs: Number of logits for each example, O.
        config: Shape of the network.
        generator: Draws the initial weights.
        gate_of: Makes the gate of a layer from its number of units; None for no gates. Called after the weights are
            initialised, so that a network has the same initial weights with and without gates.
        gate: Options of the gates, ignored without ``gate_of``; only ``position`` and ``output`` are used here.

    Attributes:
        gates: Gates of the hidden layers, from the input up, and of the output where it has one.

    Raises:
        ConfigError: ``inputs`` or ``outputs`` is not a whole number from 1.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        config: TowerConfig,
        generator: torch.Generator,
        gate_of: Callable[[int], nn.Module] | None = None,
        gate: GateConfig | None = None,
    ) -> None:
        super().__init__()
        check_sizes("a deep network", inputs=inputs, outputs=outputs)
        units = config.hidden_units
        self.layers = nn.ModuleList(linear(*widths, generator) for widths in pairwise([inputs, *units]))
        self.output = linear(units[-1], outputs, generator)
        self.norms = nn.ModuleList(nn.BatchNorm1d(n) if config.batch_norm else nn.Identity() for n in units)
        self.dropout = nn.Dropout(config.dropout)
        self.gates = nn.ModuleList()
        self._before = gate is not None and gate.position == "before"
        if gate_of is not None:
            gated = (*units, outputs) if gate is not None and gate.output else units
            self.gates.extend(gate_of(n) for n in gated)

    def forward(self, inputs: Tensor, conditioning: Tensor | None = None, known: Tensor | None = None) -> Tensor:
        """Logits, shape (B, O).

        Args:
            inputs: Inputs, shape (B, E).
            conditioning: Conditioning vectors c of the gates, shape (B, I); None only without gates.
            known: Whether a user gets the learned gates, bool, shape (B, 1); None if all do.
        """
        hidden = inputs
        for number, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            hidden = norm(layer(hidden))
            if self._before:
                hidden = torch.relu(self._gated(number, hidden, conditioning, known))
            else:
                hidden = self._gated(number, torch.relu(hidden), conditioning, known)
            hidden = self.dropout(hidden)
        return self._gated(len(self.layers), self.output(hidden), conditioning, known)

    def _gated(self, number: int, hidden: Tensor, conditioning: Tensor | None, known: Tensor | None) -> Tensor:
        if number >= len(self.gates):
            return hidden
        gated: Tensor = self.gates[number](hidden, conditioning, known)
        return gated
