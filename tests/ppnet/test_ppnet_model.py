"""The networks: neutral at the start, gradients that stop where they must, the equations written out."""

import pytest
import torch
from torch.nn import functional

from lhuc_asr.base.errors import ConfigError
from lhuc_asr.ppnet import PEPNet, PPNet, RankingConfig, build

KINDS = ["dnn", "concat", "film", "simple", "ppnet", "pepnet"]
GATED = ["simple", "ppnet", "pepnet"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_a_logit_a_task_and_trains_all_it_has(kind, make_network, make_batch):
    network, batch = make_network(kind, scatter=0.3), make_batch()
    logits = network(batch)
    assert logits.shape == (16, 2)
    functional.binary_cross_entropy_with_logits(logits, batch.labels).backward()
    untrained = [name for name, parameter in network.named_parameters() if not parameter.grad.abs().sum() > 0]
    assert untrained == []


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("simple", {}),
        ("ppnet", {"gate": {"scale": "exp", "hidden": None}}),
        ("ppnet", {"gate": {"scale": "identity"}}),
        ("pepnet", {"gate": {"scale": "exp"}}),
        *(
            (kind, options)
            for kind in ("film", "ppnet", "pepnet")
            for options in ({}, {"gate": {"position": "before"}}, {"gate": {"output": True}}, {"batch_norm": True})
        ),
    ],
    ids=str,
)
def test_an_untrained_network_is_the_plain_one(kind, options, make_network, make_batch):
    """Bit for bit: outputs, and gradients of what both have."""
    shape = {name: value for name, value in options.items() if name != "gate"}
    batch = make_batch()
    plain, gated = make_network("dnn", tasks=1, **shape), make_network(kind, tasks=1, **options)
    assert torch.equal(gated(batch), plain(batch))
    for network in (plain, gated):
        functional.binary_cross_entropy_with_logits(network(batch), batch.labels[:, :1]).backward()
    for mine, its in zip(gated.shared.parameters(), plain.shared.parameters(), strict=True):
        assert torch.equal(mine.grad, its.grad)


@pytest.mark.parametrize("kind", ["film", "ppnet", "pepnet"])
def test_gates_send_no_gradient_to_the_shared_embeddings(kind, make_network, make_batch, monkeypatch):
    """Bit for bit the gradient that they have where the gates read a copy that no gradient can reach."""
    batch = make_batch()

    def gradients(network):
        network.zero_grad()
        functional.binary_cross_entropy_with_logits(network(batch), batch.labels).backward()
        return [parameter.grad.clone() for parameter in network.shared.parameters()]

    network = make_network(kind, scatter=0.3).eval()
    own = gradients(network)

    gates = [m for name, m in network.named_modules() if name == "epnet" or name.split(".")[-2:-1] == ["gates"]]
    copies = {}
    for number, gate in enumerate(gates):
        gate.register_forward_pre_hook(lambda _, arguments, n=number: copies.update({n: arguments[1].clone()}))
    network(batch)
    for number, gate in enumerate(gates):

        def from_a_copy(_, arguments, n=number):
            return (arguments[0], copies[n].detach(), *arguments[2:])

        gate._forward_pre_hooks.clear()
        gate.register_forward_pre_hook(from_a_copy)
    expected = gradients(network)
    assert len(gates) == {"film": 2, "ppnet": 2, "pepnet": 5}[kind]
    assert all(torch.equal(mine, its) for mine, its in zip(own, expected, strict=True))

    # The proof can fail: with gradients let through, the embeddings' are others.
    for gate in gates:
        gate._forward_pre_hooks.clear()
    monkeypatch.setattr(torch.Tensor, "detach", lambda tensor: tensor)
    through = gradients(network)
    assert not any(torch.equal(mine, its) for mine, its in zip(own, through, strict=True))


@pytest.mark.parametrize("kind", ["film", *GATED])
def test_an_unseen_user_has_neutral_gates_however_they_were_trained(kind, make_network, make_batch):
    """The same outputs as of the network whose gates were never trained; and only his are."""
    network, batch = make_network(kind, scatter=0.5).eval(), make_batch(user=0)
    layers = {n: d for n, d in network.gates(batch).items() if n != "epnet"}
    assert all((delta == 1.0).all() for delta in layers.values())
    assert (len(layers) > 0) == (kind != "film")
    seen, unseen = network(make_batch(user=3)), network(batch)

    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "gates" in name or "lhuc_layers" in name:
                parameter.copy_(make_network(kind).get_parameter(name))
    assert torch.equal(network(batch), unseen)
    assert not torch.isclose(network(make_batch(user=3)), seen).any(0).all()


