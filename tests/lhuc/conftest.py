import pytest
import torch
from small_models import Cnn, Mlp, Recurrent, seeded
from torch import nn

from lhuc_asr.lhuc import attach


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


@pytest.fixture
def mlp() -> nn.Module:
    return seeded(Mlp).eval()


@pytest.fixture
def recurrent() -> nn.Module:
    return seeded(Recurrent).eval()


@pytest.fixture
def sequences() -> nn.Module:
    return seeded(lambda: Recurrent(batch_first=True)).eval()


@pytest.fixture
def cnn() -> nn.Module:
    return seeded(Cnn).eval()


@pytest.fixture
def randn(generator):
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.fixture
def scatter(randn):
    """Gives every row of a bank, row 0 too, values of its own."""

    def apply(bank) -> None:
        with torch.no_grad():
            for table in bank.tables:
                table.add_(0.5 * randn(*table.shape))

    return apply


@pytest.fixture
def bank(mlp, scatter):
    """Alice and Bob, with values of their own, at the activations of ``mlp``."""
    bank = attach(mlp, "hidden.*.activation", ["alice", "bob"])
    scatter(bank)
    return bank
