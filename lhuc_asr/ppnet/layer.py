"""What a user says to a hidden layer: a gate that scales it, or a bias that is added to it.

    h' = delta(c) * h          LHUC in a ranking network (PPNet); delta is the gate of ``lhuc/gate.py``
    h' = h + r(c)              the half of FiLM that shifts (Perez et al., AAAI 2018), as a baseline

c is the conditioning vector, made of embeddings of the user and of what he is shown. Before training both leave h as
it is, for every c. Where the user is not known they stay as they were before training, whatever was learned since:
nobody's amplitudes are taken for a stranger's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lhuc_asr.lhuc.amplitude import Amplitude
from lhuc_asr.lhuc.gate import Gate


class LHUCLayer(nn.Module):
    """Scales hidden units by amplitudes predicted from a user's features.

    Args:
        hidden_dim: Hidden units, H.
        user_dim: Numbers in a user's features, I.
        scaling_func: ``2sigmoid``, ``exp``, ``identity``, or another amplitude, which start at 1; or ``sigmoid``, which
            starts at 1/2.
        gate_hidden: Units of a hidden layer between the features and the amplitudes; None: there is none.
        generator: Of that hidden layer's start; needed where there is one.

    Attributes:
        gate: The linear map to r, ``weight`` (H, I) and ``bias`` (H,); the amplitudes are the scale of r.
        hidden: What comes before it: a linear map and ReLU, or nothing.

    Raises:
        ConfigError: A hidden layer without a generator, or an unknown scaling function.

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
        gate = Gate(user_dim, hidden_dim, gate_hidden, scaling_func, generator)
        self.hidden = nn.Identity() if gate.hidden is None else nn.Sequential(gate.hidden, nn.ReLU())
        self.gate = gate.output
        self._scale, self._start = gate.scale, gate.start

    def amplitudes(self, user_feature: Tensor, known: Tensor | None = None) -> Tensor:
        """The amplitudes, shape (B, H).

        Args:
            user_feature: Shape (B, I).
            known: Whose amplitudes are predicted, bool, shape (B, 1); the others get an untrained gate's. None: all.
        """
        r = self.gate(self.hidden(user_feature))
        return self._scale(r if known is None else torch.where(known, r, self._start))

    def forward(self, hidden_input: Tensor, user_feature: Tensor, known: Tensor | None = None) -> Tensor:
        """The hidden units, shape (B, H), each times its amplitude."""
        return hidden_input * self.amplitudes(user_feature, known)


class BiasLayer(nn.Module):
    """Adds to hidden units a bias predicted from a user's features, which is 0 before training.

    Args:
        hidden_dim: Hidden units, H.
        user_dim: Numbers in a user's features, I.
        gate_hidden: Units of a hidden layer between the features and the bias; None: there is none.
        generator: Of that hidden layer's start; needed where there is one.
    """

    def __init__(
        self, hidden_dim: int, user_dim: int, gate_hidden: int | None = None, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        # Of the gate only r is used, which starts at 0 with this scale.
        self.gate = Gate(user_dim, hidden_dim, gate_hidden, "2sigmoid", generator)

    def forward(self, hidden_input: Tensor, user_feature: Tensor, known: Tensor | None = None) -> Tensor:
        """The hidden units, shape (B, H), and their bias; ``known`` as a LHUCLayer takes it."""
        r = self.gate.r(user_feature)
        return hidden_input + (r if known is None else torch.where(known, r, 0.0))


def linear(inputs: int, outputs: int, generator: torch.Generator | None) -> nn.Linear:
    """A linear layer that starts as He et al. (2015) propose for ReLU, its bias at zero."""
    layer = nn.Linear(inputs, outputs)
    nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu", generator=generator)
    nn.init.zeros_(layer.bias)
    return layer
