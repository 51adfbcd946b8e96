"""Bayesian LHUC: descent by hand in float64, the gain of a prior with little data, the limits of its weight."""

import pytest
import torch

from lhuc_asr.adapt.bayes import PRIOR_FILE, Bayes, BayesConfig, sample_generator
from lhuc_asr.adapt.lhuc import LearnedLhucConfig, Lhuc
from lhuc_asr.base.tensors import load_tensors
from lhuc_asr.features.context import splice

PLAIN = LearnedLhucConfig(preset="paper", learning_rate=0.3, sweeps=4, batch_size=64)


def r_of(adapted, name: str) -> list[torch.Tensor]:
    return [table.detach()[adapted.bank.row(name)] for table in adapted.bank.tables]


@pytest.fixture
def training(speaker_of):
    """Speakers drawn from a prior: half of the units vary, the others hardly do; the means are not 0."""
    generator = torch.Generator().manual_seed(5)
    mean, deviation = 0.3 * torch.randn(2, 16, generator=generator), torch.tensor([0.6, 0.02]).repeat(2, 8)
    drawn = {f"t{n:02d}": mean + deviation * torch.randn(2, 16, generator=generator) for n in range(12)}
    return {name: speaker_of(100 + n, 150, r) for n, (name, r) in enumerate(drawn.items())}, mean, deviation


