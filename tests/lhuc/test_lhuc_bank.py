import copy
import dataclasses

import pytest
import torch

from lhuc_asr.base.errors import ModelMismatchError, SiteError, SpeakerError
from lhuc_asr.lhuc import attach
from lhuc_asr.lhuc.bank import SpeakerBank

SITES = "hidden.*.activation"


@pytest.fixture
def bank(mlp, scatter):
    bank = attach(mlp, SITES, ["alice", "bob", "carol"])
    scatter(bank)
    return bank


def test_a_fresh_bank_changes_no_bit(mlp, cnn, recurrent, randn):
    for model, sites, x in (
        (mlp, SITES, randn(4, 5)),
        (cnn, ["lower.3", "upper.2"], randn(4, 1, 8, 8)),
        (recurrent, "lstm", randn(6, 4, 5)),
    ):
        plain = model(x)
        for xi in ("exp", "2sigmoid", "identity", "relu"):
            bank = attach(model, sites, ["a", "b"], amplitude=xi)
            assert torch.equal(model(x), plain)
            with bank.speaker("a"):
                assert torch.equal(model(x), plain)
            with bank.rows(["a", "b", "", "a"]):
                assert torch.equal(model(x), plain)
            with bank.blocks(["a", "b"]):
                assert torch.equal(model(x), plain)
            bank.detach()


