"""A bank as torch keeps modules: state dicts with the speakers' names, pickles, deep copies, and what print shows."""

import copy
import pickle

import pytest
import torch
from safetensors.torch import load, save

from lhuc_asr.base.errors import SpeakerError
from lhuc_asr.lhuc import attach
from lhuc_asr.lhuc.bank import SpeakerBank

SITES = "hidden.*.activation"


def rows(bank) -> dict[str, list[torch.Tensor]]:
    return {name: list(bank.state(name).r.values()) for name in ("", *bank.speakers)}


def assert_same_rows(one, other) -> None:
    assert list(one) == list(other)
    for name, r in one.items():
        assert all(torch.equal(*pair) for pair in zip(r, other[name], strict=True))


@pytest.mark.parametrize("speakers", [[], ["bob", "alice"], ["carol"], ["a", "b", "c"]])
def test_rows_keep_their_owners_in_a_state_dict(bank, mlp, speakers):
    other = SpeakerBank(mlp, bank.sites, speakers)
    other.load_state_dict(load(save(bank.state_dict())))
    assert_same_rows(rows(other), rows(bank))
    assert all(table.shape[0] == 3 for table in other.tables)


def test_a_state_dict_that_does_not_fit_changes_nothing(bank, mlp):
    before, good = rows(bank), bank.state_dict()
    for names in (b'["alice"]', b'["alice", "alice"]', b'["alice", 3]', b"[", b'["a/b", "c"]', b'{"a": 1, "b": 2}'):
        bad = {**good, "_extra_state": torch.frombuffer(bytearray(names), dtype=torch.uint8)}
        with pytest.raises(
            SpeakerError, match=r"does not name the speakers of its 2 rows|cannot be a file's name|not text"
        ):
            bank.load_state_dict(bad)
    with pytest.raises(RuntimeError, match=r"size mismatch for tables.0"):
        bank.load_state_dict({**good, "tables.0": torch.zeros(3, 5), "tables.1": good["tables.1"] * 1})
    with pytest.raises(RuntimeError, match=r"Missing key.*_extra_state"):  # of a version that did not keep names
        bank.load_state_dict({key: value for key, value in good.items() if key != "_extra_state"})
    assert_same_rows(rows(bank), before)


def test_an_optimizer_does_not_go_on_with_other_owners(bank, mlp, randn):
    optimizer = bank.optimizer("adam", lr=0.1)

    def step() -> None:
        with bank.speaker("bob"):
            mlp(randn(2, 5)).sum().backward()
        optimizer.step()

    step()
    bank.load_state_dict(bank.state_dict())
    with pytest.raises(SpeakerError):
        step()


@pytest.mark.parametrize("speakers", [[], ["alice", "bob"]])
def test_pickles(mlp, scatter, randn, speakers):
    x, bank = randn(2, 5), attach(mlp, SITES, speakers)
    scatter(bank)
    model, twin = pickle.loads(pickle.dumps((mlp, bank)))
    assert twin.model is model
    assert twin.attached
    assert_same_rows(rows(twin), rows(bank))
    for name in ("", *speakers):
        with bank.speaker(name), twin.speaker(name):
            assert torch.equal(model(x), mlp(x))
    optimizer = twin.optimizer("sgd", lr=0.1)
    with twin.speaker(""):
        model(x).sum().backward()
    optimizer.step()
    assert not torch.equal(model(x), mlp(x))


def test_a_model_and_its_bank_copied_together_belong_together(bank, mlp, randn):
    x = randn(3, 5)
    for model, twin in (copy.deepcopy((mlp, bank)), copy.deepcopy(torch.nn.ModuleList([mlp, bank]))):
        assert twin.model is model
        assert_same_rows(rows(twin), rows(bank))
        with bank.speaker("alice"), twin.speaker("bob"):
            one, other = mlp(x), model(x)
        with bank.speaker("bob"):
            assert torch.equal(mlp(x), other)
        with twin.speaker("alice"):
            assert torch.equal(model(x), one)
        twin.detach()
        assert not any(module._forward_hooks for module in model.modules())
    alone = copy.deepcopy(mlp)
    with bank.speaker("alice"):
        plain = alone(x)
    bank.detach()
    assert torch.equal(plain, mlp(x))


def test_print_says_how_much_a_speaker_is(bank, mlp):
    size = sum(parameter.numel() for parameter in mlp.parameters())
    shown = repr(bank)
    assert "at 2 sites: hidden.0.activation, hidden.1.activation" in shown
    assert "2 speakers, 14 numbers each" in shown
    assert f"attached, {14 / size:.3%} of the {size} parameters of Mlp" in shown
    bank.detach()
    assert "detached" in repr(bank)


def test_an_optimizer_goes_on_with_its_state(bank, mlp, randn):
    """Two steps, or one, and one in a new process: the same to the bit."""
    inputs = [randn(3, 5), randn(3, 5)]

    def step(bank, optimizer, x) -> None:
        optimizer.zero_grad()
        with bank.rows(["bob", "alice", "bob"]):
            bank.model(x).square().sum().backward()
        optimizer.step()

    fresh = SpeakerBank(copy.deepcopy(mlp), bank.sites, ["carol"])
    fresh.attach()
    optimizer = bank.optimizer("adam", lr=0.1, weight_decay=0.1)
    step(bank, optimizer, inputs[0])
    kept = pickle.loads(pickle.dumps((bank.state_dict(), optimizer.state_dict())))
    step(bank, optimizer, inputs[1])
    fresh.load_state_dict(kept[0])
    other = fresh.optimizer("adam", lr=0.3)
    other.load_state_dict(kept[1])
    step(fresh, other, inputs[1])
    assert_same_rows(rows(fresh), rows(bank))
    fresh.reset(["bob"])
    with pytest.raises(SpeakerError, match="speakers were added, dropped, reset or loaded"):
        step(fresh, other, inputs[1])


@pytest.mark.parametrize("speakers", [["bob", "alice"], ["alice", "carol"], ["alice", "bob", "carol"]])
def test_an_optimizer_does_not_take_the_state_of_other_owners(bank, mlp, randn, speakers):
    optimizer = bank.optimizer("sgd", lr=0.1, momentum=0.9)
    with bank.speaker("bob"):
        mlp(randn(2, 5)).sum().backward()
    optimizer.step()
    other = SpeakerBank(mlp, bank.sites, speakers).optimizer("sgd")
    with pytest.raises(SpeakerError, match=r"belongs to other speakers .* load the bank's state first"):
        other.load_state_dict(optimizer.state_dict())
    assert not other.state
