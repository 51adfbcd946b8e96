"""A forward pass for which nobody is selected: row 0 counts, and learns nothing."""

from contextlib import nullcontext

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from lhuc_asr.base.errors import SiteError
from lhuc_asr.lhuc import AdaptedModel, attach

# torch's own, about the outputs between two compiled parts.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")

REFUSED = r'^no speaker was selected .*bank\.speaker\(name\) or bank\.rows\(names\).*bank\.select\(""\)'


@pytest.fixture
def bank(mlp, scatter):
    bank = attach(mlp.eval().requires_grad_(False), "hidden.*.activation", ["alice", "bob"])
    scatter(bank)
    return bank


def copies(bank) -> list[torch.Tensor]:
    return [table.detach().clone() for table in bank.tables]


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("how", ["plain", "adapted", "compiled", "checkpointed", "selection ended"])
def test_a_loop_that_forgets_the_selection_ends_in_one_line(bank, mlp, randn, how, sparse):
    bank.sparse_gradients = sparse
    run = {
        "adapted": AdaptedModel(mlp, bank),
        "compiled": torch.compile(mlp, backend="aot_eager"),
        "checkpointed": lambda x: checkpoint(mlp, x, use_reentrant=False, context_fn=bank.checkpointing),
    }.get(how, mlp)
    if how == "selection ended":
        bank.select("alice")
        bank.select(None)
    optimizer, before = bank.optimizer("adam", lr=0.1), copies(bank)

    def train() -> None:
        for _ in range(3):
            optimizer.zero_grad()
            run(randn(4, 5)).square().mean().backward()
            optimizer.step()

    with pytest.raises(SiteError, match=REFUSED) as error:
        train()
    assert "\n" not in str(error.value)
    assert all(map(torch.equal, bank.tables, before))
    assert all(table.grad is None for table in bank.tables)


def test_the_model_runs_for_nobody_with_gradients_on_or_off(bank, mlp, randn):
    x = randn(4, 5).requires_grad_()
    with bank.speaker(""):
        expected = mlp(x)
        (slope,) = torch.autograd.grad(expected.sum(), x)
    for recorded in (nullcontext, torch.no_grad, torch.inference_mode):
        with recorded():
            assert torch.equal(mlp(x), expected)
    # Of the input, through row 0 and not to it.
    assert torch.equal(torch.autograd.grad(mlp(x).sum(), x)[0], slope)


@pytest.mark.parametrize("select", ["speaker", "rows", "sticky"])
def test_row_zero_learns_where_it_is_selected(bank, mlp, randn, select):
    optimizer, before = bank.optimizer("sgd", lr=0.1), copies(bank)
    if select == "sticky":
        bank.select("")
    contexts = {"speaker": lambda: bank.speaker(""), "rows": lambda: bank.rows([""] * 4), "sticky": nullcontext}
    with contexts[select]():
        mlp(randn(4, 5)).square().mean().backward()
    optimizer.step()
    for table, old in zip(bank.tables, before, strict=True):
        assert (table != old).any(1).tolist() == [True, False, False]


def test_weights_are_trained_without_rows_once_the_rows_are_frozen(bank, mlp, randn):
    x, weights = randn(4, 5), list(mlp.requires_grad_(True).parameters())
    with bank.speaker(""):
        expected = torch.autograd.grad(mlp(x).square().mean(), weights)
    with pytest.raises(SiteError, match=REFUSED):
        mlp(x).square().mean().backward()
    mlp.zero_grad()
    bank.requires_grad_(False)
    mlp(x).square().mean().backward()
    assert all(torch.equal(weight.grad, its) for weight, its in zip(weights, expected, strict=True))


def test_what_computes_r_learns_without_a_selection(bank, mlp, randn):
    codes = {site.name: randn(1, site.width).requires_grad_() for site in bank.sites}
    with bank.computed(lambda site, rows: codes[site][rows]):
        mlp(randn(4, 5)).square().mean().backward()
    assert all(bool(code.grad.any()) for code in codes.values())
