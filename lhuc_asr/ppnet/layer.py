"""Layers that adapt hidden units to a user: a gate that scales them, or a bias that is added to them.

    h' = delta(c) * h          LHUC in a ranking network (PPNet); delta is the gate of ``lhuc/gate.py``
    h' = h + r(c)              the half of FiLM that shifts (Perez et al., AAAI 2018), as a baseline

c is the conditioning vector, made of embeddings of the user and of the item shown. Before training delta and r do not
depend on c: r is 0, and delta is 1, or 1/2 with the scale ``sigmoid``. For an unknown user they keep these values,
whatever was learned since: an unknown user does not get the amplitudes of somebody else.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lhuc_asr.lhuc.amplitude import Amplitude
from lhuc_asr.lhuc.gate import Gate, check_sizes


class LHUCLayer(nn.Module):
    """Scales hidden units by amplitudes predicted from a user's features.

    Args:
        hidden_dim: Number of hidden units, H.
        user_dim: Length of a user's features, I.
        scaling_func: Function from r to the amplitudes: ``2sigmoid``, ``exp``, ``identity``, or another amplitude,
            which start at 1; or ``sigmoid``, which starts at 1/2.
        gate_hidden: Number of units of a hidden layer between the features and the amplitudes; None for no such layer.
        generator: Draws the initial weights of that hidden layer; needed with ``gate_hidden``.

    Attributes:
        gate: Linear map to r, ``weight`` (H, I) and ``bias`` (H,). Both start at 0 (the bias at the r of amplitude 1)
            and not as ``torch.nn.Linear`` draws them; ``lhuc/gate.py`` says why.
        hidden: Hidden layer before ``gate``: a linear map and ReLU, or the identity.

    Raises:
        ConfigError: A size is not a whole number from 1, ``gate_hidden`` is given without a generator, or the scaling
            function is unknown.

    Example:
        >>> layer = LHUCLayer(hidden_dim=2, user_dim=3)
        >>> layer(torch.tensor([[0.5, -2.0]]), torch.tensor([[1.0, 2.0, 3.0]])).tolist()
        [[0.5, -2.0]]
    """

    def __init__(
        self,
        hidden_dim: int,
        user_dim: int,
        scaling_func: str | Amplitude = "2sigmoid",
        gate_hidden: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        _check_dims(hidden_dim, user_dim, gate_hidden)
        gate = Gate(user_dim, hidden_dim, gate_hidden, scaling_func, generator)
        self.hidden = nn.Identity() if gate.hidden is None else nn.Sequential(gate.hidden, nn.ReLU())
        self.gate = gate.output
        self._scale, self._start = gate.scale, gate.start

    def amplitudes(self, user_feature: Tensor, known: Tensor | None = None) -> Tensor:
        """The amplitudes, shape (B, H).

        Args:
            user_feature: Features of the users, shape (B, I).
            known: Whether a user's amplitudes are predicted, bool, shape (B, 1); the other users get those of an
                untrained gate. None if all are predicted.
        """
        r = self.gate(self.hidden(user_feature))
        return self._scale(r if known is None else torch.where(known, r, self._start))

    def forward(self, hidden_input: Tensor, user_feature: Tensor, known: Tensor | None = None) -> Tensor:
        """The hidden units, shape (B, H), each times its amplitude."""
        return hidden_input * self.amplitudes(user_feature, known)


class BiasLayer(nn.Module):
    """Adds to hidden units a bias predicted from a user's features, which is 0 before training.

    Args:
        hidden_dim: Number of hidden units, H.
        user_dim: Length of a user's features, I.
        gate_hidden: Number of units of a hidden layer between the features and the bias; None for no such layer.
        generator: Draws the initial weights of that hidden layer; needed with ``gate_hidden``.

    Raises:
        ConfigError: A size is not a whole number from 1, or ``gate_hidden`` is given without a generator.
    """

    def __init__(
        self, hidden_dim: int, user_dim: int, gate_hidden: int | None = None, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        _check_dims(hidden_dim, user_dim, gate_hidden)
        # Only the gate's r is used, which starts at 0 with this scale.
        self.gate = Gate(user_dim, hidden_dim, gate_hidden, "2sigmoid", generator)

    def forward(self, hidden_input: Tensor, user_feature: Tensor, known: Tensor | None = None) -> Tensor:
        """The hidden units, shape (B, H), plus their bias; ``known`` is that of ``LHUCLayer.amplitudes``."""
        r = self.gate.r(user_feature)
        return hidden_input + (r if known is None else torch.where(known, r, 0.0))


def _check_dims(hidden_dim: int, user_dim: int, gate_hidden: int | None) -> None:
    hidden = {} if gate_hidden is None else {"gate_hidden": gate_hidden}
    check_sizes("a layer", hidden_dim=hidden_dim, user_dim=user_dim, **hidden)


def linear(inputs: int, outputs: int, generator: torch.Generator | None) -> nn.Linear:
    """A linear layer with the initial weights that He et al. (2015) propose for ReLU, and a bias of zero."""
    layer = nn.Linear(inputs, outputs)
    nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu", generator=generator)
    nn.init.zeros_(layer.bias)
    return layer
