import pytest
import torch
from torch import nn
from torch.nn import functional

from lhuc_asr.base.errors import SiteError
from lhuc_asr.lhuc import Site, attach, frozen, match_sites
from lhuc_asr.lhuc.bank import SpeakerBank


def snapshot(model):
    return {
        "tensors": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "training": [module.training for module in model.modules()],
        "wanted": [p.requires_grad for p in model.parameters()],
        "dropout": [module.dropout for module in model.modules() if isinstance(module, nn.RNNBase)],
    }


def assert_same(before, after):
    assert list(before["tensors"]) == list(after["tensors"])
    for name, tensor in before["tensors"].items():
        assert tensor.numpy().tobytes() == after["tensors"][name].numpy().tobytes()
    for key in ("training", "wanted", "dropout"):
        assert before[key] == after[key]


def test_sites_of_the_three_models(mlp, recurrent, cnn):
    assert attach(mlp, "hidden.*.activation").sites == (Site("hidden.0.activation", 8), Site("hidden.1.activation", 6))
    assert attach(recurrent, nn.LSTM).sites == (Site("lstm", 8, -1, 1),)
    assert attach(cnn, nn.MaxPool2d).sites == (Site("lower.3", 4, 1), Site("upper.2", 6, 1))


def test_widths(randn):
    model = nn.Sequential(
        nn.Linear(3, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Dropout(), nn.Linear(7, 6), nn.GLU(), nn.ReLU()
    )
    assert attach(model, ["2", "3", "1"]).sites == (Site("1", 7), Site("2", 7), Site("3", 7))
    with pytest.raises(SiteError, match=r"site '6' \(ReLU\): the number of its units is not known .* pass example="):
        attach(model, "6")
    assert attach(model, "6", example=torch.zeros(2, 3)).sites == (Site("6", 3),)
    assert attach(nn.Sequential(nn.LSTM(3, 4, proj_size=2, batch_first=True)), "0").sites == (Site("0", 2),)
    assert attach(nn.Sequential(nn.Conv1d(3, 4, 1), nn.ReLU()), "1").sites == (Site("1", 4, 1),)
    assert attach(nn.Sequential(nn.LayerNorm(5)), "0").sites == (Site("0", 5),)


def test_example_touches_nothing(cnn, randn):
    cnn.train()
    before = snapshot(cnn)
    assert attach(cnn, ["lower.3", "upper"], example=randn(2, 1, 8, 8), dim=1).sites == (
        Site("lower.3", 4, 1),
        Site("upper", 6, 1),
    )
    assert_same(before, snapshot(cnn))


def test_example_must_run_the_site_and_tell_the_axis(cnn, randn):
    with pytest.raises(SiteError, match=r"site 'upper': which axis of its output \(2, 6, 2, 2\) .* pass dim="):
        attach(cnn, "upper", example=randn(2, 1, 8, 8))
    cnn.unused = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    with pytest.raises(SiteError, match=r"does not run 'unused.1' on the example"):
        attach(cnn, "unused.1", example=randn(2, 1, 8, 8))


def test_patterns():
    model = nn.ModuleDict({"a": nn.ModuleList([nn.ReLU(), nn.Sequential(nn.ReLU(), nn.Tanh())]), "top": nn.ReLU()})
    assert match_sites(model, ["a.*"]) == ["a.0", "a.1"]
    assert match_sites(model, ["*"]) == ["a", "top"]
    assert match_sites(model, ["**.0"]) == ["a.0", "a.1.0"]
    assert match_sites(model, ["a.**"]) == ["a", "a.0", "a.1", "a.1.0", "a.1.1"]
    assert match_sites(model, ["a.[0-9].?"]) == ["a.1.0", "a.1.1"]
    assert match_sites(model, ["top", nn.Tanh, "a.0"]) == ["a.0", "a.1.1", "top"]


def test_matching_nothing_lists_the_nearest(mlp):
    with pytest.raises(
        SiteError, match=r"matches the site 'hiden.\*.activation'; nearest names: hidden\.\d\.activation"
    ):
        attach(mlp, "hiden.*.activation")
    with pytest.raises(SiteError, match=r"nearest names: hidden\.\d\.activation.* in which \*\* stands for any parts"):
        attach(mlp, "activaton")
    with pytest.raises(SiteError, match="no module matches the site 'layers'"):
        attach(mlp, ["hidden.*.activation", "layers"])
    with pytest.raises(SiteError, match="no module is a LSTM; the model has Dropout, Layer, Linear, ModuleList"):
        attach(mlp, nn.LSTM)
    with pytest.raises(SiteError, match="no sites are named"):
        attach(mlp, [])


def test_one_module_in_two_places_is_refused():
    relu = nn.ReLU()
    with pytest.raises(SiteError, match="'1' and '3' are one module"):
        attach(nn.Sequential(nn.Linear(2, 2), relu, nn.Linear(2, 2), relu), nn.ReLU)


def test_the_model_keeps_its_state_dict_and_its_outputs(mlp, randn):
    before, x = snapshot(mlp), randn(3, 5)
    plain = mlp(x)
    bank = attach(mlp, "hidden.*.activation", ["a"])
    assert_same(before, snapshot(mlp))
    with torch.no_grad():
        bank.tables[0].fill_(0.3)
    assert not torch.equal(mlp(x), plain)
    bank.detach()
    assert torch.equal(mlp(x), plain)
    assert not any(module._forward_hooks for module in mlp.modules())


def test_double_attach_is_refused(mlp):
    bank = attach(mlp, "hidden.0.activation")
    for again in (bank.attach, lambda: attach(mlp, "hidden.*.activation")):
        with pytest.raises(SiteError, match=r"'hidden.0.activation' carries amplitudes already"):
            again()
    assert not mlp.hidden[1].activation._forward_hooks
    attach(mlp, "hidden.1.activation")  # another site is another matter
    with pytest.raises(SiteError, match="the model has no module 'gone'"):
        SpeakerBank(mlp, [Site("gone", 3)]).attach()


def test_scale_comes_after_the_activation(mlp, randn):
    """Equation 3, written out."""
    bank = attach(mlp, "hidden.*.activation", ["a"])
    with torch.no_grad():
        for table in bank.tables:
            table[1] = randn(table.shape[1])
    h = x = randn(4, 5)
    for layer, table in zip(mlp.hidden, bank.tables, strict=True):
        h = table[1].exp() * torch.sigmoid(layer.linear(h))
    with bank.speaker("a"):
        torch.testing.assert_close(mlp(x), mlp.output(h), rtol=1e-12, atol=1e-14)


def test_lstm_scales_outputs_only(recurrent, randn, scatter):
    x = randn(6, 3, 5)
    plain, (state, cell) = recurrent.lstm(x)
    bank = attach(recurrent, "lstm", ["a", "b"])
    scatter(bank)
    with bank.rows(["b", "", "a"]):
        scaled, (state_after, cell_after) = recurrent.lstm(x)
    expected = plain * bank.tables[0].detach().exp()[torch.tensor([2, 0, 1])]
    torch.testing.assert_close(scaled.detach(), expected.detach(), rtol=1e-12, atol=1e-14)
    assert torch.equal(state, state_after)
    assert torch.equal(cell, cell_after)


def small_tdnn():
    """(B, 5, T) -> (B, 3, T - 2): convolutions over time, the units along axis 1."""
    return nn.Sequential(
        nn.Conv1d(5, 6, 3), nn.BatchNorm1d(6), nn.ReLU(), nn.Conv1d(6, 4, 1), nn.Tanh(), nn.Conv1d(4, 3, 1)
    )


@pytest.mark.parametrize(
    ("which", "sites", "shape", "batch_axis"),
    [
        ("mlp", "hidden.*.linear", (4, 5), 0),
        ("cnn", nn.Conv2d, (4, 1, 8, 8), 0),
        ("cnn", ["lower.*", "upper.[12]"], (4, 1, 8, 8), 0),
        ("recurrent", nn.LSTM, (6, 4, 5), 1),
        ("tdnn", [nn.Tanh, "0"], (4, 5, 9), 0),
    ],
)
def test_mixed_speakers_in_a_batch_are_each_alone(which, sites, shape, batch_axis, request, randn, scatter):
    model = small_tdnn().double().eval() if which == "tdnn" else request.getfixturevalue(which)
    x, who = randn(*shape), ["a", "", "b", "a"]
    plain = model(x)
    bank = attach(model, sites, ["a", "b"])
    scatter(bank)
    with bank.rows(who):
        mixed = model(x)
    for position, name in enumerate(who):
        with bank.speaker(name):
            alone = model(x).select(batch_axis, position)
        torch.testing.assert_close(mixed.select(batch_axis, position), alone, rtol=1e-12, atol=1e-13)
        assert not torch.allclose(alone, plain.select(batch_axis, position))


@pytest.mark.parametrize("which", ["mlp", "recurrent", "cnn"])
def test_adaptation_in_a_frozen_model_changes_the_bank_only(which, request, randn, generator):
    model = request.getfixturevalue(which).train()
    model.output.bias.requires_grad_(False)
    model.output.eval()
    sites, x = {
        "mlp": ("hidden.*.activation", randn(8, 5)),
        "recurrent": ("lstm", randn(4, 8, 5)),
        "cnn": (nn.MaxPool2d, randn(8, 1, 8, 8)),
    }[which]
    y = torch.randint(3, (8,), generator=generator)
    before = snapshot(model)
    bank = attach(model, sites, ["a"])
    optimizer = bank.optimizer("sgd", lr=0.1)
    losses = []
    with frozen(model), bank.speaker("a"):
        assert not any(p.requires_grad for p in model.parameters())
        for _ in range(20):
            logits = model(x)
            logits = logits.mean(0) if which == "recurrent" else logits
            loss = functional.cross_entropy(logits, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < losses[0]  # and no dropout: the losses fall steadily
    assert losses == sorted(losses, reverse=True)
    assert_same(before, snapshot(model))
    assert all(p.grad is None for p in model.parameters())


def test_frozen_restores_after_an_exception(recurrent):
    recurrent.train()
    before = snapshot(recurrent)
    with pytest.raises(ZeroDivisionError), frozen(recurrent):
        raise ZeroDivisionError
    assert_same(before, snapshot(recurrent))