@pytest.mark.parametrize("estimate", ["posterior", "map"])
def test_whole_batches_are_gradient_descent_by_hand(small, speaker_of, tmp_path, estimate):
    """All frames in one batch of nominal size 64: loss and divergence, divided by 64, by autograd in float64."""
    training = {f"t{n}": speaker_of(n, 50) for n in range(4)}
    method = Bayes(
        BayesConfig(lhuc=PLAIN, estimate=estimate, prior_weight=0.5, variance_floor=0.01, around="speakers"), tmp_path
    )
    method.prepare(small, training, seed=0)
    frames = speaker_of(50, 40)
    adapted = method.estimate(small, {"ann": frames}, seed=7)

    prior = {name: tensor.double() for name, tensor in load_tensors(tmp_path / PRIOR_FILE)[0].items()}
    means = [prior[f"mean.hidden.{layer}.activation"] for layer in range(2)]
    variances = [prior[f"variance.hidden.{layer}.activation"] for layer in range(2)]
    rows = Lhuc(PLAIN).estimate(small, training, seed=0).bank.tables
    for layer in range(2):
        torch.testing.assert_close(means[layer], rows[layer].detach()[1:].double().mean(0), rtol=1e-4, atol=1e-6)
        expected = rows[layer].detach()[1:].double().var(0).clamp(min=0.01)
        torch.testing.assert_close(variances[layer], expected, rtol=1e-4, atol=1e-6)

    mu = [mean.clone().requires_grad_() for mean in means]
    log_sigma = [(variance.log() / 2).clone().requires_grad_() for variance in variances]
    pdfs = torch.from_numpy(frames.targets.pdf[:, 0]).long()
    sampling = estimate == "posterior"
    for sweep in range(PLAIN.sweeps):
        hidden = splice(torch.from_numpy(frames.features), 1).double()
        loss, generator = torch.zeros((), dtype=torch.float64), sample_generator(7, sweep, 0)
        for layer in range(2):
            m, v, sigma = means[layer], variances[layer], log_sigma[layer].exp()
            r = mu[layer]
            if sampling:
                r = r + sigma * torch.randn(16, generator=generator).double()
                loss = loss + (v.sqrt().log() - log_sigma[layer] + sigma.square() / (2 * v) - 0.5).sum()
            loss = loss + ((mu[layer] - m).square() / (2 * v)).sum()
            linear = small.hidden[layer].linear
            hidden = r.exp() * torch.sigmoid(hidden @ linear.weight.double().T + linear.bias.double())
        loss = 0.5 * loss
        logits = hidden @ small.output.weight.double().T + small.output.bias.double()
        loss = loss + torch.nn.functional.cross_entropy(logits, pdfs, reduction="sum")
        parameters = [*mu, *log_sigma] if sampling else mu
        gradients = torch.autograd.grad(loss / 64, parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= PLAIN.learning_rate * gradient
    for r, by_hand, mean in zip(r_of(adapted, "ann"), mu, means, strict=True):
        torch.testing.assert_close(r.double(), by_hand.detach(), rtol=1e-4, atol=1e-5)
        assert (by_hand - mean).abs().max() > 1e-3


def test_with_little_data_the_prior_helps_and_with_much_it_does_not_hurt(
    small, training, speaker_of, loss_of, tmp_path
):
    """New speakers of the same prior, with 10 and with 300 frames; the loss is that of other frames."""
    known, mean, deviation = training
    options = LearnedLhucConfig(learning_rate=0.03, sweeps=25, kl_weight=0.0, batch_size=64)
    generator = torch.Generator().manual_seed(8)
    drawn = {f"n{n}": mean + deviation * torch.randn(2, 16, generator=generator) for n in range(6)}
    held = {name: speaker_of(900 + n, 500, r) for n, (name, r) in enumerate(drawn.items())}
    losses = {}
    for frames in (10, 300):
        speakers = {name: speaker_of(500 + n, frames, r) for n, (name, r) in enumerate(drawn.items())}
        for kind in ("posterior", "map", "plain"):
            method = Lhuc(options)
            if kind != "plain":
                method = Bayes(BayesConfig(lhuc=options, estimate=kind, around="speakers"), tmp_path / kind)
                if frames == 10:
                    method.prepare(small, known, seed=0)
            adapted = method.estimate(small, speakers, seed=0)
            losses[kind, frames] = sum(loss_of(adapted, name, held[name]) for name in held) / len(held)
    for kind in ("posterior", "map"):
        assert losses[kind, 10] < losses["plain", 10] - 0.3
        assert losses[kind, 300] < losses["plain", 300] + 0.1  # one noisy sample a step converges more slowly
        assert losses[kind, 300] < losses[kind, 10] - 0.1


def test_a_heavy_prior_leaves_its_mean_and_a_weight_of_zero_ignores_it(small, speaker_of, tmp_path):
    options = LearnedLhucConfig(learning_rate=0.02, sweeps=10, kl_weight=0.0, batch_size=64)
    training = {f"t{n}": speaker_of(n, 100) for n in range(3)}
    Bayes(BayesConfig(lhuc=options, around="speakers"), tmp_path).prepare(small, training, seed=0)
    means = load_tensors(tmp_path / PRIOR_FILE)[0]
    moved = []
    for weight in (0.0, 1e6):
        config = BayesConfig(lhuc=options, estimate="map", prior_weight=weight)
        adapted = Bayes(config, tmp_path).estimate(small, {"ann": speaker_of(9, 60)}, seed=0)
        r = r_of(adapted, "ann")
        moved.append(max(float((r[n] - means[f"mean.hidden.{n}.activation"]).abs().max()) for n in range(2)))
    assert moved[0] > 0.1
    assert moved[1] < 0.05


def test_a_prior_around_unadapted_starts_from_the_unadapted_network(small, speaker_of, tmp_path):
    options = LearnedLhucConfig(learning_rate=0.02, sweeps=3, kl_weight=0.0, batch_size=64)
    config = BayesConfig(lhuc=options, estimate="map", around="unadapted", prior_weight=1e6)
    method = Bayes(config, tmp_path)
    method.prepare(small, {f"t{n}": speaker_of(n, 100) for n in range(3)}, seed=0)
    adapted = method.estimate(small, {"ann": speaker_of(9, 60)}, seed=0)
    assert max(float(r.abs().max()) for r in r_of(adapted, "ann")) < 0.05
