"""The network against its equations in NumPy; the loss against its definition."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from lhuc_asr.nnet.dnn import Dnn, DnnConfig
from lhuc_asr.nnet.losses import cross_entropy


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_forward_is_the_equations(activation):
    generator = torch.Generator().manual_seed(0)
    model = Dnn(DnnConfig(hidden_layers=2, hidden_units=7, activation=activation, context=1, dropout=0.3), 3, 5).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    model.log_prior.copy_(torch.log_softmax(torch.randn(5, generator=generator), 0))
    spliced = torch.randn(6, 9, generator=generator)
    weights = {name: value.double().numpy() for name, value in model.state_dict().items()}
    h = spliced.double().numpy()
    for layer in range(2):
        z = h @ weights[f"hidden.{layer}.linear.weight"].T + weights[f"hidden.{layer}.linear.bias"]
        h = 1 / (1 + np.exp(-z)) if activation == "sigmoid" else np.maximum(z, 0)
    logits = h @ weights["output.weight"].T + weights["output.bias"]
    posteriors = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(model(spliced).detach().numpy(), logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        model.log_likelihoods(spliced).detach().numpy(),
        np.log(posteriors) - weights["log_prior"],
        rtol=1e-4,
        atol=1e-4,
    )


def test_a_new_network_finds_all_pdfs_equally_likely():
    model = Dnn(DnnConfig(hidden_layers=2, hidden_units=8), 2, 4)
    model.initialise(torch.Generator().manual_seed(0))
    assert torch.equal(model(torch.randn(3, 22)), torch.zeros(3, 4))


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_initialisation_is_the_generators_and_keeps_signals_alive(activation):
    config = DnnConfig(hidden_layers=6, hidden_units=200, activation=activation, context=0)
    one, two = Dnn(config, 200, 3), Dnn(config, 200, 3)
    for model in (one, two):
        model.initialise(torch.Generator().manual_seed(7))
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)
    hidden = torch.randn(500, 200, generator=torch.Generator().manual_seed(1))
    for layer in one.hidden:
        hidden = layer(hidden)
    # Units differ from frame to frame after six layers: neither dead nor saturated.
    assert 0.02 < float(hidden.std(0).mean().detach()) < 3.0


def test_the_prior_is_a_buffer_not_a_parameter():
    model = Dnn(DnnConfig(hidden_layers=1, hidden_units=2), 2, 4)
    assert "log_prior" in model.state_dict()
    assert "log_prior" not in dict(model.named_parameters())


@pytest.mark.parametrize("wrong", [{"hidden_layers": 0}, {"dropout": 1.0}, {"activation": "tanh"}, {"unit": 3}])
def test_impossible_shapes_are_refused(wrong):
    with pytest.raises(ValidationError):
        DnnConfig(**wrong)


def test_cross_entropy_is_the_sum():
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    log_posteriors = logits - torch.logsumexp(logits, 1, keepdim=True)
    pdfs = torch.tensor([0, 2, 1, 2])
    by_hand = [-float(log_posteriors[t, k]) for t, k in enumerate(pdfs.tolist())]
    assert float(cross_entropy(logits, pdfs)) == pytest.approx(sum(by_hand))
