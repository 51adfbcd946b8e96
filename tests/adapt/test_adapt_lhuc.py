"""Test-only LHUC: the gradient by hand, many speakers as each alone, the network untouched, gains by construction."""

import math

import numpy as np
import pytest
import torch

from lhuc_asr.adapt.lhuc import Lhuc, LhucConfig
from lhuc_asr.adapt.targets import FrameTargets, SpeakerData
from lhuc_asr.base.config import parse_config
from lhuc_asr.base.errors import CheckpointError, ConfigError, ModelMismatchError, SiteError, SpeakerError
from lhuc_asr.features.context import splice
from lhuc_asr.nnet.dnn import Dnn, DnnConfig

WIDTH, PDFS, UNITS = 6, 8, 24


@pytest.fixture
def model() -> Dnn:
    """A network of random weights, sure of what it says, with dropout that adaptation must not see."""
    made = Dnn(DnnConfig(hidden_layers=2, hidden_units=UNITS, context=1, dropout=0.3), WIDTH, PDFS)
    generator = torch.Generator().manual_seed(0)
    made.initialise(generator)
    torch.nn.init.normal_(made.output.weight, std=2.0, generator=generator)
    with torch.no_grad():
        # Units are on half of the time, 0.5 each: without this all frames were of the same few pdfs.
        made.output.bias.copy_(-0.5 * made.output.weight.sum(1))
    return made.eval()


def _frames(
    seed: int, lengths: tuple[int, ...] = (30, 1, 19), weight: float | None = None, repeated: bool = False
) -> SpeakerData:
    """Random frames, targets and weights, unless all are to be the same."""
    generator = np.random.default_rng(seed)
    count = sum(lengths)
    features = generator.standard_normal((count, WIDTH)).astype(np.float32)
    pdfs = generator.integers(PDFS, size=count).astype(np.int32)
    if repeated:
        features[:], pdfs[:] = features[0], pdfs[0]
    weights = generator.choice([0.0, 0.01, 1.0], count) if weight is None else np.full(count, weight)
    return SpeakerData(features, lengths, FrameTargets.certain(pdfs, weights.astype(np.float32)))


def _r(speakers, name: str) -> list[torch.Tensor]:
    bank = speakers.bank
    return [bank.r(site.name, bank.rows_of([name])).detach()[0] for site in bank.sites]


def _logits(model: Dnn, spliced: torch.Tensor, amplitudes: list[torch.Tensor]) -> torch.Tensor:
    """Equation 3 by hand, in the tensors' precision."""
    hidden = spliced
    for layer, a in zip(model.hidden, amplitudes, strict=True):
        weight, bias = layer.linear.weight.detach().double(), layer.linear.bias.detach().double()
        hidden = a * torch.sigmoid(hidden @ weight.T + bias)
    return hidden @ model.output.weight.detach().double().T + model.output.bias.detach().double()


XI = {
    "exp": (torch.exp, 0.0),
    "2sigmoid": (lambda r: 2 * torch.sigmoid(r), 0.0),
    "identity": (lambda r: r, 1.0),
    "relu": (torch.relu, 1.0),
}


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
    """Plain gradient descent on a speaker's r, in float64: step n takes ``steps[n]`` times the whole gradient.

    Targets hold a share ``rho`` of the unadapted outputs; ``precision`` is the prior's, one over its variance.
    """
    function, neutral = XI[xi]
    r = [torch.full((UNITS,), neutral, dtype=torch.float64, requires_grad=True) for _ in model.hidden]
    spliced = torch.cat([splice(part, 1) for part in torch.from_numpy(frames.features).split(frames.lengths)]).double()
    weights = torch.from_numpy(frames.targets.weight).double()
    wanted = (1 - rho) * torch.eye(PDFS, dtype=torch.float64)[torch.from_numpy(frames.targets.pdf[:, 0]).long()]
    wanted += rho * torch.softmax(_logits(model, spliced, [function(v.detach()) for v in r]), 1)
    for share in steps:
        log_posteriors = torch.log_softmax(_logits(model, spliced, [function(v) for v in r]), 1)
        loss = -(weights * (wanted * log_posteriors).sum(1)).sum()
        loss = loss + precision / 2 * sum((v - neutral).square().sum() for v in r)
        gradients = torch.autograd.grad(loss, r)
        with torch.no_grad():
            for layer in layers:
                r[layer] -= rate * share * gradients[layer]
    return [r[layer].detach() for layer in layers]


