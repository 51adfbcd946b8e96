"""The scaled network against hooks on the network itself, in float64: logits, gradients, unchanged weights."""

import pytest
import torch
from small_networks import PDFS, SMALL, UNITS, lively

from lhuc_asr.lhuc.attach import attach
from lhuc_asr.nnet.layered_network import LayeredNetwork

SPEAKERS = 3


@pytest.fixture(params=SMALL)
def model(request) -> LayeredNetwork:
    """Three hidden layers in training mode and float64; adaptation must not use the dropout."""
    shape = SMALL[request.param].model_copy(update={"dropout": 0.5})
    return lively(shape, vector=2).double().train()


@pytest.mark.parametrize("layers", [(0,), (1,), (2,), (0, 2), (0, 1, 2)])
def test_logits_and_gradients_are_those_of_hooks(model, layers):
    generator = torch.Generator().manual_seed(1)
    spliced = torch.randn(5 * SPEAKERS, model.splicing.width, generator=generator, dtype=torch.float64)
    towards = torch.randn(5 * SPEAKERS, PDFS, generator=generator, dtype=torch.float64)
    names = [f"s{n}" for n in range(SPEAKERS)]
    model.eval()
    bank = attach(model, [f"hidden.{layer}.activation" for layer in layers], names)
    with torch.no_grad():
        for table in bank.tables:
            table.normal_(std=0.5, generator=generator)
    with bank.blocks(names):
        hooked = model(spliced)
    (hooked * towards).sum().backward()
    expected = [table.grad.to_dense() for table in bank.tables]
    bank.zero_grad(set_to_none=True)
    bank.detach()

    model.train()
    network = model.scaled(model.sites(layers))
    rows = bank.rows_of(names)
    logits = network.logits(network.psi(spliced), [bank.xi(site.name, rows) for site in bank.sites])
    (logits * towards).sum().backward()
    torch.testing.assert_close(logits, hooked, rtol=0, atol=1e-12)
    for table, gradient in zip(bank.tables, expected, strict=True):
        torch.testing.assert_close(table.grad.to_dense(), gradient, rtol=0, atol=1e-12)
        assert gradient[1:].any(1).all()


def test_the_networks_weights_take_no_gradient_and_psi_none_at_all(model):
    for parameter in model.parameters():
        parameter.grad = None
    network = model.scaled(model.sites())
    psi = network.psi(torch.ones(2, model.splicing.width, dtype=torch.float64))
    assert not psi.requires_grad
    assert psi.shape == (2, network.width)
    xi = [torch.ones(1, UNITS, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    network.logits(psi, xi).sum().backward()
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert all(amplitude.grad.any() for amplitude in xi)


def test_products_in_bfloat16_keep_three_digits_and_sums_stay_in_the_models_type(model):
    model.float()
    spliced = torch.randn(40, model.splicing.width, generator=torch.Generator().manual_seed(2))
    xi = [torch.full((1, UNITS), 1.003) for _ in range(3)]
    exact, rounded = (
        network.logits(network.psi(spliced), xi)
        for network in (model.scaled(model.sites()), model.scaled(model.sites(), torch.bfloat16))
    )
    assert rounded.dtype == torch.float32
    error = float((rounded - exact).abs().mean() / exact.abs().mean())
    # bfloat16 rounds to one part in 512 at most; three products one after the other.
    assert 1e-5 < error < 3 / 256
