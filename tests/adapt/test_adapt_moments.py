"""Moment matching: the equation by hand, speakers with scaled units, and little data."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lhuc_asr.adapt.descent import Descent
from lhuc_asr.adapt.lhuc import InnerLhucConfig
from lhuc_asr.adapt.methods import load_speakers
from lhuc_asr.adapt.moments import LARGEST_AMPLITUDE, MOMENTS_FILE, PDF_PRIOR_FRAMES, Moments, MomentsConfig
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.adapt.targets import FrameTargets
from lhuc_asr.base.errors import AlignmentError, CheckpointError, ConfigError, ModelMismatchError, SiteError
from lhuc_asr.base.tensors import load_tensors, save_tensors
from lhuc_asr.features.context import splice
from lhuc_asr.nnet.dnn import Dnn, DnnConfig

WIDTH, PDFS, UNITS, CONTEXT = 6, 5, 16, 1


def _model(activation: str = "relu") -> Dnn:
    """Random weights; the statistics must not use the dropout."""
    config = DnnConfig(hidden_layers=3, hidden_units=UNITS, context=CONTEXT, dropout=0.3, activation=activation)
    made = Dnn(config, WIDTH, PDFS)
    made.initialise(torch.Generator().manual_seed(0))
    torch.nn.init.normal_(made.output.weight, generator=torch.Generator().manual_seed(1))
    return made.eval()


@pytest.fixture
def model() -> Dnn:
    return _model()


def _speaker(seed: int, lengths: tuple[int, ...] = (31, 1, 18), candidates: int = 1) -> SpeakerData:
    """Features that depend on the pdf; candidates with random posteriors, weights of 0, 0.01 and 1."""
    generator = np.random.default_rng(seed)
    count = sum(lengths)
    pdf = np.stack([generator.permutation(PDFS)[:candidates] for _ in range(count)]).astype(np.int32)
    centres = 2.0 * np.random.default_rng(99).standard_normal((PDFS, WIDTH))
    features = (centres[pdf[:, 0]] + generator.standard_normal((count, WIDTH))).astype(np.float32)
    posterior = generator.dirichlet(np.ones(candidates), count).astype(np.float32)
    weight = generator.choice([0.0, 0.01, 1.0], count).astype(np.float32)
    return SpeakerData(features, lengths, FrameTargets(pdf, posterior, weight))


def _activations(model: Dnn, frames: SpeakerData, xi: list[np.ndarray]) -> list[np.ndarray]:
    """Activations h of every layer before its own amplitude, shapes (T, H), float64."""
    parts = torch.from_numpy(frames.features).split(frames.lengths)
    hidden = torch.cat([splice(part, CONTEXT) for part in parts]).numpy().astype(np.float64)
    activations = []
    for layer, amplitudes in zip(model.hidden, xi, strict=True):
        weight, bias = (p.detach().numpy().astype(np.float64) for p in (layer.linear.weight, layer.linear.bias))
        before = hidden @ weight.T + bias
        hidden = np.maximum(before, 0) if model.config.activation == "relu" else 1 / (1 + np.exp(-before))
        activations.append(hidden)
        hidden = hidden * amplitudes
    return activations


def _by_hand(
    model: Dnn, training: list[SpeakerData], frames: SpeakerData, tau: float, layers: tuple[int, ...] = (0, 1, 2)
) -> list[np.ndarray]:
    """The equation, a frame and a candidate at a time."""
    ones = [np.ones(UNITS)] * len(model.hidden)
    sums, counts = np.zeros((len(ones), PDFS, UNITS)), np.zeros(PDFS)
    for speaker in training:
        hidden = _activations(model, speaker, ones)
        for t, (pdfs, shares, weight) in enumerate(
            zip(speaker.targets.pdf, speaker.targets.posterior, speaker.targets.weight, strict=True)
        ):
            for pdf, share in zip(pdfs, shares, strict=True):
                counts[pdf] += weight * share
                for layer in range(len(ones)):
                    sums[layer, pdf] += weight * share * hidden[layer][t]
    xi = list(ones)
    for layer in layers:
        mean = sums[layer].sum(0) / counts.sum()
        hidden = _activations(model, frames, xi)[layer]
        expected, observed = tau * mean, tau * mean
        targets = frames.targets
        for t in range(len(hidden)):
            observed = observed + targets.weight[t] * hidden[t]
            for pdf, share in zip(targets.pdf[t], targets.posterior[t], strict=True):
                given = (sums[layer, pdf] + PDF_PRIOR_FRAMES * mean) / (counts[pdf] + PDF_PRIOR_FRAMES)
                expected = expected + targets.weight[t] * share * given
        ratio = np.divide(expected, observed, out=np.ones(UNITS), where=observed > 0)
        xi[layer] = np.clip(ratio, 1 / LARGEST_AMPLITUDE, LARGEST_AMPLITUDE)
    return xi


def _xi(speakers, name: str) -> list[np.ndarray]:
    bank = speakers.bank
    return [bank.xi(site.name, bank.rows_of([name])).detach()[0].numpy() for site in bank.sites]


def _prepared(model: Dnn, folder: Path, training: list[SpeakerData], **options) -> Moments:
    method = Moments(MomentsConfig(**options), folder)
    method.prepare(model, {f"t{n}": frames for n, frames in enumerate(training)}, seed=0)
    return method


TRAINING = [_speaker(n, (40, 60)) for n in range(4)]


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
@pytest.mark.parametrize("candidates", [1, 3])
@pytest.mark.parametrize("at_once", [7, 1_024])
def test_amplitudes_are_the_equation(tmp_path, activation, candidates, at_once, monkeypatch):
    monkeypatch.setattr("lhuc_asr.adapt.batches.FRAMES_AT_ONCE", at_once)
    model = _model(activation)
    training = [_speaker(n, (40, 60), candidates) for n in range(3)]
    frames = _speaker(50, candidates=candidates)
    adapted = _prepared(model, tmp_path, training, prior_frames=20.0).estimate(model, {"ann": frames}, seed=0)
    for xi, expected in zip(_xi(adapted, "ann"), _by_hand(model, training, frames, 20.0), strict=True):
        np.testing.assert_allclose(xi, expected, rtol=1e-4)
        assert np.abs(xi - 1).max() > 0.02


def test_layers_that_are_left_out_stay_unscaled_below_the_others(model, tmp_path):
    frames = _speaker(50)
    method = _prepared(model, tmp_path, TRAINING, prior_frames=20.0, layers=(2, 0))
    adapted = method.estimate(model, {"ann": frames}, seed=0)
    assert [site.name for site in adapted.bank.sites] == ["hidden.0.activation", "hidden.2.activation"]
    expected = _by_hand(model, TRAINING, frames, 20.0, layers=(0, 2))
    for xi, by_hand in zip(_xi(adapted, "ann"), expected[::2], strict=True):
        np.testing.assert_allclose(xi, by_hand, rtol=1e-4)


def test_the_one_preparation_serves_all_options(model, tmp_path):
    _prepared(model, tmp_path, TRAINING)
    config = MomentsConfig(layers=(1,), amplitude="relu")
    assert len(Moments(config, tmp_path).estimate(model, {"ann": _speaker(1)}, seed=0).bank.sites) == 1
    with pytest.raises(SiteError, match=r"layers \[3\]: the network has hidden layers 0 to 2"):
        Moments(MomentsConfig(layers=(3,)), tmp_path).estimate(model, {}, seed=0)


def test_every_amplitude_function_gives_the_same_amplitudes(model, tmp_path):
    """Also at the ends of the range: with hardly any prior, ratios become extreme."""
    amplitudes = {}
    for name in ("exp", "2sigmoid", "identity", "relu"):
        method = _prepared(model, tmp_path, TRAINING, amplitude=name, prior_frames=1e-3)
        amplitudes[name] = np.concatenate(_xi(method.estimate(model, {"ann": _speaker(2, (9,))}, seed=0), "ann")[:1])
    assert amplitudes["exp"].max() > 2.0
    for name in ("identity", "relu"):
        np.testing.assert_allclose(amplitudes[name], amplitudes["exp"], rtol=1e-5)
    np.testing.assert_allclose(
        amplitudes["2sigmoid"], np.minimum(amplitudes["exp"], 2 - 1 / LARGEST_AMPLITUDE), rtol=1e-5
    )


def test_many_speakers_together_are_each_alone_bit_for_bit(model, tmp_path):
    method = _prepared(model, tmp_path, TRAINING)
    speakers = {f"s{n}": _speaker(n, (5 + 9 * n, 3)) for n in range(6)}
    together = method.estimate(model, speakers, seed=0)
    for name, frames in reversed(speakers.items()):
        alone = method.estimate(model, {name: frames}, seed=0)
        assert all(np.array_equal(a, b) for a, b in zip(_xi(together, name), _xi(alone, name), strict=True))


def test_less_data_stays_nearer_to_neutral_and_none_is_neutral(model, tmp_path):
    method = _prepared(model, tmp_path, TRAINING)
    long = _speaker(3, (2_000,))
    parts = {"none": 0, "short": 50, "long": 2_000}
    speakers = {
        name: SpeakerData(
            long.features[:n] if n else long.features[:1],
            (n or 1,),
            FrameTargets(*(array[: n or 1] for array in (long.targets.pdf, long.targets.posterior)), weight),
        )
        for name, n in parts.items()
        for weight in [np.full(n or 1, float(n > 0), np.float32)]
    }
    adapted = method.estimate(model, speakers | {"empty": SpeakerData.of([(long.features[:0], _nothing())])}, seed=0)
    distance = {name: np.abs(np.log(np.concatenate(_xi(adapted, name)))).mean() for name in adapted.bank.speakers}
    assert distance["none"] == distance["empty"] == 0.0
    assert 0.0 < distance["short"] < 0.5 * distance["long"]


def _nothing() -> FrameTargets:
    return FrameTargets.certain(np.zeros(0, np.int32), np.zeros(0, np.float32))


def test_units_that_never_fire_stay_neutral(model, tmp_path):
    with torch.no_grad():
        model.hidden[1].linear.bias[3] = -1e6
    adapted = _prepared(model, tmp_path, TRAINING).estimate(model, {"ann": _speaker(1)}, seed=0)
    xi = _xi(adapted, "ann")[1]
    assert xi[3] == 1.0
    assert (np.delete(xi, 3) != 1.0).any()


@pytest.mark.parametrize("scaled_layer", [0, 1])
def test_a_speaker_whose_units_are_scaled_is_put_right(model, tmp_path, scaled_layer):
    """Units that are 1/a as active as the training speakers' get a, and the layers above what they got without."""
    training = [_speaker(n, (4_000,)) for n in range(2)]
    method = _prepared(model, tmp_path, training, prior_frames=1.0)
    generator = np.random.default_rng(0)
    wanted = np.exp(generator.uniform(-0.7, 0.7, UNITS)).astype(np.float32)
    quiet = _model()
    with torch.no_grad():  # a ReLU unit's weights and bias scaled by 1/a: its activation is
        linear = quiet.hidden[scaled_layer].linear
        linear.weight.div_(torch.from_numpy(wanted)[:, None])
        linear.bias.div_(torch.from_numpy(wanted))
    prepared = load_tensors(tmp_path / MOMENTS_FILE)[0]
    other = Moments(MomentsConfig(prior_frames=1.0), tmp_path / "other")
    other.prepare(quiet, {"t": training[0]}, seed=0)
    _swap_tensors(tmp_path / "other" / MOMENTS_FILE, prepared)
    frames = _speaker(20, (4_000,))
    xi = _xi(other.estimate(quiet, {"ann": frames}, seed=0), "ann")
    control = _xi(method.estimate(model, {"ann": frames}, seed=0), "ann")
    active = prepared[f"mean.{scaled_layer}"].numpy() > 1e-2
    assert active.sum() > UNITS / 2
    np.testing.assert_allclose(xi[scaled_layer][active], wanted[active], rtol=0.2)  # of 1,300 frames that count
    for layer in range(3):
        ratio = xi[layer] / (wanted if layer == scaled_layer else 1.0)
        np.testing.assert_allclose(ratio, control[layer], rtol=1e-2, atol=1e-3)


