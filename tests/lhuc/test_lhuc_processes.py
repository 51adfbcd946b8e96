"""Rows on several processes: trained as by one, or refused."""

import copy
from collections.abc import Sequence

import pytest
import torch
import torch.distributed
from small_models import Mlp, seeded
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from lhuc_asr.base.errors import ConfigError, ModelMismatchError, SiteError
from lhuc_asr.lhuc import AdaptedModel, SpeakerBank, attach

SITES, SPEAKERS = "hidden.*.activation", ["alice", "bob", "carol"]


def adapted_mlp(sparse: bool, speakers: Sequence[str] = SPEAKERS) -> AdaptedModel:
    mlp = seeded(Mlp).eval().requires_grad_(False)
    bank = attach(mlp, SITES, speakers)
    bank.sparse_gradients = sparse
    return AdaptedModel(mlp, bank)


@pytest.fixture
def one_of_one(tmp_path):
    """A group of one process."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield torch.distributed.init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


def shard(adapted: AdaptedModel, mesh: torch.distributed.DeviceMesh) -> None:
    """The model in pieces, as large ones are sharded."""
    for layer in adapted.model.hidden:
        fully_shard(layer, mesh=mesh)
    fully_shard(adapted.model, mesh=mesh)


def test_sparse_gradients_under_ddp_are_refused(one_of_one, randn):
    adapted = adapted_mlp(sparse=True)
    model = DistributedDataParallel(adapted)
    with pytest.raises(ConfigError, match=r"cannot average the sparse gradients .* bank.sparse_gradients = False"):
        model(randn(2, 5), speakers="alice")
    x = randn(2, 5)
    with torch.no_grad():
        assert torch.equal(model(x, speakers="bob"), adapted(x, speakers="bob"))
    adapted.bank.requires_grad_(False)
    adapted.model.requires_grad_(True)
    model(randn(2, 5), speakers="alice").sum().backward()  # of the model alone


@pytest.mark.parametrize("sparse", [True, False])
def test_a_bank_beside_ddp_is_refused(one_of_one, randn, sparse):
    adapted = adapted_mlp(sparse)
    model = DistributedDataParallel(adapted.model.requires_grad_(True))
    with adapted.bank.speaker("alice"):
        with pytest.raises(ConfigError, match=r"each process would train others; .*\(AdaptedModel\(model, bank\)\)$"):
            model(randn(2, 5))
        with torch.no_grad():
            model(randn(2, 5))
        adapted.model(randn(2, 5)).sum().backward()  # not wrapped: rows of its own
    assert all(table.grad is not None for table in adapted.bank.tables)


def test_a_bank_beside_a_sharded_model_is_refused(one_of_one, randn):
    adapted = adapted_mlp(sparse=False)
    with adapted.bank.speaker("alice"):
        plain = adapted.model(randn(2, 5)).detach()
    shard(adapted, one_of_one)
    for call in (adapted, adapted.model):
        with adapted.bank.speaker("alice"):
            with pytest.raises(ConfigError, match=r"each process would train others; .* init_sync=False\)$"):
                call(randn(2, 5))
            with torch.no_grad():
                assert call(randn(2, 5)).shape == plain.shape


def test_a_bank_in_a_part_of_what_is_sharded_is_refused(one_of_one, randn, tmp_path):
    """Only the module around the bank's model was given to ``fully_shard``."""
    adapted = adapted_mlp(sparse=False)
    whole = fully_shard(nn.Sequential(adapted.model, nn.Linear(3, 2).double()), mesh=one_of_one)
    with adapted.bank.speaker("alice"):
        message = (
            r"each process would train others; attach to the whole model that fully_shard was given, and wrap both"
        )
        with pytest.raises(ConfigError, match=message):
            whole(randn(2, 5))
        with torch.no_grad():
            whole(randn(2, 5))
    with pytest.raises(ModelMismatchError, match=r"sharded over processes, .*keep bank.state_dict\(\)"):
        adapted.bank.save(tmp_path)


def test_rows_that_are_sharded_are_refused(one_of_one, randn):
    adapted = adapted_mlp(sparse=False)
    fully_shard(adapted, mesh=one_of_one)
    for speakers in ("alice", None):
        with pytest.raises(ConfigError, match=r"rows are sharded with the model; shard the model alone: fully_shard"):
            adapted(randn(2, 5), speakers=speakers)


def test_rows_kept_out_of_what_is_sharded_are_refused(one_of_one, randn):
    adapted = adapted_mlp(sparse=False)
    fully_shard(adapted, mesh=one_of_one, ignored_params=set(adapted.bank.parameters()))
    with pytest.raises(ConfigError, match=r"each process would train others"):
        adapted(randn(2, 5), speakers="alice")


def test_copies_in_other_threads_are_refused(bank, mlp, randn):
    """As nn.DataParallel makes them, which has more than one only on several GPUs."""
    inputs = attach(mlp, inputs_of="output")
    for module, width in ((mlp.hidden[0].activation, 8), (mlp.output, 6)):
        with pytest.raises(SiteError, match=r"nn.DataParallel .* use one device, or a process for each"):
            module._replicate_for_data_parallel()(randn(2, width))
    inputs.detach()


def batches(randn) -> list[tuple[Tensor, list[str]]]:
    return [(randn(4, 5), names) for names in (["alice", "bob"] * 2, ["carol", "alice", "", ""], ["bob"] * 4)]


def learn(model, bank, batches) -> None:
    optimizer = bank.optimizer("adam", lr=0.1)
    for x, names in batches:
        optimizer.zero_grad()
        model(x, speakers=names).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(bank.parameters(), 0.5)
        optimizer.step()


