"""Gates: exactly 1 at the start, the equations written out, gradients, and what they can learn."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lhuc_asr.base.errors import ConfigError
from lhuc_asr.lhuc import Amplitude, Gate, attach

SCALES = {
    "2sigmoid": lambda r: 2 / (1 + torch.exp(-r)),
    "sigmoid": lambda r: 1 / (1 + torch.exp(-r)),
    "exp": torch.exp,
    "identity": lambda r: r,
}


def gate_of(scale: str, hidden: int | None, inputs: int = 5, units: int = 4) -> Gate:
    return Gate(inputs, units, hidden, scale, torch.Generator().manual_seed(2))


@given(
    scale=st.sampled_from(["2sigmoid", "exp", "identity", "relu"]),
    hidden=st.sampled_from([None, 1, 7]),
    conditioning=st.lists(st.floats(-(2.0**60), 2.0**60, width=32), min_size=5, max_size=5),
)
def test_a_fresh_gate_is_exactly_one_for_every_input(scale, hidden, conditioning):
    amplitudes = gate_of(scale, hidden)(torch.tensor([conditioning, [0.0] * 5]))
    assert (amplitudes == 1.0).all()
    assert amplitudes.shape == (2, 4)


def test_sigmoid_starts_at_a_half():
    assert (gate_of("sigmoid", None)(torch.ones(3, 5)) == 0.5).all()


@pytest.mark.parametrize("scale", list(SCALES))
@pytest.mark.parametrize("hidden", [None, 6])
def test_the_equations(scale, hidden, randn):
    gate = gate_of(scale, hidden).double()
    with torch.no_grad():
        for parameter in gate.parameters():
            parameter.copy_(randn(*parameter.shape))
    c = randn(3, 5)
    n = c if hidden is None else (c @ gate.hidden.weight.T + gate.hidden.bias).clamp(min=0)
    r = n @ gate.output.weight.T + gate.output.bias
    torch.testing.assert_close(gate.r(c), r)
    torch.testing.assert_close(gate(c), SCALES[scale](r))
    assert torch.autograd.gradcheck(gate, randn(3, 5).requires_grad_())


def test_without_a_hidden_layer_it_is_one_linear_map():
    gate = gate_of("2sigmoid", None)
    assert {name: tuple(p.shape) for name, p in gate.named_parameters()} == {
        "output.weight": (4, 5),
        "output.bias": (4,),
    }
    assert gate.hidden is None


@pytest.mark.parametrize("hidden", [None, 16])
def test_it_learns_from_its_neutral_start(hidden, randn):
    """Targets that depend on the conditioning; with a hidden layer what is below learns too."""
    gate = gate_of("2sigmoid", hidden).double()
    before = {name: p.detach().clone() for name, p in gate.named_parameters()}
    c, secret = randn(64, 5), randn(5, 4)
    target = 2 * torch.sigmoid(c @ secret)
    optimizer = torch.optim.Adam(gate.parameters(), lr=0.05)
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        loss = (gate(c) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]
    assert not any(torch.equal(before[name], p.detach()) for name, p in gate.named_parameters())


def test_a_gate_stands_in_for_a_banks_rows(mlp, randn):
    """Its gradient reaches it through the network, and the bank's rows get none."""
    bank = attach(mlp, "hidden.0.activation", ["a", "b"])
    gate, conditioning, x = gate_of("exp", None, 3, 8).double(), randn(3, 3), randn(2, 5)
    plain = mlp(x)
    with bank.computed(lambda site, rows: gate.r(conditioning[rows])), bank.rows(["b", "a"]):
        output = mlp(x)
        assert torch.equal(output, plain)
        output.square().sum().backward()
    assert gate.output.weight.grad.abs().sum() > 0
    assert bank.tables[0].grad is None


def test_the_generator_determines_the_start_and_errors_are_raised():
    one, other = gate_of("exp", 6), gate_of("exp", 6)
    assert torch.equal(one.hidden.weight, other.hidden.weight)
    assert not torch.equal(one.hidden.weight, Gate(5, 4, 6, "exp", torch.Generator().manual_seed(3)).hidden.weight)
    with pytest.raises(ConfigError, match="a gate with 6 hidden units starts at random: pass generator="):
        Gate(5, 4, hidden=6)
    with pytest.raises(ConfigError, match="no amplitude is called 'tanh'"):
        Gate(5, 4, scale="tanh")
    assert (Gate(2, 3, scale=Amplitude("square", torch.square, 1.0))(torch.ones(1, 2)) == 1.0).all()
