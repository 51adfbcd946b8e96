import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lhuc_asr.base.errors import ConfigError
from lhuc_asr.lhuc.amplitude import Amplitude, amplitude

ALL = ("exp", "2sigmoid", "identity", "relu")


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_neutral_is_exactly_one(name, dtype):
    xi = amplitude(name)
    assert (xi(torch.full((3,), xi.neutral, dtype=dtype)) == 1.0).all()


@pytest.mark.parametrize("name", ALL)
def test_gradients(name, randn):
    r = randn(7)
    r = torch.where(r.abs() < 0.1, r + 0.2, r).requires_grad_()  # away from relu's corner
    assert torch.autograd.gradcheck(amplitude(name), r)


@given(r=st.floats(-20, 20))
def test_values(r):
    tensor = torch.tensor([r], dtype=torch.float64)
    expected = {"exp": math.exp(r), "2sigmoid": 2 / (1 + math.exp(-r)), "identity": r, "relu": max(0.0, r)}
    for name, value in expected.items():
        assert amplitude(name)(tensor).item() == pytest.approx(value, rel=1e-12)


def test_relu_is_dead_below_zero():
    r = torch.tensor([-1.0, 1.0], requires_grad=True)
    amplitude("relu")(r).sum().backward()
    assert r.grad.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("name", ALL)
def test_r_of_undoes_the_function(name):
    xi, values = amplitude(name), torch.tensor([0.25, 0.5, 1.0, 1.75], dtype=torch.float64)
    assert torch.allclose(xi(xi.r_of(values)), values, rtol=1e-12)
    assert xi.r_of(torch.tensor(1.0)) == xi.neutral


def test_a_function_without_its_inverse_is_refused():
    with pytest.raises(ConfigError, match="'own': the inverse is not known; pass inverse="):
        Amplitude("own", torch.exp2, 0.0).r_of(torch.ones(1))


def test_own_function():
    def doubled(r):
        return 2 * r

    xi = amplitude(doubled, neutral=0.5)
    assert xi.name == "doubled"
    assert xi(torch.tensor([0.5])).item() == 1.0
    assert amplitude(xi) is xi


def test_errors():
    with pytest.raises(ConfigError, match=r"no amplitude is called 'exq'; did you mean 'exp'"):
        amplitude("exq")
    with pytest.raises(ConfigError, match=r"leave neutral=0\.0 out"):
        amplitude("exp", neutral=0.0)
    with pytest.raises(ConfigError, match=r"neutral r = 0.5 it gives \[0.25.* expected exactly 1.0"):
        Amplitude("square", torch.square, 0.5)
    with pytest.raises(ConfigError, match=r"expected exactly 1\.0 for each element"):
        Amplitude("sum", lambda r: r.sum(), 1.0)
    with pytest.raises(ConfigError, match="give it a name of its own"):
        amplitude(lambda r: r, neutral=1.0)
    with pytest.raises(ConfigError, match="'exp': a speaker's file could not tell it from others"):
        amplitude(torch.exp, neutral=0.0)
    with pytest.raises(ConfigError, match="pass neutral="):
        amplitude(torch.square)