def test_sgd_alone_is_the_papers_setting_and_can_be_changed():
    """Sec. V: rate 0.8 whatever xi, one sweep, no regularisation, all layers, exp."""
    paper = LhucConfig(optimizer="sgd")
    assert (paper.learning_rate, paper.sweeps, paper.kl_weight, paper.prior_deviation) == (0.8, 1, 0.0, None)
    assert (paper.amplitude, paper.layers) == ("exp", None)
    assert LhucConfig(optimizer="sgd", sweeps=3, kl_weight=0.2).model_dump() == {
        **paper.model_dump(),
        "sweeps": 3,
        "kl_weight": 0.2,
    }
    assert LhucConfig.model_validate(LhucConfig().model_dump()) == LhucConfig()
    with pytest.raises(ConfigError, match=r"kl_weight: .*less than 1 \(found 1.0\)"):
        parse_config(LhucConfig, {"optimizer": "sgd", "kl_weight": 1.0}, "here")


@pytest.mark.parametrize("xi", list(XI))
def test_a_mini_batch_that_holds_everything_is_gradient_descent(model, xi):
    """64 nominal frames, fewer useful ones: the gradient is their weighted sum over 64."""
    frames = _frames(1)
    found = Lhuc(LhucConfig(optimizer="sgd", amplitude=xi, batch_size=64, sweeps=3)).estimate(
        model, {"ann": frames}, seed=0
    )
    expected = _descend(model, frames, xi, [1 / 64] * 3, rate=0.8)
    for r, by_hand in zip(_r(found, "ann"), expected, strict=True):
        assert torch.allclose(r.double(), by_hand, atol=1e-5)
        assert float((r - XI[xi][1]).abs().max()) > 1e-3


@pytest.mark.parametrize("layers", [(1,), (0,)])
def test_amplitudes_of_some_layers_descend_alone(model, layers):
    frames = _frames(1)
    found = Lhuc(LhucConfig(optimizer="sgd", layers=layers, batch_size=64, sweeps=3)).estimate(
        model, {"ann": frames}, seed=0
    )
    assert [site.name for site in found.bank.sites] == [f"hidden.{layer}.activation" for layer in layers]
    expected = _descend(model, frames, "exp", [1 / 64] * 3, rate=0.8, layers=layers)
    assert torch.allclose(_r(found, "ann")[0].double(), expected[0], atol=1e-5)


@pytest.mark.parametrize("xi", ["exp", "relu"])
@pytest.mark.parametrize("batch_size", [64, 10])
def test_targets_drawn_to_the_unadapted_outputs_and_a_prior_by_hand(model, xi, batch_size):
    """Equal frames in batches of 10, 10 and 5 each bear their part of the prior; or all in one batch."""
    frames = _frames(2, (25,), weight=0.5, repeated=True)
    config = LhucConfig(
        optimizer="sgd", amplitude=xi, batch_size=batch_size, sweeps=4, kl_weight=0.4, prior_deviation=0.2
    )
    found = Lhuc(config).estimate(model, {"ann": frames}, seed=0)
    shares = [min(batch_size, 25 - first) / 25 for first in range(0, 25, batch_size)]
    steps = [share / batch_size for share in shares] * 4
    expected = _descend(model, frames, xi, steps, rate=0.8, rho=0.4, precision=1 / 0.2**2)
    without = _descend(model, frames, xi, steps, rate=0.8)
    for r, by_hand, plain in zip(_r(found, "ann"), expected, without, strict=True):
        assert torch.allclose(r.double(), by_hand, atol=1e-5)
        assert float((by_hand - plain).abs().max()) > 1e-3


def test_with_a_prior_little_data_stays_nearer_to_neutral(model):
    """The same frames once and forty times: the likelihood grows, the prior does not."""
    once = _frames(3, (20,), weight=1.0)
    often = SpeakerData(
        np.tile(once.features, (40, 1)),
        (20,) * 40,
        FrameTargets.certain(np.tile(once.targets.pdf[:, 0], 40), np.ones(800, np.float32)),
    )

    def size(frames: SpeakerData, deviation: float | None) -> float:
        count = len(frames.features)  # full batches: the steps differ in the prior's share alone
        config = LhucConfig(optimizer="sgd", batch_size=count, sweeps=300, learning_rate=0.3, prior_deviation=deviation)
        return float(torch.cat(_r(Lhuc(config).estimate(model, {"ann": frames}, seed=0), "ann")).norm())

    assert 0 < size(once, 0.3) < 0.5 * size(often, 0.3) < 0.5 * size(once, None)