def _swap_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_tensors(path, tensors, load_tensors(path)[1])


def test_the_descent_starts_from_the_matched_amplitudes(model, tmp_path):
    frames = {"ann": _speaker(1), "bob": _speaker(2)}
    matched = _prepared(model, tmp_path, TRAINING).estimate(model, frames, seed=4)
    still = InnerLhucConfig(learning_rate=1e-9)
    moved = InnerLhucConfig(learning_rate=0.1, sweeps=2)
    for descent, same in ((still, True), (moved, False)):
        method = Moments(MomentsConfig(descent=descent), tmp_path)
        adapted = method.estimate(model, frames, seed=4)
        for name in frames:
            for a, b in zip(_xi(adapted, name), _xi(matched, name), strict=True):
                assert np.allclose(a, b, atol=1e-6) == same
    Descent(moved).adapt(matched.bank, model, frames, seed=4)
    assert all(np.array_equal(a, b) for a, b in zip(_xi(adapted, "ann"), _xi(matched, "ann"), strict=True))


def test_a_descent_of_other_amplitudes_is_refused():
    for descent in (InnerLhucConfig(amplitude="relu"), InnerLhucConfig(layers=(0,))):
        with pytest.raises(ValueError, match="descent must have the amplitude and the layers that are matched"):
            MomentsConfig(descent=descent)


