"""Test-only LHUC: many speakers as each alone, the network untouched, awkward speakers, gains by construction."""

import numpy as np
import pytest
import torch
from random_speakers import PDFS, UNITS, WIDTH, logits_of, r_of, random_dnn, random_frames

from lhuc_asr.adapt.lhuc import Lhuc, LhucConfig
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.adapt.targets import FrameTargets
from lhuc_asr.base.errors import SearchError, SiteError
from lhuc_asr.features.context import splice
from lhuc_asr.lhuc.objective import FrameCrossEntropy
from lhuc_asr.nnet.dnn import Dnn


@pytest.fixture
def model() -> Dnn:
    return random_dnn()


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("at_once", [32, 16_384])
def test_many_speakers_together_are_each_alone(model, optimizer, at_once, monkeypatch):
    """Speakers of all sizes, in one pass through the network or in many."""
    monkeypatch.setattr("lhuc_asr.adapt.descent.CPU_FRAMES_AT_ONCE", at_once)
    rate, kl_weight = (0.8, 0.0) if optimizer == "sgd" else (0.05, 0.7)
    config = LhucConfig(optimizer=optimizer, batch_size=16, sweeps=3, learning_rate=rate, kl_weight=kl_weight)
    speakers = {f"s{n:02d}": random_frames(n, (5 + 7 * n, 3)) for n in range(12)}
    together = Lhuc(config).estimate(model, speakers, seed=5)
    for name, frames in speakers.items():
        alone = Lhuc(config).estimate(model, {name: frames}, seed=5)
        for one, other in zip(r_of(together, name), r_of(alone, name), strict=True):
            assert float((one - other).abs().max()) < 2e-5


def test_the_order_of_speakers_does_not_matter(model):
    speakers = {f"s{n}": random_frames(n) for n in range(4)}
    method = Lhuc(LhucConfig(preset="paper", batch_size=8))
    one = method.estimate(model, speakers, seed=1)
    other = method.estimate(model, dict(reversed(speakers.items())), seed=1)
    for name in speakers:
        for a, b in zip(r_of(one, name), r_of(other, name), strict=True):
            assert torch.allclose(a, b, atol=1e-5)