@pytest.mark.parametrize("bytes_kept", [0, 4_000, 20_000, 1 << 29])
def test_what_is_kept_between_sweeps_changes_nothing(model, bytes_kept, monkeypatch):
    """Nothing kept; a speaker at a time and one too long to keep; in groups; all."""
    speakers = {"long": _frames(9, (200, 60))} | {f"s{n}": _frames(n, (20 + 9 * n,)) for n in range(5)}
    config = LhucConfig(optimizer="adam", learning_rate=0.02, batch_size=16, sweeps=3, kl_weight=0.3)
    expected = Lhuc(config).estimate(model, speakers, seed=2)
    monkeypatch.setattr("lhuc_asr.adapt.lhuc.KEPT_BYTES", bytes_kept)
    found = Lhuc(config).estimate(model, speakers, seed=2)
    for name in speakers:
        for one, other in zip(_r(found, name), _r(expected, name), strict=True):
            assert torch.allclose(one, other, atol=1e-5)


def test_bfloat16_ends_near_float32(model):
    frames = _frames(1, (400,), weight=1.0)
    one, other = (
        torch.cat(
            _r(
                Lhuc(LhucConfig(optimizer="sgd", sweeps=3, batch_size=64, bfloat16=narrow)).estimate(
                    model, {"ann": frames}, 0
                ),
                "ann",
            )
        )
        for narrow in (False, True)
    )
    assert not torch.equal(one, other)
    assert float((one - other).norm() / one.norm()) < 0.05


