"""What a descent moves: numbers of speakers, in a network whose weights stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from lhuc_asr.adapt.method import warn_unadapted
from lhuc_asr.lhuc.bank import SpeakerBank
from lhuc_asr.nnet.acoustic_model import AcousticModel


class Movable(Protocol):
    """Speakers' numbers in a frozen network.

    Attributes:
        width: Size of what is kept of a frame between sweeps.
        device: Device of the network.
    """

    width: int
    device: torch.device

    def psi(self, spliced: Tensor) -> Tensor:
        """The part of the computation of frames (B, w D + R) that is the same for every speaker, (B, width).

        It has no gradient.
        """
        ...

    def logits(self, psi: Tensor, speakers: Sequence[str]) -> Tensor:
        """Logits of the pdfs.

        Args:
            psi: Blocks of equal size, one a speaker, shape (B, width).
            speakers: The speaker of each block, shape (N,).

        Returns:
            Shape (B, K).
        """
        ...

    def unadapted(self, psi: Tensor) -> Tensor:
        """Logits (B, K) with the numbers that everybody began with, without gradient."""
        ...

    def optimizer(self, name: str, learning_rate: float) -> torch.optim.Optimizer:
        """An optimizer of the numbers, ``sgd`` or ``adam``, that leaves speakers alone who take no part in a step."""
        ...

    def distance(self, speakers: Sequence[str]) -> Tensor:
        """Square of the distance of each speaker's numbers from where everybody began, shape (N,)."""
        ...

    def put_back_diverged(self, speakers: Sequence[str]) -> None:
        """Set speakers whose numbers are not finite back to where they began, with a warning."""
        ...


class BankInNetwork:
    """The rows of a bank; a ``Movable``.

    Args:
        bank: A detached bank.
        model: The bank's network.
        precision: Type of the matrix products above the lowest site; None for the weights' type.
    """

    def __init__(self, bank: SpeakerBank, model: AcousticModel, precision: torch.dtype | None = None) -> None:
        self._bank = bank
        self._network = model.scaled([site.name for site in bank.sites], precision)
        self._row0 = [bank.amplitude(table.detach()[:1]) for table in bank.tables]
        self.width, self.device = self._network.width, self._network.device

    def psi(self, spliced: Tensor) -> Tensor:
        """Outputs (B, H) of the lowest site before its scale; see ``Movable``."""
        return self._network.psi(spliced)

    def logits(self, psi: Tensor, speakers: Sequence[str]) -> Tensor:
        """Logits with the speakers' amplitudes; see ``Movable``."""
        rows = self._bank.rows_of(speakers)
        return self._network.logits(psi, [self._bank.xi(site.name, rows) for site in self._bank.sites])

    def unadapted(self, psi: Tensor) -> Tensor:
        """Logits with the amplitudes that row 0 had at first; see ``Movable``."""
        with torch.no_grad():
            return self._network.logits(psi, self._row0)

    def optimizer(self, name: str, learning_rate: float) -> torch.optim.Optimizer:
        """An optimizer of the rows; see ``Movable``."""
        return self._bank.optimizer(name, lr=learning_rate)

    def distance(self, speakers: Sequence[str]) -> Tensor:
        """|r - r_0|^2, shape (N,)."""
        bank, rows = self._bank, self._bank.rows_of(speakers)
        pairs = zip(bank.sites, bank.tables, strict=True)
        parts = [(bank.r(site.name, rows) - table[0].detach()).square().sum(1) for site, table in pairs]
        return torch.stack(parts).sum(0)

    def put_back_diverged(self, speakers: Sequence[str]) -> None:
        """Set speakers whose rows or amplitudes are not finite back to row 0; see ``Movable``."""
        put_back_diverged(self._bank, speakers)


def put_back_diverged(bank: SpeakerBank, speakers: Sequence[str]) -> None:
    """Set speakers whose rows or amplitudes are not finite back to row 0, with a warning."""
    finite = bank.finite(bank.rows_of(speakers)).all(1)
    diverged = [name for name, fine in zip(speakers, finite.tolist(), strict=True) if not fine]
    warn_diverged(diverged, len(speakers))
    bank.reset(diverged)


def warn_diverged(speakers: Sequence[str], count: int) -> None:
    """Log a warning that names the speakers who diverged, if there are any, of ``count``."""
    warn_unadapted("they diverged: features that are not finite, or too large a learning rate", speakers, count)