@pytest.mark.parametrize("kind", ["film", *GATED])
def test_row_0_of_a_gates_table_stays_zero(kind, make_network, make_batch):
    network = make_network(kind, scatter=0.3)
    batch = make_batch(user=0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    for _ in range(3):
        functional.binary_cross_entropy_with_logits(network(batch), batch.labels).backward()
        optimizer.step()
    table = network.network.user_embedding.weight if kind == "simple" else network.prior.tables[0]
    assert (table[0] == 0.0).all()
    assert (table[1:] != 0.0).any(1).all()


def reference(network, batch, tower):
    """PPNet written out: gates after the activation, each with a hidden layer."""
    shared = network.shared(batch)
    c = torch.cat([network.prior(batch), shared], 1)
    hidden = shared
    for linear, gate in zip(tower.layers, tower.gates, strict=True):
        first = gate.hidden[0]
        n = (c @ first.weight.T + first.bias).clamp(min=0)
        delta = 2 / (1 + torch.exp(-(n @ gate.gate.weight.T + gate.gate.bias)))
        hidden = (hidden @ linear.weight.T + linear.bias).clamp(min=0) * delta
    return hidden @ tower.output.weight.T + tower.output.bias


def test_ppnet_is_its_equations(make_network, make_batch):
    network, batch = make_network("ppnet", scatter=0.3).eval(), make_batch()
    torch.testing.assert_close(network(batch), reference(network, batch, network.tower))
    assert isinstance(network, PPNet)


def test_pepnet_is_its_equations(make_network, make_batch):
    network, batch = make_network("pepnet", scatter=0.3).eval(), make_batch()
    assert isinstance(network, PEPNet)
    expected, embeddings = network(batch), network.shared(batch)
    c = torch.cat([network.domain(batch), embeddings], 1)
    n = (c @ network.epnet.hidden[0].weight.T + network.epnet.hidden[0].bias).clamp(min=0)
    scaled = embeddings * 2 / (1 + torch.exp(-(n @ network.epnet.gate.weight.T + network.epnet.gate.bias)))
    network.shared.forward = lambda batch: scaled
    tasks = [reference(network, batch, tower) for tower in network.towers]
    torch.testing.assert_close(expected, torch.cat(tasks, 1))


def test_gates_before_the_activation_and_on_the_output(make_network, make_batch):
    """A gate that is negative flips what the activation lets through, if it comes before it."""
    batch = make_batch()
    for position, sign in (("after", -1), ("before", 1)):
        gate = {"scale": "identity", "position": position, "output": True, "hidden": None}
        network = make_network("ppnet", gate=gate, hidden_units=(8,)).eval()
        hidden, output = network.tower.gates
        with torch.no_grad():
            hidden.gate.bias.fill_(-1.0)
            output.gate.bias.fill_(3.0)
            a = network.tower.layers[0](network.shared(batch))
            h = torch.relu(-a) if sign == 1 else -torch.relu(a)
            expected = 3.0 * network.tower.output(h)
        torch.testing.assert_close(network(batch), expected)


def test_some_examples_are_taken_for_an_unseen_users_in_training_only(make_network, make_batch):
    network, batch = make_network("ppnet", scatter=0.5, gate={"unseen_share": 0.25}), make_batch(size=4000)
    network.train()
    neutral = (network.gates(batch)["tower.gates.0"] == 1.0).all(1)
    assert 0.2 < neutral.float().mean() < 0.3
    assert not (network.eval().gates(batch)["tower.gates.0"] == 1.0).all(1).any()


def test_gates_are_named_by_their_modules(make_network, make_batch):
    deltas = make_network("pepnet").gates(make_batch())
    assert {name: tuple(delta.shape) for name, delta in deltas.items()} == {
        "epnet": (16, 13),
        **{f"towers.{task}.gates.{layer}": (16, units) for task in (0, 1) for layer, units in enumerate((8, 6))},
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "dnn", "gate": {"hidden": 3}}, "gate would have no effect in a network of kind 'dnn'"),
        ({"kind": "film", "gate": {"scale": "exp"}}, "gate.scale would have no effect in a network of kind 'film'"),
        ({"kind": "simple", "dropout": 0.1}, "dropout would have no effect in a network of kind 'simple'"),
        ({"kind": "ppnet", "hidden_units": ()}, "at least 1 item"),
        ({"kind": "ppnet", "hidden_units": (8, 0)}, "greater than or equal to 1"),
    ],
)
def test_an_option_without_effect_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RankingConfig.model_validate(options)


def test_a_schema_without_what_a_network_needs_is_refused(schema):
    rows = {"item": 12, "genres": 6, "prior.user": 9, "prior.item": 12, "place": 4}

    def without(*names):
        return schema.model_copy(update={"features": tuple(f for f in schema.features if f.name not in names)})

    def make(kind, schema):
        return build(RankingConfig(kind=kind), schema, rows, torch.Generator())

    with pytest.raises(ConfigError, match="kind 'pepnet' needs features of group 'domain', but the schema has none"):
        make("pepnet", without("place"))
    with pytest.raises(ConfigError, match="kind 'concat' needs features of group 'prior', but the schema has none"):
        make("concat", without("prior.user", "prior.item"))
    shared_user = [f.model_copy(update={"group": "shared"}) if f.name == "prior.user" else f for f in schema.features]
    with pytest.raises(ConfigError, match=r"among the prior features: add a single-valued feature of column 'user'"):
        make("ppnet", schema.model_copy(update={"features": tuple(shared_user)}))


def test_a_network_that_no_memory_holds_is_refused(make_network):
    with pytest.raises(ValueError, match=r"hidden_units.0\n *Input should be less than or equal to 65536"):
        make_network("dnn", hidden_units=[10**12])