def test_adapting_again_goes_on_from_where_the_rows_are(model):
    """Two sweeps by full-batch SGD are one sweep and one more."""
    frames, method = _frames(1), Lhuc(LhucConfig(optimizer="sgd", batch_size=64))
    twice = Lhuc(LhucConfig(optimizer="sgd", batch_size=64, sweeps=2)).estimate(model, {"ann": frames}, seed=0)
    found = method.estimate(model, {"ann": frames}, seed=0)
    method.adapt(found.bank, model, {"ann": frames}, seed=0)
    for one, other in zip(_r(found, "ann"), _r(twice, "ann"), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_a_batch_that_is_not_full_counts_its_frames_as_the_others_do(model):
    """Ten equal frames in batches of four: steps of 4, 4 and 2 frames' gradients, over 4 each."""
    frames = _frames(2, (10,), weight=0.5, repeated=True)
    found = Lhuc(LhucConfig(optimizer="sgd", batch_size=4, sweeps=2)).estimate(model, {"ann": frames}, seed=0)
    expected = _descend(model, frames, "exp", [4 / 10 / 4, 4 / 10 / 4, 2 / 10 / 4] * 2, rate=0.8)
    for r, by_hand in zip(_r(found, "ann"), expected, strict=True):
        assert torch.allclose(r.double(), by_hand, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("at_once", [32, 16_384])
def test_many_speakers_together_are_each_alone(model, optimizer, at_once, monkeypatch):
    """Speakers of all sizes, in one pass through the network or in many."""
    monkeypatch.setattr("lhuc_asr.adapt.lhuc.CPU_FRAMES_AT_ONCE", at_once)
    config = LhucConfig(optimizer=optimizer, batch_size=16, sweeps=3, learning_rate=0.8 if optimizer == "sgd" else 0.05)
    speakers = {f"s{n:02d}": _frames(n, (5 + 7 * n, 3)) for n in range(12)}
    together = Lhuc(config).estimate(model, speakers, seed=5)
    for name, frames in speakers.items():
        alone = Lhuc(config).estimate(model, {name: frames}, seed=5)
        for one, other in zip(_r(together, name), _r(alone, name), strict=True):
            assert float((one - other).abs().max()) < 2e-5


def test_the_order_of_speakers_does_not_matter(model):
    speakers = {f"s{n}": _frames(n) for n in range(4)}
    method = Lhuc(LhucConfig(optimizer="sgd", batch_size=8))
    one = method.estimate(model, speakers, seed=1)
    other = method.estimate(model, dict(reversed(speakers.items())), seed=1)
    for name in speakers:
        for a, b in zip(_r(one, name), _r(other, name), strict=True):
            assert torch.allclose(a, b, atol=1e-5)


def test_the_same_seed_gives_the_same_bits_and_another_seed_another_order(model):
    method, speakers = Lhuc(LhucConfig(optimizer="sgd", batch_size=8, sweeps=2)), {"ann": _frames(3), "bob": _frames(4)}
    with torch.random.fork_rng():
        one = method.estimate(model, speakers, seed=1)
        torch.manual_seed(99)
        again, other = method.estimate(model, speakers, seed=1), method.estimate(model, speakers, seed=2)
    assert all(torch.equal(a, b) for a, b in zip(_r(one, "bob"), _r(again, "bob"), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(_r(one, "bob"), _r(other, "bob"), strict=True))


@pytest.mark.parametrize("training", [True, False])
def test_the_network_comes_back_bit_for_bit(model, training):
    model.train(training)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    flags = [parameter.requires_grad for parameter in model.parameters()]
    found = Lhuc(LhucConfig(optimizer="sgd")).estimate(model, {"ann": _frames(0)}, seed=0)
    with found.applied(model, "ann"):
        pass
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training is training
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_frames_of_weight_zero_are_as_if_left_out(model, weight):
    """Silence of weight 0 teaches nothing; of weight 1 it does."""
    frames = _frames(6, (40,), weight=1.0)
    masked = frames.targets.weight.copy()
    masked[:15] = weight
    other_pdfs = frames.targets.pdf[:, 0].copy()
    other_pdfs[:15] = (other_pdfs[:15] + 1) % PDFS
    method = Lhuc(LhucConfig(optimizer="sgd", batch_size=8))
    one, other = (
        method.estimate(model, {"ann": SpeakerData(frames.features, (40,), FrameTargets.certain(pdfs, masked))}, seed=0)
        for pdfs in (frames.targets.pdf[:, 0], other_pdfs)
    )
    same = all(torch.equal(a, b) for a, b in zip(_r(one, "ann"), _r(other, "ann"), strict=True))
    assert same == (weight == 0.0)


def test_a_speaker_without_a_useful_frame_stays_neutral(model, caplog):
    speakers = {"mute": _frames(0, weight=0.0), "ann": _frames(1)}
    found = Lhuc(LhucConfig(optimizer="sgd")).estimate(model, speakers, seed=0)
    assert not any(r.any() for r in _r(found, "mute"))
    assert "1 of 2 speakers stay unadapted, they have no frame that counts: mute" in caplog.text
    assert all(r.any() for r in _r(found, "ann"))
    alone = Lhuc(LhucConfig(optimizer="sgd")).estimate(model, {"mute": speakers["mute"]}, seed=0)
    assert not any(r.any() for r in _r(alone, "mute"))
    assert Lhuc(LhucConfig(optimizer="sgd")).estimate(model, {}, seed=0).bank.speakers == ()


def test_speakers_with_one_frame_or_none(model):
    empty = SpeakerData(np.zeros((0, WIDTH), np.float32), (), FrameTargets.certain(np.zeros(0, np.int32), np.zeros(0)))
    speakers = {"none": empty, "one": _frames(0, (1,), weight=1.0), "ann": _frames(1)}
    found = Lhuc(LhucConfig(optimizer="sgd", sweeps=2)).estimate(model, speakers, seed=0)
    assert not any(r.any() for r in _r(found, "none"))
    expected = _descend(model, speakers["one"], "exp", [1 / 256] * 2, rate=0.8)
    for r, by_hand in zip(_r(found, "one"), expected, strict=True):
        assert torch.allclose(r.double(), by_hand, atol=1e-6)
        assert r.any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_speaker_who_diverges_stays_unadapted_and_harms_nobody(model, bad, optimizer, caplog):
    broken = _frames(0, weight=1.0)
    broken.features[7] = bad
    speakers = {"ann": _frames(1), "broken": broken, "bob": _frames(2)}
    method = Lhuc(LhucConfig(optimizer=optimizer, learning_rate=0.05, batch_size=16, sweeps=2))
    found = method.estimate(model, speakers, seed=0)
    assert "1 of 3 speakers stay unadapted, they diverged" in caplog.text
    assert caplog.text.rstrip().endswith(": broken")
    assert not any(r.any() for r in _r(found, "broken"))
    for name in ("ann", "bob"):
        alone = method.estimate(model, {name: speakers[name]}, seed=0)
        for one, other in zip(_r(found, name), _r(alone, name), strict=True):
            assert torch.allclose(one, other, atol=1e-5)
            assert one.any()


def test_a_step_that_is_far_too_large_is_told(model, caplog):
    found = Lhuc(LhucConfig(optimizer="sgd", learning_rate=1e30, sweeps=3)).estimate(model, {"ann": _frames(0)}, seed=0)
    assert "1 of 1 speakers stay unadapted, they diverged" in caplog.text
    assert not any(r.any() for r in _r(found, "ann"))


@pytest.mark.parametrize("layers", [(), (2,), (0, -1)])
def test_layers_that_the_network_lacks_are_told(model, layers):
    with pytest.raises(SiteError, match="the network has hidden layers 0 to 1"):
        Lhuc(LhucConfig(optimizer="sgd", layers=layers)).estimate(model, {"ann": _frames(0)}, seed=0)


def test_after_an_error_the_network_is_bare_and_can_be_adapted_again(model):
    with pytest.raises(ConfigError, match="lr = inf"):
        Lhuc(LhucConfig(optimizer="sgd", learning_rate=math.inf)).estimate(model, {"ann": _frames(0)}, seed=0)
    Lhuc(LhucConfig(optimizer="sgd")).estimate(model, {"ann": _frames(0)}, seed=0)


def test_saved_and_loaded_the_speakers_score_the_same_bits(model, tmp_path):
    method, spliced = (
        Lhuc(LhucConfig(optimizer="sgd")),
        torch.randn(9, 3 * WIDTH, generator=torch.Generator().manual_seed(1)),
    )
    found = method.estimate(model, {"ann": _frames(0), "bob": _frames(1)}, seed=0)
    found.save(tmp_path)
    loaded = method.load(model, tmp_path)
    plain = model(spliced)
    for name in ("ann", "bob"):
        scores = []
        for speakers in (found, loaded):
            with speakers.applied(model, name):
                scores.append(model.log_likelihoods(spliced))
        assert torch.equal(*scores)
        assert not torch.equal(scores[0], model.log_likelihoods(spliced))
    assert torch.equal(model(spliced), plain)


def test_applied_is_the_equations(model):
    found = Lhuc(LhucConfig(optimizer="sgd")).estimate(model, {"ann": _frames(0)}, seed=0)
    spliced = torch.randn(9, 3 * WIDTH, generator=torch.Generator().manual_seed(1))
    with found.applied(model, "ann"):
        scores = model(spliced).double()
    expected = _logits(model, spliced.double(), [torch.exp(r.double()) for r in _r(found, "ann")])
    assert torch.allclose(scores, expected, atol=1e-4)


def test_what_does_not_belong_together_is_told(model, tmp_path):
    method = Lhuc(LhucConfig(optimizer="sgd"))
    found = method.estimate(model, {"ann": _frames(0)}, seed=0)
    other = Dnn(model.config, WIDTH, PDFS).eval()
    with pytest.raises(SiteError, match="belong to another model"), found.applied(other, "ann"):
        pass
    with pytest.raises(SpeakerError, match="'bob' is not in the bank"), found.applied(model, "bob"):
        pass
    assert not found.bank.attached
    found.save(tmp_path)
    with pytest.raises(ModelMismatchError):
        method.load(other, tmp_path)
    (tmp_path / "ann.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError):
        method.load(model, tmp_path)


def _accuracy(model: Dnn, features: torch.Tensor, truth: torch.Tensor) -> float:
    with torch.no_grad():
        return float((model(splice(features, 1)).argmax(1) == truth).float().mean())


@pytest.mark.parametrize("xi", ["exp", "2sigmoid"])
def test_speakers_whose_units_are_scaled_are_recovered_and_controls_do_not_suffer(model, xi):
    """A speaker's pdfs are drawn from the network with his amplitudes, a control's from the network as it is.

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
        logits = _logits(model, splice(features, 1).double(), amplitudes)
        truth = torch.multinomial(torch.softmax(logits, 1), 1, generator=generator).squeeze(1)
        ceiling[name] = float((logits.argmax(1) == truth)[1200:].float().mean())
        targets = FrameTargets.certain(truth[:1200].numpy().astype(np.int32), np.ones(1200, np.float32))
        speakers[name] = SpeakerData(features[:1200].numpy(), (1200,), targets)
        held[name] = features[1200:], truth[1200:]
    before = {name: _accuracy(model, *held[name]) for name in speakers}
    config = LhucConfig(optimizer="sgd", amplitude=xi, batch_size=64, sweeps=10, learning_rate=0.1)
    found = Lhuc(config).estimate(model, speakers, seed=0)
    for name in speakers:
        with found.applied(model, name):
            after = _accuracy(model, *held[name])
        if name.startswith("control"):
            assert after > before[name] - 0.04
        else:
            assert ceiling[name] - before[name] > 0.2
            assert after > before[name] + 0.7 * (ceiling[name] - before[name])


@pytest.mark.gpu
def test_adaptation_runs_where_the_network_is(model):
    speakers = {f"s{n}": _frames(n) for n in range(3)}
    config = LhucConfig(optimizer="sgd", batch_size=16)
    on_cpu = Lhuc(config).estimate(model, speakers, seed=0)
    r = {name: _r(on_cpu, name) for name in speakers}
    on_gpu = Lhuc(config).estimate(model.to("cuda"), speakers, seed=0)
    for name in speakers:
        for one, other in zip(r[name], _r(on_gpu, name), strict=True):
            assert torch.allclose(one, other.cpu(), atol=1e-3)
