"""A model and its bank as one module: calls, dense gradients, several processes."""

import copy

import pytest
import torch
import torch.distributed
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lhuc_asr.base.errors import ConfigError, SiteError
from lhuc_asr.lhuc import AdaptedModel, attach

SITES, SPEAKERS = "hidden.*.activation", ["alice", "bob", "carol"]


@pytest.fixture
def adapted(mlp, scatter):
    bank = attach(mlp.requires_grad_(False), SITES, SPEAKERS)
    scatter(bank)
    return AdaptedModel(mlp, bank)


def test_a_call_says_whose_amplitudes_count(adapted, mlp, randn):
    x = randn(3, 5)
    plain = adapted(x)
    assert torch.equal(plain, mlp(x))
    for speakers, context in (
        ("bob", adapted.bank.speaker("bob")),
        (["alice", "", "carol"], adapted.bank.rows(["alice", "", "carol"])),
        (torch.tensor([3, 3, 1]), adapted.bank.rows(torch.tensor([3, 3, 1]))),
    ):
        with context:
            expected = mlp(x)
        assert torch.equal(adapted(x, speakers=speakers), expected)
        assert torch.equal(adapted(x=x, speakers=speakers), expected)
        assert not torch.equal(plain, expected)
    adapted.bank.select("bob")
    assert torch.equal(adapted(x), adapted(x, speakers="bob"))


@pytest.mark.parametrize("name", ["gradient_checkpointing_enable", "activation_checkpointing_enable"])
def test_a_model_without_a_switch_for_checkpointing_is_named(adapted, name):
    message = rf"its model, a Mlp, has no {name}; call torch.utils.checkpoint in it, .*context_fn=bank.checkpointing"
    with pytest.raises(ConfigError, match=message):
        getattr(adapted, name)()


def test_a_bank_of_another_model_is_refused(adapted, mlp):
    for model, bank in ((copy.deepcopy(mlp), adapted.bank), (mlp, copy.deepcopy(adapted.bank))):
        with pytest.raises(SiteError, match="the bank is detached, or of another model"):
            AdaptedModel(model, bank)


def test_state_and_copies_have_both(adapted, randn):
    x = randn(2, 5)
    twin = copy.deepcopy(adapted)
    assert {name.split(".")[0] for name in twin.state_dict()} == {"model", "bank"}
    assert torch.equal(twin(x, speakers="bob"), adapted(x, speakers="bob"))
    twin.bank.reset(["bob"])
    assert not torch.equal(twin(x, speakers="bob"), adapted(x, speakers="bob"))
    twin.load_state_dict(adapted.state_dict())
    assert torch.equal(twin(x, speakers="bob"), adapted(x, speakers="bob"))


@pytest.mark.parametrize(
    ("name", "options"),
    [("sgd", {"lr": 0.3, "momentum": 0.9, "weight_decay": 0.1}), ("adam", {"lr": 0.1, "weight_decay": 0.1})],
)
def test_dense_gradients_move_the_same_rows(adapted, randn, name, options):
    """Carol is in no batch: not a bit of her row changes, whatever momentum says."""
    twin = copy.deepcopy(adapted)
    twin.bank.sparse_gradients = False
    assert not copy.deepcopy(twin).bank.sparse_gradients
    optimizers = [each.bank.optimizer(name, **options) for each in (adapted, twin)]
    for names in (["alice", "alice", "bob"], ["bob", "bob", "bob"], ["alice", "", "bob"]):
        x = randn(3, 5)
        for each, optimizer in zip((adapted, twin), optimizers, strict=True):
            optimizer.zero_grad()
            each(x, speakers=names).square().sum().backward()
            optimizer.step()
    for mine, its in zip(adapted.bank.tables, twin.bank.tables, strict=True):
        torch.testing.assert_close(its, mine, rtol=1e-12, atol=1e-14)
        assert torch.equal(its[3], mine[3])


def test_dense_gradients_are_clipped(adapted, randn):
    adapted.bank.sparse_gradients = False
    adapted(randn(3, 5), speakers=["alice", "bob", "bob"]).square().sum().backward()
    norm = nn.utils.clip_grad_norm_(adapted.bank.parameters(), 0.1)
    assert float(norm) > 0.1
    clipped = torch.cat([table.grad.flatten() for table in adapted.bank.tables])
    assert clipped.norm() == pytest.approx(0.1)
    with pytest.raises(ConfigError, match="would move the rows of speakers who are not in the batch"):
        torch.optim.Adam(adapted.bank.parameters()).step()


def train(rank: int, ranks: int, adapted: AdaptedModel, batches, folder: str) -> None:
    """Three steps of one process, on its share of each batch."""
    adapted = copy.deepcopy(adapted)  # what comes from another process shares its memory
    store = f"file://{folder}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=ranks)
    model = DistributedDataParallel(adapted)
    optimizer = adapted.bank.optimizer("adam", lr=0.1)
    for x, names in batches:
        optimizer.zero_grad()
        model(x[rank::ranks], speakers=names[rank::ranks]).square().mean().backward()
        optimizer.step()
    torch.save([table.detach() for table in adapted.bank.tables], f"{folder}/{rank}.pt")
    torch.distributed.barrier()  # nobody leaves while another still speaks
    torch.distributed.destroy_process_group()


def test_two_processes_train_what_one_does(adapted, randn, tmp_path):
    adapted.bank.sparse_gradients = False
    batches = [(randn(4, 5), names) for names in (["alice", "bob"] * 2, ["carol", "alice", "", ""], ["bob"] * 4)]
    torch.multiprocessing.spawn(train, (2, copy.deepcopy(adapted), batches, str(tmp_path)), nprocs=2)
    optimizer = adapted.bank.optimizer("adam", lr=0.1)
    for x, names in batches:
        optimizer.zero_grad()
        adapted(x, speakers=names).square().mean().backward()
        optimizer.step()
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for mine, first, second in zip(adapted.bank.tables, *ranks, strict=True):
        assert torch.equal(first, second)
        torch.testing.assert_close(first, mine.detach(), rtol=1e-9, atol=1e-11)
