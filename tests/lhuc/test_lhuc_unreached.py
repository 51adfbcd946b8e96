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


class InTurn(nn.Module):
    """(B, 5) -> the outputs of two heads, (B, 3) each."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
        self.second = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))

    def forward(self, x):
        return self.first(x), self.second(x)


def losses(model, bank):
    with bank.speaker("alice"):
        return [head.square().sum() for head in model(torch.randn(3, 5))]


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_heads_in_turn_move_their_own_rows(kind, sparse):
    model = InTurn()
    bank = attach(model, nn.Tanh, ["alice"], example=torch.randn(3, 5))
    bank.sparse_gradients = sparse
    optimizer = bank.optimizer(kind, lr=0.1, in_turn=True)
    for head in (0, 0, 1, 0, 1):
        optimizer.zero_grad()
        before = [table.detach().clone() for table in bank.tables]
        losses(model, bank)[head].backward()
        optimizer.step()
        moved = [(table != old).any(1).tolist() for table, old in zip(bank.tables, before, strict=True)]
        assert moved == [[False, number == head] for number in range(2)]
    optimizer.zero_grad()
    losses(model, bank)
    with pytest.raises(SiteError, match=r"^site 'first\.1': the model ran it, and no gradient came back"):
        optimizer.step()  # of neither


def test_a_site_that_has_had_its_gradient_may_do_without():
    model = InTurn()
    bank = attach(model, nn.Tanh, ["alice"], example=torch.randn(3, 5))
    optimizer = bank.optimizer("adam", lr=0.1)
    losses(model, bank)[0].backward()
    with pytest.raises(SiteError, match=r"^site 'second\.1': .* in turn, pass bank.optimizer\(\.\.\., in_turn=True\)$"):
        optimizer.step()
    losses(model, bank)[1].backward()
    optimizer.step()
    optimizer.zero_grad()
    before = bank.tables[1].detach().clone()
    losses(model, bank)[0].backward()
    optimizer.step()
    assert torch.equal(bank.tables[1], before)
    again = bank.optimizer("adam", lr=0.1)
    again.load_state_dict(optimizer.state_dict())
    losses(model, bank)[0].backward()
    again.step()
