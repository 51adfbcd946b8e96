"""A model of the zoo with a bank of speakers, and a batch of theirs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from zoo_entries import Batch, Entry

from lhuc_asr.lhuc import SpeakerBank, attach

SPEAKERS = ("alice", "bob", "carol")
# A batch's speakers: one twice, nobody, and Carol in none of its elements.
NAMES = ("alice", "bob", "", "alice")
# Rounding of float32 between kernels of different shapes, or with folded weights, relative to the largest score.
ROUNDING = 1e-5


@dataclass
class Attached:
    """A model of the zoo with a bank, whose rows have values of their own, and a batch of four."""

    entry: Entry
    model: nn.Module
    bank: SpeakerBank
    batch: Batch

    @classmethod
    def of(cls, entry: Entry, *, scattered: bool = True) -> Attached:
        model, batch = entry.model(), entry.inputs(len(NAMES))
        bank = attach(model, speakers=SPEAKERS, example=batch if entry.measured else None, **entry.where)
        if scattered:
            scatter(bank)
        return cls(entry, model, bank, batch)

    def run(self, batch: Batch | None = None) -> Tensor:
        return self.entry.run(self.model, self.batch if batch is None else batch)

    def mixed(self) -> Tensor:
        with self.bank.rows(NAMES):
            return self.run()

    def each(self) -> dict[str, Tensor]:
        """The scores of the whole batch for each speaker and nobody."""
        made = {}
        for name in ("", *SPEAKERS):
            with self.bank.speaker(name):
                made[name] = self.run()
        return made


def scatter(bank: SpeakerBank) -> None:
    """Give every row of a bank values of its own, always the same ones."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for table in bank.tables:
            table.add_(0.5 * torch.randn(table.shape, generator=generator))


def close(found: Tensor, expected: Tensor, rounding: float) -> None:
    torch.testing.assert_close(found, expected, rtol=0.0, atol=rounding * float(expected.detach().abs().max()))
