"""Gradient descent on amplitudes: against the equations by hand in float64, and what must not change its result."""

import numpy as np
import pytest
import torch
from random_speakers import PDFS, UNITS, WIDTH, logits_of, r_of, random_dnn, random_frames

from lhuc_asr.adapt.descent import Descent
from lhuc_asr.adapt.lhuc import Lhuc, LhucConfig
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.adapt.targets import FrameTargets
from lhuc_asr.base.config import parse_config
from lhuc_asr.base.errors import ConfigError
from lhuc_asr.features.context import splice
from lhuc_asr.nnet.dnn import Dnn

XI = {
    "exp": (torch.exp, 0.0),
    "2sigmoid": (lambda r: 2 * torch.sigmoid(r), 0.0),
    "identity": (lambda r: r, 1.0),
    "relu": (torch.relu, 1.0),
}


@pytest.fixture
def model() -> Dnn:
    return random_dnn()


def _descend(
    model: Dnn,
    frames: SpeakerData,
    xi: str,
    steps: list[float],
    rate: float,
    rho: float = 0.0,
    precision: float = 0.0,
    layers: tuple[int, ...] = (0, 1),
) -> list[torch.Tensor]:
    """Plain gradient descent on a speaker's r, in float64: step n is ``steps[n]`` times the gradient over all frames.

    Targets hold a share ``rho`` of the unadapted outputs; ``precision`` is the prior's, one over its variance.
    """
    function, neutral = XI[xi]
    r = [torch.full((UNITS,), neutral, dtype=torch.float64, requires_grad=True) for _ in model.hidden]
    spliced = torch.cat([splice(part, 1) for part in torch.from_numpy(frames.features).split(frames.lengths)]).double()
    weights = torch.from_numpy(frames.targets.weight).double()
    wanted = (1 - rho) * torch.eye(PDFS, dtype=torch.float64)[torch.from_numpy(frames.targets.pdf[:, 0]).long()]
    wanted += rho * torch.softmax(logits_of(model, spliced, [function(v.detach()) for v in r]), 1)
    for share in steps:
        log_posteriors = torch.log_softmax(logits_of(model, spliced, [function(v) for v in r]), 1)
        loss = -(weights * (wanted * log_posteriors).sum(1)).sum()
        loss = loss + precision / 2 * sum((v - neutral).square().sum() for v in r)
        gradients = torch.autograd.grad(loss, r)
        with torch.no_grad():
            for layer in layers:
                r[layer] -= rate * share * gradients[layer]
    return [r[layer].detach() for layer in layers]


def test_the_preset_is_the_papers_setting_and_can_be_changed():
    """Sec. V: SGD, rate 0.8 whatever xi, one sweep, no regularisation, all layers, exp."""
    paper = LhucConfig(preset="paper")
    assert paper.optimizer == "sgd"
    assert (paper.learning_rate, paper.sweeps, paper.kl_weight, paper.prior_deviation) == (0.8, 1, 0.0, None)
    assert (paper.amplitude, paper.layers) == ("exp", None)
    assert LhucConfig(preset="paper", sweeps=3, kl_weight=0.2).model_dump() == {
        **paper.model_dump(),
        "sweeps": 3,
        "kl_weight": 0.2,
    }
    assert LhucConfig.model_validate(LhucConfig().model_dump()) == LhucConfig()
    with pytest.raises(ConfigError, match=r"kl_weight: .*less than 1 \(found 1.0\)"):
        parse_config(LhucConfig, {"preset": "paper", "kl_weight": 1.0}, "here")


def test_the_optimizer_changes_no_other_option():
    assert LhucConfig(optimizer="sgd").model_dump() == {**LhucConfig().model_dump(), "optimizer": "sgd"}


@pytest.mark.parametrize("xi", list(XI))
def test_a_mini_batch_that_holds_everything_is_gradient_descent(model, xi):
    """A batch of nominal size 64 with fewer useful frames: the gradient is their weighted sum divided by 64."""
    frames = random_frames(1)
    adapted = Lhuc(LhucConfig(preset="paper", amplitude=xi, batch_size=64, sweeps=3)).estimate(
        model, {"ann": frames}, seed=0
    )
    expected = _descend(model, frames, xi, [1 / 64] * 3, rate=0.8)
    for r, by_hand in zip(r_of(adapted, "ann"), expected, strict=True):
        assert torch.allclose(r.double(), by_hand, atol=1e-5)
        assert float((r - XI[xi][1]).abs().max()) > 1e-3


@pytest.mark.parametrize("xi", ["exp", "relu"])
@pytest.mark.parametrize("batch_size", [64, 10])
def test_targets_drawn_to_the_unadapted_outputs_and_a_prior_by_hand(model, xi, batch_size):
    """Equal frames in batches of 10, 10 and 5, each with its share of the prior; or all in one batch."""
    frames = random_frames(2, (25,), weight=0.5, repeated=True)
    config = LhucConfig(
        preset="paper", amplitude=xi, batch_size=batch_size, sweeps=4, kl_weight=0.4, prior_deviation=0.2
    )
    adapted = Lhuc(config).estimate(model, {"ann": frames}, seed=0)
    shares = [min(batch_size, 25 - first) / 25 for first in range(0, 25, batch_size)]
    steps = [share / batch_size for share in shares] * 4
    expected = _descend(model, frames, xi, steps, rate=0.8, rho=0.4, precision=1 / 0.2**2)
    without = _descend(model, frames, xi, steps, rate=0.8)
    for r, by_hand, plain in zip(r_of(adapted, "ann"), expected, without, strict=True):
        assert torch.allclose(r.double(), by_hand, atol=1e-5)
        assert float((by_hand - plain).abs().max()) > 1e-3