def test_rows_blocks_and_speaker_agree(bank, mlp, randn):
    x = randn(6, 5)
    who = ["alice", "alice", "bob", "bob", "", ""]
    alone = []
    for name, frame in zip(who, x, strict=True):
        with bank.speaker(name):
            alone.append(mlp(frame))
    with bank.rows(who):
        mixed = mlp(x)
    with bank.rows(bank.rows_of(who)):
        assert torch.equal(mlp(x), mixed)
    with bank.blocks(["alice", "bob", ""]):
        assert torch.equal(mlp(x), mixed)
    torch.testing.assert_close(mixed, torch.stack(alone), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(mixed[0], mlp(x)[0])


def test_outside_any_context_row_zero_counts_and_contexts_nest(bank, mlp, randn):
    x = randn(2, 5)
    with bank.speaker(""):
        independent = mlp(x)
    assert torch.equal(mlp(x), independent)
    with bank.speaker("alice"):
        alice = mlp(x)
        with bank.speaker("bob"):
            assert not torch.equal(mlp(x), alice)
        with pytest.raises(ZeroDivisionError), bank.speaker("bob"):
            raise ZeroDivisionError
        assert torch.equal(mlp(x), alice)
    assert torch.equal(mlp(x), independent)
    with bank.rows(["alice", "nobody"], unknown="si"):
        assert torch.equal(mlp(x)[1], independent[1])


def test_names_and_rows(bank):
    assert bank.speakers == ("alice", "bob", "carol")
    assert [bank.row(name) for name in ("", *bank.speakers)] == [0, 1, 2, 3]
    assert bank.rows_of(["bob", "zoe", ""], unknown="si").tolist() == [2, 0, 0]
    with pytest.raises(SpeakerError, match=r"speaker 'alise' is not in the bank; did you mean alice"):
        bank.row("alise")
    with pytest.raises(SpeakerError, match="it has 3 speakers"):
        bank.rows_of(["xyz"])


def test_add_starts_at_row_zero_drop_keeps_the_others_reset_returns(bank):
    before = {name: bank.state(name).r for name in ("", *bank.speakers)}
    bank.add(["dave"])
    bank.drop(["bob"])
    assert bank.speakers == ("alice", "carol", "dave")
    bank.reset(["alice"])
    origin = {"": "", "carol": "carol", "dave": "", "alice": ""}
    for name, source in origin.items():
        for site, r in bank.state(name).r.items():
            assert torch.equal(r, before[source][site])
    with pytest.raises(SpeakerError, match="'carol' is in the bank already"):
        bank.add(["erin", "carol"])
    assert "erin" not in bank.speakers
    for change in (bank.drop, bank.reset):
        with pytest.raises(SpeakerError, match="row 0 is the speaker-independent row"):
            change([""])


def test_merge(bank, mlp, scatter):
    other = SpeakerBank(mlp, bank.sites, ["dave", "erin"])
    scatter(other)
    bank.merge(other)
    assert bank.speakers == ("alice", "bob", "carol", "dave", "erin")
    for site in bank.sites:
        assert torch.equal(bank.xi(site.name, bank.rows_of(["erin"])), other.xi(site.name, other.rows_of(["erin"])))
    with pytest.raises(SpeakerError, match=r"speakers \['dave', 'erin'\] are in both banks; drop them from one"):
        bank.merge(other)
    with pytest.raises(ModelMismatchError, match="amplitude '2sigmoid', the bank 'exp'"):
        bank.merge(SpeakerBank(mlp, bank.sites, ["fay"], "2sigmoid"))
    with pytest.raises(ModelMismatchError, match=r"amplitudes at hidden.0.activation \(8\), the bank at"):
        bank.merge(SpeakerBank(mlp, bank.sites[:1], ["fay"]))


def test_bad_rows(bank):
    with pytest.raises(SpeakerError, match=r"expected a sequence of names, found 'alice'; use bank.speaker\('alice'\)"):
        bank.rows("alice")
    with pytest.raises(SpeakerError, match="rows from 1 to 4, but the bank has rows 0 to 3"):
        bank.rows(torch.tensor([1, 4]))
    for wrong in (torch.tensor([-1]), torch.tensor([0.5]), torch.zeros(2, 2, dtype=torch.int64), []):
        with pytest.raises(SpeakerError, match="rows"):
            bank.blocks(wrong)


def test_detached_bank_refuses_contexts_and_goes_back(bank, mlp, randn):
    x = randn(2, 5)
    with bank.speaker("bob"):
        adapted = mlp(x)
    bank.detach()
    assert not bank.attached
    with pytest.raises(SiteError, match="the bank is detached, so no amplitude"), bank.speaker("bob"):
        pass
    with pytest.raises(SiteError, match="detached already"):
        bank.detach()
    bank.attach()
    with bank.speaker("bob"):
        assert torch.equal(mlp(x), adapted)


def test_deep_copies(bank, mlp, randn):
    x = randn(2, 5)
    plain = copy.deepcopy(mlp)
    independent = mlp(x)
    bank.detach()
    assert torch.equal(plain(x), mlp(x))
    assert not torch.equal(plain(x), independent)

    twin = copy.deepcopy(bank)
    assert twin.model is mlp
    assert not twin.attached
    assert twin.speakers == bank.speakers
    twin.reset(["alice"])
    assert not torch.equal(twin.tables[0], bank.tables[0])


def test_parameters_are_the_tables_only(bank, mlp):
    assert [tuple(p.shape) for p in bank.parameters()] == [(4, 8), (4, 6)]
    assert list(bank.state_dict()) == ["_extra_state", "tables.0", "tables.1"]
    assert not {id(p) for p in bank.parameters()} & {id(p) for p in mlp.parameters()}


def test_dtype_follows_the_model_but_never_half(mlp):
    assert SpeakerBank(mlp, attach(mlp, SITES).sites).tables[0].dtype == torch.float64
    half = copy.deepcopy(mlp).bfloat16()
    bank = attach(half, SITES, ["a"])
    assert bank.tables[0].dtype == torch.float32
    with bank.speaker("a"):
        assert half(torch.zeros(2, 5, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_rows_may_live_in_a_file(mlp, tmp_path, randn):
    """Rows of very many speakers: only those of the batch are read, and the gradient holds no others."""
    bank = attach(mlp, "hidden.0.activation")
    table = bank.tables[0]
    count = 100_001
    table.data = torch.from_file(str(tmp_path / "r"), shared=True, size=count * 8, dtype=torch.float64).view(count, 8)
    selection = torch.tensor([77_777, 3])
    bank.r("hidden.0.activation", selection).sum().backward()
    assert table.grad.coalesce().values().shape == (2, 8)


@pytest.mark.parametrize("bad", [20.0, 1e3, -float("inf"), 3e38])
def test_a_row_whose_amplitudes_overflow_is_not_applied(bank, mlp, bad):
    """exp(-inf) is a number, and r is not."""
    with torch.no_grad():
        bank.tables[1][2, 3] = bad
    message = r"speaker 'bob': r at site 'hidden\.1\.activation' is not finite, or an amplitude is beyond 1e\+06"
    with pytest.raises(SpeakerError, match=message), bank.rows(["alice", "bob"]):
        pass
    assert bank.finite(bank.rows_of(["alice", "bob"])).tolist() == [[True, True], [True, False]]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_row_that_is_not_finite_is_neither_applied_nor_saved_and_harms_nobody_else(bank, mlp, randn, tmp_path, bad):
    x = randn(2, 5)
    with bank.rows(["alice", ""]):
        before = mlp(x)
    with torch.no_grad():
        bank.tables[1][2, 3] = bad
    message = r"speaker 'bob': r at site 'hidden.1.activation' is not finite.* bank.reset\(\['bob'\]\)"
    for use in (
        lambda: bank.speaker("bob"),
        lambda: bank.rows(["alice", "bob"]),
        lambda: bank.blocks(["bob", "alice"]),
    ):
        with pytest.raises(SpeakerError, match=message), use():
            pass
    with pytest.raises(SpeakerError, match=message):
        bank.state("bob")
    with pytest.raises(SpeakerError, match=message):
        bank.save(tmp_path)
    assert not list(tmp_path.iterdir())
    with bank.rows(["alice", ""]):
        assert torch.equal(mlp(x), before)
    bank.reset(["bob"])
    bank.save(tmp_path)


def test_row_zero_that_is_not_finite_is_refused_outside_any_context_too(bank, mlp, randn):
    x = randn(2, 5)
    mlp(x)
    with torch.no_grad():
        bank.tables[0][0, 0] = float("nan")
    with pytest.raises(SpeakerError, match=r"row 0 \(speaker-independent\): r at site 'hidden\.0\.activation'"):
        mlp(x)
    with bank.speaker("alice"):
        mlp(x)


def test_put_takes_all_or_none(bank, mlp):
    states = list(bank.states(["alice", "carol"]))
    twin = SpeakerBank(mlp, bank.sites, ["zoe"])
    with pytest.raises(ModelMismatchError):
        twin.put(states[0], dataclasses.replace(states[1], model="0" * 64))
    assert twin.speakers == ("zoe",)
    twin.put(*states)
    assert twin.speakers == ("zoe", "alice", "carol")
    assert torch.equal(twin.tables[1][3], bank.tables[1][3])


def test_computed_rows_take_the_tables_place(bank, mlp, randn):
    x, codes = randn(3, 5), {site.name: randn(4, site.width) for site in bank.sites}
    with bank.computed(lambda site, rows: codes[site][rows]), bank.rows(["bob", "", "bob"]):
        computed = mlp(x)
    with torch.no_grad():
        for site, table in zip(bank.sites, bank.tables, strict=True):
            table.copy_(codes[site.name])
    with bank.rows(["bob", "", "bob"]):
        assert torch.equal(mlp(x), computed)
