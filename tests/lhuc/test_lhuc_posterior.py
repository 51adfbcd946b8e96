"""Posteriors over r: the divergence against integration, samples against their moments, descent by hand."""

import math

import pytest
import torch
from torch.distributions import Normal

from lhuc_asr.base.errors import ConfigError, SpeakerError
from lhuc_asr.lhuc import GaussianPrior, Posterior, RowAdam, attach

SITES = "hidden.*.activation"


@pytest.fixture
def bank(mlp):
    return attach(mlp, SITES, ["a", "b", "c"])


@pytest.fixture
def prior(bank, randn):
    return GaussianPrior(
        {site.name: 0.3 * randn(site.width) for site in bank.sites},
        {site.name: 0.1 + randn(site.width).square() for site in bank.sites},
    )


@pytest.fixture
def posterior(bank, prior, randn):
    made = Posterior(bank, prior)
    with torch.no_grad():
        for table, spread in zip(bank.tables, made.log_deviations, strict=True):
            table.add_(0.5 * randn(*table.shape))
            spread.add_(0.5 * randn(*spread.shape))
    return made


def test_prior_is_mean_and_variance_over_speakers_without_row_zero(bank, scatter):
    scatter(bank)
    prior = GaussianPrior.of(bank, variance_floor=1e-6)
    for site, table in zip(bank.sites, bank.tables, strict=True):
        for unit in range(site.width):
            values = [table[row, unit].item() for row in (1, 2, 3)]
            mean = sum(values) / 3
            assert prior.mean[site.name][unit].item() == pytest.approx(mean)
            assert prior.variance[site.name][unit].item() == pytest.approx(sum((v - mean) ** 2 for v in values) / 2)


def test_prior_around_row_zero_has_its_mean_and_the_mean_square_from_it(bank, scatter):
    scatter(bank)
    prior = GaussianPrior.of(bank, variance_floor=1e-6, around_row_zero=True)
    table = bank.tables[1].detach()
    for unit in range(table.shape[1]):
        origin = table[0, unit].item()
        assert prior.mean["hidden.1.activation"][unit].item() == origin
        expected = sum((table[row, unit].item() - origin) ** 2 for row in (1, 2, 3)) / 3
        assert prior.variance["hidden.1.activation"][unit].item() == pytest.approx(expected)


def test_prior_floor_and_errors(bank, mlp):
    assert (GaussianPrior.of(bank, 0.25).variance["hidden.0.activation"] == 0.25).all()
    bank.drop(["b", "c"])
    with pytest.raises(SpeakerError, match="expected at least 2 speakers to estimate it from, found 1"):
        GaussianPrior.of(bank, 0.25)
    for mean, variance in ((0.0, 0.0), (math.nan, 1.0), (0.0, math.inf)):
        with pytest.raises(ConfigError, match="prior at site 'x': expected finite means"):
            GaussianPrior({"x": torch.tensor([mean])}, {"x": torch.tensor([variance])})


def test_a_new_posterior_is_the_prior(bank, prior):
    made = Posterior(bank, prior)
    assert made.divergence(torch.tensor([1, 2, 3])).abs().max() < 1e-12
    assert (bank.tables[0][0] == 0).all()  # row 0 is nobody's posterior


def test_divergence_is_the_integral(bank, prior, posterior):
    rows = torch.tensor([3, 1])
    expected = torch.zeros(2, dtype=torch.float64)
    for site, table, spread in zip(bank.sites, bank.tables, posterior.log_deviations, strict=True):
        mean, variance = prior.mean[site.name], prior.variance[site.name]
        for position, row in enumerate(rows.tolist()):
            for unit in range(site.width):
                q = Normal(table[row, unit].detach(), spread[row, unit].detach().exp())
                p = Normal(mean[unit], variance[unit].sqrt())
                x = torch.linspace(-10, 10, 20_001, dtype=torch.float64) * q.stddev + q.mean
                expected[position] += torch.trapezoid(q.log_prob(x).exp() * (q.log_prob(x) - p.log_prob(x)), x)
    torch.testing.assert_close(posterior.divergence(rows).detach(), expected, rtol=1e-6, atol=1e-9)


def test_distance_is_the_priors_log_density(bank, prior, posterior):
    """Differences of log densities, as of torch's own normal distribution."""
    distances = prior.distance(bank, torch.tensor([1, 2])).detach()
    log_density = torch.zeros(2, dtype=torch.float64)
    for site, table in zip(bank.sites, bank.tables, strict=True):
        density = Normal(prior.mean[site.name], prior.variance[site.name].sqrt())
        log_density += density.log_prob(table.detach()[1:3]).sum(1)
    assert (distances[0] - distances[1]).item() == pytest.approx((log_density[1] - log_density[0]).item())


def test_gradients_of_the_divergence(bank, posterior):
    rows, step = torch.tensor([2]), 1e-6
    posterior.divergence(rows).sum().backward()
    for table in [*bank.tables, *posterior.log_deviations]:
        gradient = table.grad.to_dense()
        assert not gradient[[0, 1, 3]].any()
        for unit in range(table.shape[1]):
            values = []
            for sign in (1, -1):
                with torch.no_grad():
                    table[2, unit] += sign * step
                    values.append(posterior.divergence(rows).item())
                    table[2, unit] -= sign * step
            assert gradient[2, unit].item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5, abs=1e-7)


def test_samples_have_the_posteriors_moments_and_use_has_the_mean(bank, posterior, mlp, generator, randn):
    """r seen through what the network makes of it: log of scaled over unscaled activations."""
    seen = []
    mlp.hidden[0].dropout.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach().clone()))
    x, count = randn(1, 5), 4000
    plain = torch.sigmoid(mlp.hidden[0].linear(x)).detach()
    with torch.no_grad():
        for _ in range(count):
            with posterior.sampled(generator), bank.speaker("b"):
                mlp(x)
        r = (torch.cat(seen) / plain).log()
        mu, sigma = bank.tables[0][2].detach(), posterior.log_deviations[0][2].exp()
        assert ((r.mean(0) - mu).abs() < 5 * sigma / math.sqrt(count)).all()
        assert ((r.std(0) / sigma - 1).abs() < 5 / math.sqrt(2 * count)).all()
        seen.clear()
        with bank.speaker("b"):
            mlp(x)
    torch.testing.assert_close(seen[0], plain * mu.exp())


def test_a_speakers_sample_does_not_depend_on_who_else_is_there(bank, posterior, mlp, randn):
    x = randn(3, 5)
    with posterior.sampled(torch.Generator().manual_seed(3)), bank.rows(["b", "a", "c"]):
        together = mlp(x)
    with posterior.sampled(torch.Generator().manual_seed(3)), bank.speaker("a"):
        alone = mlp(x)
    torch.testing.assert_close(together[1], alone[1])


def test_descent_on_the_divergence_ends_at_the_prior_and_leaves_others(bank, prior, posterior):
    before = [table.detach().clone() for table in [*bank.tables, *posterior.log_deviations]]
    optimizer = RowAdam([*bank.parameters(), *posterior.parameters()], lr=0.02)
    rows = torch.tensor([1])
    for _ in range(600):
        optimizer.zero_grad()
        posterior.divergence(rows).sum().backward()
        optimizer.step()
    assert posterior.divergence(rows).item() < 1e-4
    for old, table in zip(before, [*bank.tables, *posterior.log_deviations], strict=True):
        assert torch.equal(old[[0, 2, 3]], table.detach()[[0, 2, 3]])
