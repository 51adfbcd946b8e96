"""Selections that travel (threads, asyncio tasks, gradient checkpointing), and selections that stay."""

import asyncio
import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from lhuc_asr.base.errors import SiteError, SpeakerError
from lhuc_asr.lhuc import attach

SPEAKERS = ["alice", "bob", "carol"]


@pytest.fixture
def bank(mlp, scatter):
    bank = attach(mlp.eval(), "hidden.*.activation", SPEAKERS)
    scatter(bank)
    return bank


@pytest.fixture
def outputs(bank, mlp, randn):
    """A batch, and what the model makes of it for row 0 and each speaker."""
    x = randn(4, 5)
    made = {}
    for name in ("", *SPEAKERS):
        with bank.speaker(name):
            made[name] = mlp(x).detach()
    return x, made


def gradients(bank) -> list[torch.Tensor]:
    dense = [table.grad.to_dense() for table in bank.tables]
    for table in bank.tables:
        table.grad = None
    return dense


def test_threads_do_not_take_each_others_speakers(bank, mlp, outputs):
    x, made = outputs
    together = Barrier(2)

    def speak(name: str) -> int:
        wrong = 0
        for _ in range(50):
            with bank.speaker(name):
                together.wait()
                wrong += not torch.equal(mlp(x), made[name])
                together.wait()
            wrong += not torch.equal(mlp(x), made[""])
        return wrong

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(speak, ["alice", "bob"])) == [0, 0]
    assert torch.equal(mlp(x), made[""])


def test_tasks_do_not_take_each_others_speakers_and_inherit_their_makers(bank, mlp, outputs):
    x, made = outputs

    async def listen(expected: str) -> None:
        await asyncio.sleep(0)
        assert torch.equal(mlp(x), made[expected])

    async def speak(name: str) -> None:
        with bank.speaker(name):
            await listen(name)
            await asyncio.gather(listen(name), speak("carol") if name != "carol" else listen(name))
            await listen(name)

    async def both() -> None:
        await asyncio.gather(speak("alice"), speak("bob"), listen(""))

    asyncio.run(both())
    assert torch.equal(mlp(x), made[""])


@pytest.mark.parametrize("selected", [["alice"] * 4, ["bob", "", "carol", "bob"]])
def test_checkpointing_trains_who_was_selected(bank, mlp, randn, selected):
    x = randn(4, 5).requires_grad_()
    with bank.rows(selected):
        mlp(x).square().sum().backward()
    plain, x_plain = gradients(bank), x.grad
    x.grad = None
    with bank.rows(selected):
        loss = checkpoint(mlp, x, use_reentrant=False, context_fn=bank.checkpointing).square().sum()
    # Another speaker's context, and a sticky one, are open when the forward pass runs again.
    bank.select("carol")
    with bank.speaker("carol"):
        loss.backward()
    assert all(torch.equal(*pair) for pair in zip(gradients(bank), plain, strict=True))
    assert torch.equal(x.grad, x_plain)


def test_two_checkpointed_passes_keep_their_own(bank, mlp, randn):
    x = randn(4, 5)
    losses = []
    for name in ("alice", "bob"):
        with bank.speaker(name):
            losses.append(checkpoint(mlp, x, use_reentrant=False, context_fn=bank.checkpointing).square().sum())
    losses[0].backward()
    assert [{int(row) for row in g.abs().sum(1).nonzero()} for g in gradients(bank)] == [{1}, {1}]
    losses[1].backward()
    assert [{int(row) for row in g.abs().sum(1).nonzero()} for g in gradients(bank)] == [{2}, {2}]


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointing_without_its_contexts_is_refused(bank, mlp, randn, use_reentrant):
    x = randn(4, 5).requires_grad_()
    with bank.speaker("alice"):
        loss = checkpoint(mlp, x, use_reentrant=use_reentrant).sum()
        with pytest.raises(
            SiteError, match=r"nothing says for which speakers; .*AdaptedModel\(model, bank\)\.gradient"
        ):
            loss.backward()


def test_checkpointing_keeps_what_r_is_computed_by(bank, mlp, randn):
    x, codes = randn(4, 5), {site.name: randn(3, site.width).requires_grad_() for site in bank.sites}
    with bank.computed(lambda site, rows: codes[site][rows]), bank.rows(["alice", "", "bob", "bob"]):
        mlp(x).sum().backward()
        plain = {site: code.grad.clone() for site, code in codes.items()}
        loss = checkpoint(mlp, x, use_reentrant=False, context_fn=bank.checkpointing).sum()
    for code in codes.values():
        code.grad = None
    loss.backward()
    assert all(torch.equal(code.grad, plain[site]) for site, code in codes.items())


def test_a_sticky_selection_counts_wherever_no_context_does(bank, mlp, outputs):
    x, made = outputs
    bank.select("bob")
    assert torch.equal(mlp(x), made["bob"])
    with ThreadPoolExecutor(1) as pool:
        assert torch.equal(pool.submit(mlp, x).result(), made["bob"])
    with bank.speaker("alice"):
        assert torch.equal(mlp(x), made["alice"])
    with bank.speaker(""):
        assert torch.equal(mlp(x), made[""])
    bank.select(["alice", "bob", "", "carol"])
    mixed = torch.stack([made[name][place] for place, name in enumerate(["alice", "bob", "", "carol"])])
    torch.testing.assert_close(mlp(x), mixed, rtol=1e-12, atol=1e-12)
    for nobody in ("", None):
        bank.select("bob")
        bank.select(nobody)
        assert torch.equal(mlp(x), made[""])
    with pytest.raises(SpeakerError, match="did you mean alice"):
        bank.select("alise")
    bank.detach()
    with pytest.raises(SiteError, match="the bank is detached"):
        bank.select("alice")


def test_a_sticky_row_that_diverges_is_refused(bank, mlp, randn):
    bank.select("bob")
    mlp(randn(2, 5))
    with torch.no_grad():
        bank.tables[1][2, 3] = torch.inf
    with pytest.raises(SpeakerError, match=r"'bob': r at site 'hidden.1.activation' is not finite"):
        mlp(randn(2, 5))


def test_rows_that_were_selected_before_others_left_are_refused(bank, mlp, outputs):
    x, made = outputs
    bank.select("carol")
    with bank.speaker("bob"):
        bank.drop(["alice"])  # carol and bob move up
        with pytest.raises(SpeakerError, match="speakers were dropped since rows of this bank were selected"):
            mlp(x)
    with pytest.raises(SpeakerError, match="speakers were dropped"):
        mlp(x)
    bank.select("carol")
    assert torch.equal(mlp(x), made["carol"])


def test_a_copy_has_no_selection(bank, mlp, outputs):
    x, made = outputs
    bank.select("bob")
    with bank.speaker("alice"):
        twin, thawed = copy.deepcopy(bank), pickle.loads(pickle.dumps(bank._selecting))
    assert thawed.now().rows is None
    bank.detach()
    twin.attach()
    assert torch.equal(mlp(x), made[""])