@pytest.mark.parametrize("training", [True, False])
def test_the_network_comes_back_as_it_was(model, tmp_path, training):
    model.train(training)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    adapted = _prepared(model, tmp_path, TRAINING).estimate(model, {"ann": _speaker(0)}, seed=0)
    with adapted.applied("ann"):
        pass
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.training is training
    assert not any(module._forward_hooks for module in model.modules())


def test_saved_and_loaded_the_speakers_are_the_same(model, tmp_path):
    method = _prepared(model, tmp_path, TRAINING, amplitude="2sigmoid")
    adapted = method.estimate(model, {"ann": _speaker(0)}, seed=0)
    adapted.save(tmp_path / "speakers")
    loaded = load_speakers(model, tmp_path / "speakers")
    assert all(np.array_equal(a, b) for a, b in zip(_xi(adapted, "ann"), _xi(loaded, "ann"), strict=True))


def test_a_speaker_who_is_not_finite_harms_nobody(model, tmp_path, caplog):
    method = _prepared(model, tmp_path, TRAINING, descent=InnerLhucConfig())
    bad = _speaker(5)
    bad.features[7] = np.nan
    bad.targets.weight[7] = 1.0
    adapted = method.estimate(model, {"bad": bad, "ann": _speaker(1)}, seed=0)
    assert "1 of 2 speakers stay unadapted" in caplog.text
    assert all((xi == 1.0).all() for xi in _xi(adapted, "bad"))
    alone = method.estimate(model, {"ann": _speaker(1)}, seed=0)
    for a, b in zip(_xi(adapted, "ann"), _xi(alone, "ann"), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_missing_and_foreign_data_is_refused(model, tmp_path):
    with pytest.raises(ConfigError, match="give it a folder"):
        Moments(MomentsConfig())
    method = Moments(MomentsConfig(), tmp_path)
    with pytest.raises(CheckpointError, match="prepare the method on the training speakers first"):
        method.estimate(model, {"ann": _speaker(0)}, seed=0)
    with pytest.raises(AlignmentError, match="none of 0 training speakers has a frame of weight > 0"):
        method.prepare(model, {}, seed=0)
    method.prepare(model, {"t": TRAINING[0]}, seed=0)
    frames = _speaker(0)
    frames.targets.pdf[3] = PDFS
    with pytest.raises(AlignmentError, match=rf"speaker 'ann': pdf {PDFS} in frame 3, but the network has"):
        method.estimate(model, {"ann": frames}, seed=0)
    with pytest.raises(ModelMismatchError, match="made with model"):
        method.estimate(_model("sigmoid"), {"ann": _speaker(0)}, seed=0)
    (tmp_path / MOMENTS_FILE).write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="cannot be read"):
        method.estimate(model, {"ann": _speaker(0)}, seed=0)
    broken = _speaker(5)
    broken.features[:] = np.inf
    with pytest.raises(AlignmentError, match="not finite"):
        method.prepare(model, {"t": broken}, seed=0)
