"""Combined amplitudes of speaker and environment: by hand, at both ends, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from scaled_speakers import UNITS, WIDTH, small_dnn

from lhuc_asr.adapt.amplitudes import Amplitudes
from lhuc_asr.adapt.environment import combine
from lhuc_asr.base.errors import ConfigError, ModelMismatchError, SpeakerError
from lhuc_asr.lhuc.attach import attach
from lhuc_asr.lhuc.bank import SpeakerBank

SITES = "hidden.*.activation"
ROWS = {"a+rain": ("a", "rain"), "a+car": ("a", "car"), "b+car": ("b", "car")}


def bank_of(model, names, seed: int, xi: str = "exp", sites: str = SITES) -> SpeakerBank:
    bank = attach(model, sites, list(names), amplitude=xi)
    bank.detach()
    generator = torch.Generator().manual_seed(seed)
    bank.fill({site.name: 2 * torch.rand(len(names), site.width, generator=generator) - 0.5 for site in bank.sites})
    return bank


def combined(speakers: SpeakerBank, environments: SpeakerBank, rows, alpha: float | None) -> SpeakerBank:
    return combine(Amplitudes(speakers), Amplitudes(environments), rows, alpha).bank


@pytest.fixture
def model():
    return small_dnn()


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 0.7, 1.0, None])
@pytest.mark.parametrize("functions", [("exp", "exp"), ("2sigmoid", "exp"), ("relu", "identity")])
def test_amplitudes_are_those_of_the_equation(model, alpha, functions):
    by_hand = {
        "exp": math.exp,
        "2sigmoid": lambda r: 2 / (1 + math.exp(-r)),
        "relu": lambda r: max(0.0, r),
        "identity": float,
    }
    speakers, environments = (
        bank_of(model, ("a", "b"), 1, functions[0]),
        bank_of(model, ("rain", "car"), 2, functions[1]),
    )
    bank = combined(speakers, environments, ROWS, alpha)
    assert bank.speakers == tuple(ROWS)
    for name, (speaker, environment) in ROWS.items():
        for site in bank.sites:
            r_s, r_e = speakers.state(speaker).r[site.name], environments.state(environment).r[site.name]
            xi = bank.xi(site.name, bank.rows_of([name]))[0]
            for value, of_speaker, of_environment in zip(xi.tolist(), r_s.tolist(), r_e.tolist(), strict=True):
                s, e = by_hand[functions[0]](of_speaker), by_hand[functions[1]](of_environment)
                expected = s * e if alpha is None else alpha * s + (1 - alpha) * e
                assert value == pytest.approx(expected, rel=1e-6)


def test_amplitudes_are_interpolated_and_not_r(model):
    """The mean of exp(1) and exp(-1) is cosh(1) = 1.543; the mean of r would be 0, with amplitude 1."""
    speakers, environments = bank_of(model, ("a",), 1), bank_of(model, ("rain",), 2)
    for bank, r in ((speakers, 1.0), (environments, -1.0)):
        bank.fill({site.name: torch.full((UNITS,), r) for site in bank.sites})
    halfway = combined(speakers, environments, {"x": ("a", "rain")}, 0.5)
    assert torch.allclose(halfway.state("x").r["hidden.0.activation"], torch.full((UNITS,), 1.5430806))
    both = combined(speakers, environments, {"x": ("a", "rain")}, None)
    assert torch.allclose(both.state("x").r["hidden.1.activation"], torch.ones(UNITS))


def outputs(bank: SpeakerBank, name: str) -> torch.Tensor:
    features = torch.randn(40, 3 * WIDTH, generator=torch.Generator().manual_seed(9))
    bank.attach()
    try:
        with torch.no_grad(), bank.speaker(name):
            return bank.model.log_likelihoods(features)
    finally:
        bank.detach()


@pytest.mark.parametrize("xi", ["exp", "2sigmoid", "relu"])
def test_at_both_ends_the_scores_are_those_of_one_of_them_alone(model, xi):
    """Up to rounding: the last bit of xi may depend on how many rows are computed at once."""
    speakers, environments = bank_of(model, ("a", "b"), 1, xi), bank_of(model, ("rain", "car"), 2, xi)
    ends = {alpha: combined(speakers, environments, ROWS, alpha) for alpha in (0.0, 0.5, 1.0)}
    for name, (speaker, environment) in ROWS.items():
        alone = {1.0: outputs(speakers, speaker), 0.0: outputs(environments, environment)}
        for alpha, expected in alone.items():
            torch.testing.assert_close(outputs(ends[alpha], name), expected, rtol=0, atol=2e-5)
            assert (outputs(ends[0.5], name) - expected).abs().max() > 0.01


def test_combined_neutral_amplitudes_leave_the_network_unchanged(model, tmp_path):
    speakers, environments = (attach_neutral(model, names) for names in (("a", "b"), ("rain", "car")))
    plain = outputs(speakers, "")
    for alpha in (0.1, 0.7, None):
        both = combined(speakers, environments, ROWS, alpha)
        assert torch.equal(outputs(both, "a+rain"), plain)
        assert torch.equal(outputs(both, ""), plain)
    both.save(tmp_path)
    again = SpeakerBank.load(tmp_path, model)
    again.detach()
    assert torch.equal(outputs(again, "b+car"), plain)


def attach_neutral(model, names) -> SpeakerBank:
    bank = attach(model, SITES, list(names))
    bank.detach()
    return bank


def test_what_does_not_fit_together_is_refused(model):
    speakers, environments = bank_of(model, ("a", "b"), 1), bank_of(model, ("rain", "car"), 2)
    with pytest.raises(ModelMismatchError, match="belong to different models"):
        combined(speakers, bank_of(small_dnn(), ("rain", "car"), 2), ROWS, 0.5)
    with pytest.raises(
        ModelMismatchError, match=r"at hidden\.0\.activation, hidden\.1\.activation, of .* at hidden\.1"
    ):
        combined(speakers, bank_of(model, ("rain", "car"), 2, sites="hidden.1.activation"), ROWS, 0.5)
    with pytest.raises(SpeakerError, match="'snow' is not in the bank"):
        combined(speakers, environments, {"x": ("a", "snow")}, 0.5)
    for alpha in (-0.1, 1.1, math.nan):
        with pytest.raises(ConfigError, match="alpha"):
            combined(speakers, environments, ROWS, alpha)
    with torch.no_grad():
        environments.tables[0][2, 3] = math.nan
    with pytest.raises(SpeakerError, match=r"'car': r at site 'hidden\.0\.activation' is not finite"):
        combined(speakers, environments, ROWS, None)
