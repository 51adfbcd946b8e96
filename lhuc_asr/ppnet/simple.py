"""SimplePPNet, the smallest case: a network on dense features, whose hidden layers are scaled by a user's embedding."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from lhuc_asr.base.errors import ConfigError
from lhuc_asr.lhuc.amplitude import Amplitude
from lhuc_asr.lhuc.gate import check_sizes
from lhuc_asr.ppnet.layer import LHUCLayer, linear


class SimplePPNet(nn.Module):
    """Hidden layers with ReLU, each followed by a ``LHUCLayer`` that reads the user's embedding, and nothing else.

    The map of every gate starts at 0, so that an untrained network is the plain one (``lhuc/gate.py``).

    Args:
        feature_dim: Number of dense features, D.
        user_num: Number of users; ids are 0 to ``user_num - 1``.
        user_emb_dim: Length of a user's embedding.
        hidden_units: Number of units of each hidden layer, from the input up; at least one layer.
        scaling_func: Scaling function of the gates, see ``LHUCLayer``.
        tasks: Number of probabilities for each example.
        unseen_user: Id of unseen users: their amplitudes stay those of an untrained gate, and the embedding is not
            trained. None if every id is a known user.
        generator: Draws the initial weights; None for torch's own generator.

    Raises:
        ConfigError: A size is not a whole number from 1, there is no hidden layer to scale, ``unseen_user`` is not one
            of the ids, or the scaling function is unknown.

    Example:
        >>> model = SimplePPNet(feature_dim=4, user_num=10, user_emb_dim=3)
        >>> model(torch.zeros(2, 4), torch.tensor([7, 0])).shape
        torch.Size([2, 1])
    """

    def __init__(
        self,
        feature_dim: int,
        user_num: int,
        user_emb_dim: int,
        hidden_units: Sequence[int] = (64, 32),
        scaling_func: str | Amplitude = "2sigmoid",
        tasks: int = 1,
        unseen_user: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        noun = "a SimplePPNet"
        check_sizes(noun, feature_dim=feature_dim, user_num=user_num, user_emb_dim=user_emb_dim, tasks=tasks)
        if not isinstance(hidden_units, Sequence) or not len(hidden_units):
            raise ConfigError(f"{noun} with hidden_units={hidden_units!r} has no layer to scale: give [units, ...]")
        check_sizes(noun, **{f"hidden_units[{layer}]": units for layer, units in enumerate(hidden_units)})
        if unseen_user is not None and unseen_user not in range(user_num):
            raise ConfigError(f"{noun} with unseen_user={unseen_user!r}: give an id from 0 to {user_num - 1}, or None")
        self.unseen_user = unseen_user
        self.user_embedding = nn.Embedding(user_num, user_emb_dim, padding_idx=unseen_user)
        self.fcs = nn.ModuleList(linear(*widths, generator) for widths in pairwise([feature_dim, *hidden_units]))
        self.lhuc_layers = nn.ModuleList(LHUCLayer(units, user_emb_dim, scaling_func) for units in hidden_units)
        self.final = linear(hidden_units[-1], tasks, generator)
        # After the weights, so that the network has the same initial weights as without users.
        nn.init.normal_(self.user_embedding.weight, generator=generator)
        if unseen_user is not None:
            nn.init.zeros_(self.user_embedding.weight[unseen_user])

    def forward(self, dense_features: Tensor, user_ids: Tensor) -> Tensor:
        """Probabilities, shape (B, tasks), of features, shape (B, D), and users, shape (B,), int64."""
        return torch.sigmoid(self.logits(dense_features, user_ids, self.known(user_ids)))

    def known(self, user_ids: Tensor) -> Tensor | None:
        """Whether each user is known, bool, shape (B, 1); None where every id is a known user."""
        return None if self.unseen_user is None else user_ids[:, None] != self.unseen_user

    def logits(self, dense_features: Tensor, user_ids: Tensor, known: Tensor | None) -> Tensor:
        """Log odds, shape (B, tasks); unknown users have the amplitudes of an untrained gate."""
        user = self.user_embedding(user_ids)
        hidden = dense_features
        for fc, lhuc in zip(self.fcs, self.lhuc_layers, strict=True):
            hidden = lhuc(torch.relu(fc(hidden)), user, known)
        logits: Tensor = self.final(hidden)
        return logits
