"""Amplitudes in a model that torch.compile has seen, before or after they were attached."""

import pytest
import torch
from torch._dynamo.utils import counters

from lhuc_asr.lhuc import attach

# torch's own, about the outputs between two compiled parts.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")


def compiled_in_place(model):
    model.compile(backend="aot_eager")
    return model


def wrapped(model):
    return torch.compile(model, backend="aot_eager")


@pytest.mark.parametrize("compiled", [wrapped, compiled_in_place])
def test_attach_and_detach_have_effect_in_a_compiled_model(mlp, scatter, randn, compiled):
    x = randn(6, 5)
    plain = mlp(x).detach()
    bank = attach(mlp, "hidden.*.activation", ["alice", "bob"])
    scatter(bank)
    expected = {}
    for names in (("alice",) * 6, ("alice", "bob", "", "alice", "bob", "bob")):
        with bank.rows(names):
            expected[names] = mlp(x).detach()
    bank.detach()

    model = compiled(mlp)
    for _ in range(2):
        torch.testing.assert_close(model(x), plain, rtol=1e-12, atol=1e-12)
        bank.attach()
        for names, output in expected.items():
            with bank.rows(names):
                torch.testing.assert_close(model(x), output, rtol=1e-12, atol=1e-12)
                assert not torch.allclose(output, plain)
        compiled_parts = []
        for name in ("alice", "bob", "", "alice", "bob", ""):
            with bank.speaker(name):
                model(x)
            compiled_parts.append(counters["stats"]["unique_graphs"])
        assert len(set(compiled_parts[2:])) == 1  # other speakers compile nothing anew
        bank.detach()


def test_compiled_gradients_are_the_speakers(mlp, scatter, randn):
    x, bank = randn(4, 5), attach(mlp, "hidden.*.activation", ["alice", "bob"])
    scatter(bank)
    gradients = []
    for model in (mlp, wrapped(mlp)):
        with bank.rows(["alice", "bob", "alice", "alice"]):
            model(x).square().sum().backward()
        gradients.append([table.grad.to_dense() for table in bank.tables])
        bank.zero_grad()
    for mine, its in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-12, atol=1e-12)
