"""Amplitude functions: how a free number r becomes the contribution of a hidden unit.

Learning hidden unit contributions (LHUC) re-scales unit j of layer l for speaker s (equation 3 of the paper):

    h_j^{l,s} = xi(r_j^{l,s}) * psi_j(w_j^T x + b_j)

The network's w, b and psi stay; r is learned from the speaker's data, unconstrained; xi gives it a range:

    name        xi(r)               range      neutral r    xi'(r)
    exp         exp(r)              (0, inf)   0            exp(r)
    2sigmoid    2 / (1 + exp(-r))   (0, 2)     0            xi (1 - xi / 2)
    identity    r                   R          1            1
    relu        max(0, r)           [0, inf)   1            1 where r > 0, else 0

At the neutral r the amplitude is exactly 1.0, so a speaker of whom nothing is known yet gets the
speaker-independent network, bit for bit. ``exp`` is the paper's default: Table II shows hardly any difference between
the four when only the test speakers are adapted, but 2sigmoid squashes the gradient in adaptive training. A unit whose
relu amplitude has reached zero stays silent, because its gradient is zero too.

Source: P. Swietojanski, J. Li, S. Renals, "Learning Hidden Unit Contributions for Unsupervised Acoustic Model
Adaptation", IEEE/ACM TASLP 24(8), 2016 (arXiv 1601.02828).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lhuc_asr.base.errors import ConfigError

# Names of the paper's amplitude functions, for configurations.
AmplitudeName = Literal["exp", "2sigmoid", "identity", "relu"]


@dataclass(frozen=True)
class Amplitude:
    """An amplitude function xi.

    Attributes:
        name: Name of the function in speakers' files; two functions of one name count as the same.
        function: r -> xi(r), element by element, differentiable.
        neutral: The r at which xi is exactly 1.0.
        inverse: a -> r with xi(r) = a, for amplitudes that are given directly; None if it is not needed.

    Raises:
        ConfigError: ``function(neutral)`` is not exactly 1.0.

    Example:
        >>> squared = Amplitude("relu2", lambda r: torch.relu(r) ** 2, neutral=1.0)
        >>> squared(torch.tensor([2.0, 1.0, -3.0]))
        tensor([4., 1., 0.])
    """

    name: str
    function: Callable[[Tensor], Tensor]
    neutral: float
    inverse: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        for dtype in (torch.float32, torch.float64):
            start = torch.full((2,), self.neutral, dtype=dtype)
            value = self.function(start)
            if value.shape != start.shape or not bool((value == 1.0).all()):
                raise ConfigError(
                    f"amplitude {self.name!r}: at its neutral r = {self.neutral} it gives {value.tolist()} in {dtype}, "
                    "expected exactly 1.0 for each element; name the r where xi(r) = 1, or rescale xi"
                )

    def __call__(self, r: Tensor) -> Tensor:
        """xi(r), the shape of r."""
        return self.function(r)

    def r_of(self, amplitudes: Tensor) -> Tensor:
        """r with xi(r) = ``amplitudes``, element by element, for amplitudes inside the range of xi.

        Raises:
            ConfigError: The function was made without its inverse.

        Example:
            >>> amplitude("2sigmoid").r_of(torch.tensor([0.5, 1.0])).exp()
            tensor([0.3333, 1.0000])
        """
        if self.inverse is None:
            raise ConfigError(f"amplitude {self.name!r}: the inverse is not known; pass inverse= when you make it")
        return self.inverse(amplitudes)


def _two_sigmoid(r: Tensor) -> Tensor:
    # 2 sigmoid(r). The last bits of torch's sigmoid depend on an element's place in the tensor, those of tanh do not:
    # a speaker's amplitudes are the same whoever else is in a batch.
    return 1.0 + torch.tanh(0.5 * r)


def _two_sigmoid_inverse(a: Tensor) -> Tensor:
    return torch.log(a / (2.0 - a))


def _identity(r: Tensor) -> Tensor:
    return r


_PAPER = {
    xi.name: xi
    for xi in (
        Amplitude("exp", torch.exp, 0.0, torch.log),
        Amplitude("2sigmoid", _two_sigmoid, 0.0, _two_sigmoid_inverse),
        Amplitude("identity", _identity, 1.0, _identity),
        Amplitude("relu", torch.relu, 1.0, _identity),
    )
}


def amplitude(choice: str | Amplitude | Callable[[Tensor], Tensor], neutral: float | None = None) -> Amplitude:
    """The amplitude function of a name, or one made from a function of the user's own.

    Args:
        choice: "exp", "2sigmoid", "identity", "relu", an Amplitude, or a named function r -> xi(r).
        neutral: The r at which a function of the user's own is exactly 1.0.

    Raises:
        ConfigError: The name is unknown, a function has no name or no neutral r, or is not 1.0 at its neutral r.

    Example:
        >>> amplitude("2sigmoid")(torch.zeros(2))
        tensor([1., 1.])
    """
    if isinstance(choice, str):
        if neutral is not None:
            raise ConfigError(f"amplitude {choice!r}: its neutral r is known; leave neutral={neutral} out")
        if choice not in _PAPER:
            near = difflib.get_close_matches(choice, _PAPER, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(_PAPER)}"
            raise ConfigError(f"no amplitude is called {choice!r}; {hint}")
        return _PAPER[choice]
    if isinstance(choice, Amplitude):
        return choice
    name = getattr(choice, "__name__", "<unnamed>")
    if name.startswith("<") or name in _PAPER:
        raise ConfigError(
            f"amplitude {name!r}: a speaker's file could not tell it from others; "
            'give it a name of its own: Amplitude("name", function, neutral)'
        )
    if neutral is None:
        raise ConfigError(f"amplitude {name!r}: pass neutral=, the r at which it is exactly 1.0")
    return Amplitude(name, choice, neutral)
