"""LHUCLayer and BiasLayer: neutral at the start and for the unknown, the equations, the map open to inspection."""

import pytest
import torch
from torch import nn

from lhuc_asr.base.errors import ConfigError
from lhuc_asr.ppnet import LHUCLayer
from lhuc_asr.ppnet.layer import BiasLayer

SCALES = {
    "2sigmoid": lambda r: 2 / (1 + torch.exp(-r)),
    "sigmoid": lambda r: 1 / (1 + torch.exp(-r)),
    "exp": torch.exp,
    "identity": lambda r: r,
}


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def trained(layer: nn.Module) -> nn.Module:
    with torch.no_grad():
        for number, parameter in enumerate(layer.double().parameters()):
            parameter.copy_(noise(*parameter.shape, seed=number + 9))
    return layer


@pytest.mark.parametrize("scale", ["2sigmoid", "exp", "identity"])
@pytest.mark.parametrize("hidden", [None, 3])
def test_it_changes_nothing_before_training(scale, hidden):
    layer = LHUCLayer(4, 5, scale, hidden, torch.Generator().manual_seed(1))
    h = noise(6, 4).float()
    assert torch.equal(layer(h, 100 * noise(6, 5, seed=1).float()), h)


@pytest.mark.parametrize("scale", list(SCALES))
def test_its_map_is_one_linear_layer(scale):
    layer = trained(LHUCLayer(4, 5, scale))
    assert type(layer.gate) is nn.Linear
    assert {name: tuple(p.shape) for name, p in layer.state_dict().items()} == {
        "gate.weight": (4, 5),
        "gate.bias": (4,),
    }
    h, u = noise(6, 4), noise(6, 5, seed=1)
    delta = SCALES[scale](u @ layer.gate.weight.T + layer.gate.bias)
    torch.testing.assert_close(layer(h, u), h * delta)
    torch.testing.assert_close(layer.amplitudes(u), delta)


def test_a_hidden_layer_where_it_is_asked_for():
    layer = trained(LHUCLayer(4, 5, gate_hidden=3, generator=torch.Generator()))
    h, u = noise(6, 4), noise(6, 5, seed=1)
    n = (u @ layer.hidden[0].weight.T + layer.hidden[0].bias).clamp(min=0)
    torch.testing.assert_close(layer(h, u), h * SCALES["2sigmoid"](n @ layer.gate.weight.T + layer.gate.bias))
    with pytest.raises(ConfigError, match="a gate with 3 hidden units starts at random: pass generator="):
        LHUCLayer(4, 5, gate_hidden=3)
    with pytest.raises(ConfigError, match="no amplitude is called 'tanh'"):
        LHUCLayer(4, 5, "tanh")


def test_the_gates_gradient_is_there_from_the_first_step():
    layer = LHUCLayer(4, 5)
    layer(noise(6, 4).float(), noise(6, 5, seed=1).float()).square().sum().backward()
    assert (layer.gate.weight.grad != 0).all()
    assert (layer.gate.bias.grad != 0).all()


@pytest.mark.parametrize(("scale", "start"), [("2sigmoid", 1.0), ("exp", 1.0), ("identity", 1.0), ("sigmoid", 0.5)])
def test_who_is_not_known_has_an_untrained_gate(scale, start):
    layer, h, u = trained(LHUCLayer(4, 5, scale)), noise(2, 4), noise(2, 5, seed=1)
    output = layer(h, u, torch.tensor([[True], [False]]))
    assert torch.equal(output[0], layer(h, u)[0])
    assert torch.equal(output[1], start * h[1])
    layer.zero_grad()
    output[1].sum().backward()
    assert (layer.gate.weight.grad == 0.0).all()


def test_a_bias_is_added():
    layer, h, u = BiasLayer(4, 5, 3, torch.Generator()), noise(6, 4), noise(6, 5, seed=1)
    assert torch.equal(layer.double()(h, u), h)
    trained(layer)
    first, second = layer.gate.hidden, layer.gate.output
    r = (u @ first.weight.T + first.bias).clamp(min=0) @ second.weight.T + second.bias
    torch.testing.assert_close(layer(h, u), h + r)
    known = torch.tensor([[True], [False]] * 3)
    torch.testing.assert_close(layer(h, u, known), h + known * r)