def test_with_a_prior_little_data_stays_nearer_to_neutral(model):
    """The same frames once and 40 times: the likelihood term grows, the prior does not."""
    once = random_frames(3, (20,), weight=1.0)
    often = SpeakerData(
        np.tile(once.features, (40, 1)),
        (20,) * 40,
        FrameTargets.certain(np.tile(once.targets.pdf[:, 0], 40), np.ones(800, np.float32)),
    )

    def size(frames: SpeakerData, deviation: float | None) -> float:
        count = len(frames.features)  # full batches: the steps differ in the prior's share alone
        config = LhucConfig(preset="paper", batch_size=count, sweeps=300, learning_rate=0.3, prior_deviation=deviation)
        return float(torch.cat(r_of(Lhuc(config).estimate(model, {"ann": frames}, seed=0), "ann")).norm())

    assert 0 < size(once, 0.3) < 0.5 * size(often, 0.3) < 0.5 * size(once, None)


@pytest.mark.parametrize("bytes_kept", [0, 4_000, 20_000, 1 << 29])
def test_what_is_kept_between_sweeps_changes_nothing(model, bytes_kept, monkeypatch):
    """Nothing is kept; one speaker at a time, and one who does not fit; groups; all."""
    speakers = {"long": random_frames(9, (200, 60))} | {f"s{n}": random_frames(n, (20 + 9 * n,)) for n in range(5)}
    config = LhucConfig(optimizer="adam", learning_rate=0.02, batch_size=16, sweeps=3, kl_weight=0.3)
    expected = Lhuc(config).estimate(model, speakers, seed=2)
    monkeypatch.setattr("lhuc_asr.adapt.descent.KEPT_BYTES", bytes_kept)
    adapted = Lhuc(config).estimate(model, speakers, seed=2)
    for name in speakers:
        for one, other in zip(r_of(adapted, name), r_of(expected, name), strict=True):
            assert torch.allclose(one, other, atol=1e-5)


def test_bfloat16_ends_near_float32(model):
    frames = random_frames(1, (400,), weight=1.0)
    one, other = (
        torch.cat(
            r_of(
                Lhuc(LhucConfig(preset="paper", sweeps=3, batch_size=64, bfloat16=narrow)).estimate(
                    model, {"ann": frames}, 0
                ),
                "ann",
            )
        )
        for narrow in (False, True)
    )
    assert not torch.equal(one, other)
    assert float((one - other).norm() / one.norm()) < 0.05


def test_adapting_again_begins_from_the_present_rows(model):
    """Two sweeps of full-batch SGD are one sweep, and another from where it ended."""
    frames, method = random_frames(1), Lhuc(LhucConfig(preset="paper", batch_size=64))
    twice = Lhuc(LhucConfig(preset="paper", batch_size=64, sweeps=2)).estimate(model, {"ann": frames}, seed=0)
    adapted = method.estimate(model, {"ann": frames}, seed=0)
    Descent(method.config).adapt(adapted.bank, model, {"ann": frames}, seed=0)
    for one, other in zip(r_of(adapted, "ann"), r_of(twice, "ann"), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_a_batch_that_is_not_full_counts_its_frames_as_the_others_do(model):
    """Ten equal frames in batches of four: gradients of 4, 4 and 2 frames, each divided by 4."""
    frames = random_frames(2, (10,), weight=0.5, repeated=True)
    adapted = Lhuc(LhucConfig(preset="paper", batch_size=4, sweeps=2)).estimate(model, {"ann": frames}, seed=0)
    expected = _descend(model, frames, "exp", [4 / 10 / 4, 4 / 10 / 4, 2 / 10 / 4] * 2, rate=0.8)
    for r, by_hand in zip(r_of(adapted, "ann"), expected, strict=True):
        assert torch.allclose(r.double(), by_hand, atol=1e-5)


@pytest.mark.parametrize("layers", [(1,), (0,)])
def test_amplitudes_of_some_layers_descend_alone(model, layers):
    frames = random_frames(1)
    adapted = Lhuc(LhucConfig(preset="paper", layers=layers, batch_size=64, sweeps=3)).estimate(
        model, {"ann": frames}, seed=0
    )
    assert [site.name for site in adapted.bank.sites] == [f"hidden.{layer}.activation" for layer in layers]
    expected = _descend(model, frames, "exp", [1 / 64] * 3, rate=0.8, layers=layers)
    assert torch.allclose(r_of(adapted, "ann")[0].double(), expected[0], atol=1e-5)


def test_speakers_with_one_frame_or_none(model):
    empty = SpeakerData(np.zeros((0, WIDTH), np.float32), (), FrameTargets.certain(np.zeros(0, np.int32), np.zeros(0)))
    speakers = {"none": empty, "one": random_frames(0, (1,), weight=1.0), "ann": random_frames(1)}
    adapted = Lhuc(LhucConfig(preset="paper", sweeps=2)).estimate(model, speakers, seed=0)
    assert not any(r.any() for r in r_of(adapted, "none"))
    expected = _descend(model, speakers["one"], "exp", [1 / 256] * 2, rate=0.8)
    for r, by_hand in zip(r_of(adapted, "one"), expected, strict=True):
        assert torch.allclose(r.double(), by_hand, atol=1e-6)
        assert r.any()