def refused_start(adapted: AdaptedModel, **options) -> str:
    try:
        DistributedDataParallel(adapted, **options)(torch.zeros(2, 5, dtype=torch.float64), speakers="alice")
    except ConfigError as error:
        return str(error)
    return ""


def train_sharded(rank: int, ranks: int, batches, folder: str) -> None:
    """What one process does with its share of each batch and of the weights."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)
    other_order = adapted_mlp(sparse=False, speakers=SPEAKERS if rank else SPEAKERS[::-1])
    other_rows = adapted_mlp(sparse=False)
    with torch.no_grad():
        other_rows.bank.tables[1][2, 3] += rank
    starts = [refused_start(other_order), refused_start(other_rows, init_sync=False), refused_start(other_rows)]
    adapted = adapted_mlp(sparse=False)
    shard(adapted, torch.distributed.init_device_mesh("cpu", (ranks,)))
    weight = adapted.model.output.weight
    assert weight.to_local().numel() < weight.numel()
    model = DistributedDataParallel(adapted, init_sync=False)
    learn(model, adapted.bank, [(x[rank::ranks], names[rank::ranks]) for x, names in batches])
    try:
        adapted.bank.save(f"{folder}/{rank}")
        refused = ""
    except ModelMismatchError as error:
        refused = str(error)
    torch.save({"starts": starts, "refused": refused, "bank": adapted.bank.state_dict()}, f"{folder}/{rank}.pt")
    torch.distributed.barrier()  # nobody leaves while another still speaks
    torch.distributed.destroy_process_group()


def test_two_processes_with_half_of_the_weights_train_what_one_does(randn, tmp_path):
    data = batches(randn)
    torch.multiprocessing.spawn(train_sharded, (2, copy.deepcopy(data), str(tmp_path)), nprocs=2)
    adapted = adapted_mlp(sparse=False)
    learn(adapted, adapted.bank, data)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    whole = adapted_mlp(sparse=True)
    whole.bank.load_state_dict(first["bank"])
    for number, (mine, expected) in enumerate(zip(whole.bank.tables, adapted.bank.tables, strict=True)):
        assert torch.equal(first["bank"][f"tables.{number}"], second["bank"][f"tables.{number}"])
        torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-11)
    for rank in (first, second):
        assert ["the processes begin with other rows" in start for start in rank["starts"]] == [True, True, False]
        assert not rank["starts"][2]  # DDP has copied the first one's rows
    assert "load speakers before fully_shard, keep bank.state_dict()" in first["refused"]
    whole.bank.save(tmp_path / "speakers")
    assert (tmp_path / "speakers" / "carol.safetensors").exists()


def learn_both(model: nn.Module, bank: SpeakerBank, batches, **options) -> None:
    """The model and the rows together, which its call does not know of."""
    ours, theirs = bank.optimizer("adam", lr=0.1, weight_decay=0.1, **options), torch.optim.SGD(model.parameters(), 0.1)
    for x, names in batches:
        for optimizer in (ours, theirs):
            optimizer.zero_grad()
        with bank.rows(names):
            model(x).square().mean().backward()
        for optimizer in (ours, theirs):
            optimizer.step()


def train_beside(rank: int, ranks: int, batches, folder: str) -> None:
    """What one process does: the model is wrapped, and the optimizer of the rows averages their sparse gradients."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)
    refused = []
    for other in (True, False):
        adapted = adapted_mlp(sparse=other)
        adapted.model.requires_grad_(True)
        with torch.no_grad():
            adapted.bank.tables[1][2, 3] += rank if other else 0.0
        try:
            learn_both(adapted.model, adapted.bank, batches[:1], over_processes=True)
            refused.append("")
        except ConfigError as error:
            refused.append(str(error))
    adapted = adapted_mlp(sparse=True)
    model = DistributedDataParallel(adapted.model.requires_grad_(True))
    shares = [(x[rank::ranks], names[rank::ranks]) for x, names in batches]
    learn_both(model, adapted.bank, shares, over_processes=True)
    torch.save({"refused": refused, "state": adapted.state_dict()}, f"{folder}/{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_an_optimizer_over_processes_trains_what_one_does(randn, tmp_path):
    """Sparse gradients: rows that one process alone has, and a row that neither has stays as it is."""
    batches = [(randn(4, 5), names) for names in (["alice", "bob"] * 2, ["alice", ""] * 2, ["bob"] * 4)]
    torch.multiprocessing.spawn(train_beside, (2, copy.deepcopy(batches), str(tmp_path)), nprocs=2)
    adapted = adapted_mlp(sparse=True)
    adapted.model.requires_grad_(True)
    before = [table.detach().clone() for table in adapted.bank.tables]
    learn_both(adapted.model, adapted.bank, batches)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for name, expected in adapted.state_dict().items():
        torch.testing.assert_close(first["state"][name], expected, rtol=1e-9, atol=1e-11)
        assert torch.equal(first["state"][name], second["state"][name])
    for table, earlier in zip(adapted.bank.tables, before, strict=True):
        assert torch.equal(table[3], earlier[3])
        assert not torch.equal(table[1:3], earlier[1:3])
    for rank in (first, second):
        assert "the processes begin with other rows" in rank["refused"][0]
        assert "over_processes: averages sparse gradients alone" in rank["refused"][1]


def test_an_optimizer_over_processes_is_as_any_other_in_one(randn):
    batches = [(randn(4, 5), ["alice", "bob"] * 2)]
    alone, plain = adapted_mlp(sparse=True), adapted_mlp(sparse=True)
    for each, options in ((alone, {"over_processes": True}), (plain, {})):
        learn_both(each.model.requires_grad_(True), each.bank, batches, **options)
    for ours, theirs in zip(alone.bank.tables, plain.bank.tables, strict=True):
        assert torch.equal(ours, theirs)
