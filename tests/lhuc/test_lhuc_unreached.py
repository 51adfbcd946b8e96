"""A step at a site whose amplitudes no gradient comes back to: refused, because nothing would be learned there."""

import pytest
import torch
from torch import nn

from lhuc_asr.base.errors import SiteError
from lhuc_asr.lhuc import attach


class TwoHeads(nn.Module):
    """(B, 5) -> two tensors (B, 3); the second is cut off from what the first layer does."""

    def __init__(self) -> None:
        super().__init__()
        self.lower, self.upper, self.activation = nn.Linear(5, 4), nn.Linear(4, 3), nn.Tanh()
        self.top = nn.Sigmoid()

    def forward(self, x):
        return self.top(self.upper(self.activation(self.lower(x)).detach()))


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_a_site_that_no_gradient_reaches_is_named(kind):
    model = TwoHeads()
    bank = attach(model, ["activation", "top"], ["alice"], example=torch.randn(3, 5))
    optimizer = bank.optimizer(kind, lr=0.1)
    before = [table.detach().clone() for table in bank.tables]
    with bank.speaker("alice"):
        model(torch.randn(3, 5)).square().sum().backward()
    with pytest.raises(SiteError, match=r"^site 'activation': the model ran it, and no gradient came back"):
        optimizer.step()
    assert all(map(torch.equal, bank.tables, before))


def test_a_site_that_was_not_run_or_not_recorded_is_not_missed(mlp, bank, randn):
    optimizer = bank.optimizer("sgd", lr=0.1)
    optimizer.step()  # nothing has run
    with torch.no_grad(), bank.speaker("alice"):
        mlp(randn(2, 5))
    optimizer.step()
    with bank.speaker("alice"):
        mlp(randn(2, 5)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    optimizer.step()  # the gradient has been used