def test_the_same_seed_gives_the_same_bits_and_another_seed_another_order(model):
    method, speakers = (
        Lhuc(LhucConfig(preset="paper", batch_size=8, sweeps=2)),
        {"ann": random_frames(3), "bob": random_frames(4)},
    )
    with torch.random.fork_rng():
        one = method.estimate(model, speakers, seed=1)
        torch.manual_seed(99)
        again, other = method.estimate(model, speakers, seed=1), method.estimate(model, speakers, seed=2)
    assert all(torch.equal(a, b) for a, b in zip(r_of(one, "bob"), r_of(again, "bob"), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(r_of(one, "bob"), r_of(other, "bob"), strict=True))


@pytest.mark.parametrize("training", [True, False])
def test_the_network_comes_back_bit_for_bit(model, training):
    model.train(training)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    flags = [parameter.requires_grad for parameter in model.parameters()]
    adapted = Lhuc(LhucConfig(preset="paper")).estimate(model, {"ann": random_frames(0)}, seed=0)
    with adapted.applied("ann"):
        pass
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training is training
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_frames_of_weight_zero_are_as_if_left_out(model, weight):
    """Silence of weight 0 changes nothing, silence of weight 1 does."""
    frames = random_frames(6, (40,), weight=1.0)
    masked = frames.targets.weight.copy()
    masked[:15] = weight
    other_pdfs = frames.targets.pdf[:, 0].copy()
    other_pdfs[:15] = (other_pdfs[:15] + 1) % PDFS
    method = Lhuc(LhucConfig(preset="paper", batch_size=8))
    one, other = (
        method.estimate(model, {"ann": SpeakerData(frames.features, (40,), FrameTargets.certain(pdfs, masked))}, seed=0)
        for pdfs in (frames.targets.pdf[:, 0], other_pdfs)
    )
    same = all(torch.equal(a, b) for a, b in zip(r_of(one, "ann"), r_of(other, "ann"), strict=True))
    assert same == (weight == 0.0)


def test_a_speaker_without_a_useful_frame_stays_neutral(model, caplog):
    speakers = {"mute": random_frames(0, weight=0.0), "ann": random_frames(1)}
    adapted = Lhuc(LhucConfig(preset="paper")).estimate(model, speakers, seed=0)
    assert not any(r.any() for r in r_of(adapted, "mute"))
    assert "1 of 2 speakers stay unadapted, all their frames have weight 0: mute" in caplog.text
    assert all(r.any() for r in r_of(adapted, "ann"))
    alone = Lhuc(LhucConfig(preset="paper")).estimate(model, {"mute": speakers["mute"]}, seed=0)
    assert not any(r.any() for r in r_of(alone, "mute"))
    assert Lhuc(LhucConfig(preset="paper")).estimate(model, {}, seed=0).bank.speakers == ()


@pytest.mark.parametrize("rate", [30.0, 1000.0])
def test_a_speaker_whose_amplitudes_overflow_stays_unadapted(model, rate, caplog):
    """r was finite and exp(r) beyond all scores, so that the second pass stopped the experiment."""
    method = Lhuc(LhucConfig(optimizer="adam", learning_rate=rate, batch_size=100_000, sweeps=1))
    adapted = method.estimate(model, {"ann": random_frames(1)}, seed=0)
    assert "1 of 1 speakers stay unadapted, they diverged" in caplog.text
    assert not any(r.any() for r in r_of(adapted, "ann"))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_speaker_who_diverges_stays_unadapted_and_harms_nobody(model, bad, optimizer, caplog):
    broken = random_frames(0, weight=1.0)
    broken.features[7] = bad
    speakers = {"ann": random_frames(1), "broken": broken, "bob": random_frames(2)}
    kl_weight = 0.0 if optimizer == "sgd" else 0.7
    method = Lhuc(LhucConfig(optimizer=optimizer, learning_rate=0.05, batch_size=16, sweeps=2, kl_weight=kl_weight))
    adapted = method.estimate(model, speakers, seed=0)
    assert "1 of 3 speakers stay unadapted, they diverged" in caplog.text
    assert caplog.text.rstrip().endswith(": broken")
    assert not any(r.any() for r in r_of(adapted, "broken"))
    for name in ("ann", "bob"):
        alone = method.estimate(model, {name: speakers[name]}, seed=0)
        for one, other in zip(r_of(adapted, name), r_of(alone, name), strict=True):
            assert torch.allclose(one, other, atol=1e-5)
            assert one.any()


def test_a_learning_rate_that_is_far_too_large_leaves_a_warning(model, caplog):
    adapted = Lhuc(LhucConfig(preset="paper", learning_rate=1000.0, amplitude="exp", sweeps=3)).estimate(
        model, {"ann": random_frames(0)}, seed=0
    )
    assert "1 of 1 speakers stay unadapted, they diverged" in caplog.text
    assert not any(r.any() for r in r_of(adapted, "ann"))


@pytest.mark.parametrize("layers", [(2,), (0, 5)])
def test_layers_that_the_network_does_not_have_are_refused(model, layers):
    with pytest.raises(SiteError, match="the network has hidden layers 0 to 1"):
        Lhuc(LhucConfig(preset="paper", layers=layers)).estimate(model, {"ann": random_frames(0)}, seed=0)


def test_after_an_error_the_network_is_bare_and_can_be_adapted_again(model, monkeypatch):
    def failing(*arguments):
        raise SearchError("in the middle of it")

    with monkeypatch.context() as patch:
        patch.setattr(FrameCrossEntropy, "__call__", failing)
        with pytest.raises(SearchError, match="in the middle of it"):
            Lhuc(LhucConfig(preset="paper")).estimate(model, {"ann": random_frames(0)}, seed=0)
    assert not any(module._forward_hooks for module in model.modules())
    Lhuc(LhucConfig(preset="paper")).estimate(model, {"ann": random_frames(0)}, seed=0)


def _accuracy(model: Dnn, features: torch.Tensor, truth: torch.Tensor) -> float:
    with torch.no_grad():
        return float((model(splice(features, 1)).argmax(1) == truth).float().mean())


@pytest.mark.parametrize("xi", ["exp", "2sigmoid"])
def test_speakers_whose_units_are_scaled_are_recovered_and_controls_do_not_suffer(model, xi):
    """A speaker's pdfs are drawn from the network with the speaker's amplitudes, a control's from the network itself.

    Drawn, not the most probable: only then are the true amplitudes also the most likely ones.
    """
    generator = torch.Generator().manual_seed(0)
    speakers, held, ceiling = {}, {}, {}
    for name in ("tall", "small", "control-1", "control-2"):
        spread = 0.0 if name.startswith("control") else 0.4
        features = torch.randn(1600, WIDTH, generator=generator)
        amplitudes = [
            torch.exp(spread * torch.randn(UNITS, generator=generator, dtype=torch.float64)) for _ in model.hidden
        ]
        logits = logits_of(model, splice(features, 1).double(), amplitudes)
        truth = torch.multinomial(torch.softmax(logits, 1), 1, generator=generator).squeeze(1)
        ceiling[name] = float((logits.argmax(1) == truth)[1200:].float().mean())
        targets = FrameTargets.certain(truth[:1200].numpy().astype(np.int32), np.ones(1200, np.float32))
        speakers[name] = SpeakerData(features[:1200].numpy(), (1200,), targets)
        held[name] = features[1200:], truth[1200:]
    before = {name: _accuracy(model, *held[name]) for name in speakers}
    config = LhucConfig(preset="paper", amplitude=xi, batch_size=64, sweeps=10, learning_rate=0.1)
    adapted = Lhuc(config).estimate(model, speakers, seed=0)
    for name in speakers:
        with adapted.applied(name):
            after = _accuracy(model, *held[name])
        if name.startswith("control"):
            assert after > before[name] - 0.04
        else:
            assert ceiling[name] - before[name] > 0.2
            assert after > before[name] + 0.7 * (ceiling[name] - before[name])


@pytest.mark.gpu
def test_adaptation_runs_where_the_network_is(model):
    speakers = {f"s{n}": random_frames(n) for n in range(3)}
    config = LhucConfig(preset="paper", batch_size=16)
    on_cpu = Lhuc(config).estimate(model, speakers, seed=0)
    r = {name: r_of(on_cpu, name) for name in speakers}
    on_gpu = Lhuc(config).estimate(model.to("cuda"), speakers, seed=0)
    for name in speakers:
        for one, other in zip(r[name], r_of(on_gpu, name), strict=True):
            assert torch.allclose(one, other.cpu(), atol=1e-3)
