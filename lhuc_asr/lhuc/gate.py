"""Gates: small networks that predict amplitudes from what is known of a speaker, or of a recommender's user.

    n = ReLU(U c + a)            the hidden layer, if there is one; otherwise n = c
    r = W n + b
    delta = scale(r)             2 sigmoid(r), exp(r), r; or sigmoid(r)

c is the conditioning vector, for example a speaker's statistics or an embedding. With a hidden layer and 2 sigmoid
this is the GateNU of PEPNet (Chang et al., KDD 2023), and of PPNet before it. Without a hidden layer it is a linear map
from c to r, with one column for each number of c.

W starts at 0, and b at the r for which the scale is 1. The usual listing of such a layer leaves both as
``torch.nn.Linear`` draws them, uniform within 1 / sqrt(inputs) of 0. They are set here for three reasons:

    A fresh gate is exactly 1 for every c and changes nothing, as r = 0 is in LHUC (Swietojanski and Renals 2014). So a
    network with gates begins as the network without them, bit for bit, and what differs later was learned.
    A drawn W gives every speaker or user amplitudes of its own before anything is known of them.
    Someone unknown keeps the amplitudes of an untrained gate; only because these are 1 is that the plain network.

The gate learns all the same: first W and b, whose gradients are not 0, then, from the second step on, the layer and the
embeddings below. To begin as that listing does, call ``reset_parameters()`` of ``Gate.output``.

A bank holds r, so a gate can fill the rows of a bank, or replace them (``bank.computed``).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lhuc_asr.base.errors import ConfigError
from lhuc_asr.lhuc.amplitude import Amplitude, amplitude

# No dimension of a module is larger: torch takes sizes of 63 bits, and their products overflow.
LARGEST_SIZE = 2**31 - 1


def check_sizes(noun: str, **sizes: object) -> None:
    """Refuse sizes of a module that are not whole numbers from 1 to ``LARGEST_SIZE``.

    Args:
        noun: What has the sizes, with its article, for the message.
        sizes: The sizes, by the names of their arguments.

    Raises:
        ConfigError: A size is something else.

    Example:
        >>> check_sizes("a gate", inputs=3, units=0)
        Traceback (most recent call last):
        lhuc_asr.base.errors.ConfigError: a gate with units=0 cannot be: give a whole number from 1 to 2147483647
    """
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= LARGEST_SIZE:
            raise ConfigError(f"{noun} with {name}={size!r} cannot be: give a whole number from 1 to {LARGEST_SIZE}")


class Gate(nn.Module):
    """A network from a conditioning vector to amplitudes.

    Args:
        inputs: Dimension of the conditioning vector, I.
        units: Number of amplitudes, H.
        hidden: Number of units of the hidden layer; None for no hidden layer.
        scale: ``2sigmoid``, ``exp``, ``identity`` or another amplitude function, which start at 1; or ``sigmoid``,
            which starts at 1/2 because 1 is outside its range (0, 1).
        generator: Generator of the hidden layer's initial weights (He et al. 2015); needed with a hidden layer.

    Attributes:
        scale: The scale function.
        hidden: The map U, a; None without a hidden layer.
        output: The map W, b to r.
        start: The r that an untrained gate gives for every c.

    Raises:
        ConfigError: A size is not a whole number from 1, there is a hidden layer but no generator, or the scale is
            unknown.

    Example:
        >>> gate = Gate(inputs=3, units=2)
        >>> gate(torch.tensor([[5.0, -1.0, 2.0]])).tolist()
        [[1.0, 1.0]]
    """

    def __init__(
        self,
        inputs: int,
        units: int,
        hidden: int | None = None,
        scale: str | Amplitude = "2sigmoid",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_sizes("a gate", inputs=inputs, units=units, **({} if hidden is None else {"hidden": hidden}))
        self.scale = torch.sigmoid if scale == "sigmoid" else amplitude(scale)
        self.start = self.scale.neutral if isinstance(self.scale, Amplitude) else 0.0
        self.hidden = None
        if hidden is not None:
            if generator is None:
                raise ConfigError(f"a gate with {hidden} hidden units starts at random: pass generator=")
            self.hidden = nn.Linear(inputs, hidden)
            nn.init.kaiming_uniform_(self.hidden.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(self.hidden.bias)
        self.output = nn.Linear(inputs if hidden is None else hidden, units)
        nn.init.zeros_(self.output.weight)
        nn.init.constant_(self.output.bias, self.start)

    def r(self, conditioning: Tensor) -> Tensor:
        """The parameters before the scale.

        Args:
            conditioning: The conditioning vectors c, shape (..., I).

        Returns:
            r, shape (..., H).
        """
        if self.hidden is not None:
            conditioning = torch.relu(self.hidden(conditioning))
        r: Tensor = self.output(conditioning)
        return r

    def forward(self, conditioning: Tensor) -> Tensor:
        """The amplitudes delta, shape (..., H), of conditioning vectors, shape (..., I)."""
        return self.scale(self.r(conditioning))
