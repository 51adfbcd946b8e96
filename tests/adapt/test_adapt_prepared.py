"""Methods that learn from the training speakers: files that belong to a network, speakers as if alone."""

import dataclasses
from dataclasses import replace

import numpy as np
import pytest
import torch

from lhuc_asr.adapt.bayes import Bayes, BayesConfig
from lhuc_asr.adapt.lhuc import LearnedLhucConfig
from lhuc_asr.adapt.methods import load_speakers
from lhuc_asr.adapt.predicted import Predicted, PredictedConfig
from lhuc_asr.adapt.subspace import Subspace, SubspaceConfig
from lhuc_asr.adapt.targets import no_targets
from lhuc_asr.base.config import parse_config
from lhuc_asr.base.errors import CheckpointError, ConfigError, ModelMismatchError, SpeakerError
from lhuc_asr.base.tensors import load_tensors, save_tensors
from lhuc_asr.nnet.dnn import Dnn

PLAIN = LearnedLhucConfig(learning_rate=0.05, sweeps=2, kl_weight=0.0, batch_size=32)


def bayes(**changes):
    return lambda folder: Bayes(BayesConfig(lhuc=PLAIN.model_copy(update=changes)), folder)


def maximum(**changes):
    return lambda folder: Bayes(BayesConfig(lhuc=PLAIN.model_copy(update=changes), estimate="map"), folder)


def subspace(**changes):
    return lambda folder: Subspace(SubspaceConfig(lhuc=PLAIN.model_copy(update=changes), dimensions=3), folder)


def predicted(**changes):
    config = PredictedConfig(lhuc=PLAIN.model_copy(update=changes), dimensions=2, hidden_units=4, steps=20)
    return lambda folder: Predicted(config, folder)


METHODS = [bayes, maximum, subspace, predicted]


@pytest.fixture
def training(speaker_of):
    generator = torch.Generator().manual_seed(1)
    return {f"t{n}": speaker_of(n, 60, 0.4 * torch.randn(2, 16, generator=generator)) for n in range(5)}


@pytest.fixture(params=METHODS)
def method(request, small, training, tmp_path):
    made = request.param()(tmp_path)
    made.prepare(small, training, seed=0)
    return made


def r_of(adapted, name):
    return [table.detach()[adapted.bank.row(name)] for table in adapted.bank.tables]


def test_speakers_together_are_each_alone_and_the_same_seed_gives_the_same_bits(method, small, speaker_of):
    speakers = {f"n{n}": speaker_of(20 + n, 20 + 15 * n) for n in range(3)}
    together = method.estimate(small, speakers, seed=3)
    again = method.estimate(small, speakers, seed=3)
    for name, frames in speakers.items():
        alone = method.estimate(small, {name: frames}, seed=3)
        for one, other, third in zip(r_of(together, name), r_of(alone, name), r_of(again, name), strict=True):
            assert torch.allclose(one, other, atol=2e-5)
            assert torch.equal(one, third)
            assert one.any()


def test_the_network_comes_back_bit_for_bit(method, small, training, speaker_of):
    before = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    small.train()
    method.prepare(small, training, seed=0)
    method.estimate(small, {"ann": speaker_of(9, 30)}, seed=0)
    assert all(torch.equal(small.state_dict()[name], tensor) for name, tensor in before.items())
    assert small.training
    assert all(p.requires_grad and p.grad is None for p in small.parameters())
    assert not any(module._forward_hooks for module in small.modules())


def test_saved_and_loaded_speakers_are_the_same_bits(method, small, speaker_of, tmp_path):
    adapted = method.estimate(small, {"ann": speaker_of(9, 30)}, seed=0)
    adapted.save(tmp_path / "speakers")
    loaded = load_speakers(small, tmp_path / "speakers")
    assert all(torch.equal(a, b) for a, b in zip(r_of(adapted, "ann"), r_of(loaded, "ann"), strict=True))


def test_nobody_to_adapt_to(method, small):
    assert method.estimate(small, {}, seed=0).bank.speakers == ()


def test_a_speaker_without_a_frame_that_counts_beside_others(small, training, speaker_of, tmp_path):
    for make in (bayes, maximum, subspace):
        method = make()(tmp_path / make.__name__)
        method.prepare(small, training, seed=0)
        speakers = {"mute": speaker_of(8, 20, weight=0.0), "ann": speaker_of(9, 30)}
        adapted = method.estimate(small, speakers, seed=0)
        alone = method.estimate(small, {"ann": speakers["ann"]}, seed=0)
        assert not any(r.any() for r in r_of(adapted, "mute"))
        assert all(
            torch.allclose(a, b, atol=2e-5) for a, b in zip(r_of(adapted, "ann"), r_of(alone, "ann"), strict=True)
        )


def test_prediction_does_not_use_targets(small, training, speaker_of, tmp_path):
    method = predicted()(tmp_path)
    method.prepare(small, training, seed=0)
    frames = speaker_of(9, 40)
    pdfs = np.zeros_like(frames.targets.pdf)
    silenced = dataclasses.replace(
        frames, targets=dataclasses.replace(frames.targets, pdf=pdfs, weight=np.zeros(40, np.float32))
    )
    one, other = (method.estimate(small, {"ann": f}, seed=0) for f in (frames, silenced))
    assert all(torch.equal(a, b) for a, b in zip(r_of(one, "ann"), r_of(other, "ann"), strict=True))


@pytest.mark.parametrize("make", METHODS)
def test_training_speakers_who_are_mute_or_diverge_teach_nothing(make, small, training, speaker_of, tmp_path):
    nothing, broken = speaker_of(30, 40), speaker_of(31, 40)
    mute = replace(nothing, targets=no_targets(len(nothing.features)))
    broken.features[3] = np.nan
    for name, more in (("with", {"mute": mute, "broken": broken}), ("without", {})):
        (tmp_path / name).mkdir()
        make()(tmp_path / name).prepare(small, {**training, **more}, seed=0)
    found, expected = (load_tensors(next((tmp_path / name).iterdir()))[0] for name in ("with", "without"))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5)
    with pytest.raises(SpeakerError, match="at least 2 training speakers with frames of weight > 0; found 1"):
        make()(tmp_path / "with").prepare(small, {"mute": mute, "t0": training["t0"]}, seed=0)


@pytest.mark.parametrize("config", [BayesConfig, SubspaceConfig, PredictedConfig])
def test_one_option_of_the_inner_descent_leaves_its_other_defaults(config):
    inner = parse_config(config, {"lhuc": {"sweeps": 3}}, "recipe").lhuc
    assert (inner.sweeps, inner.learning_rate, inner.kl_weight) == (3, 0.01, 0.0)
    assert inner.model_copy(update={"sweeps": 5}) == config().lhuc
    with pytest.raises(ConfigError, match=r"lhuc.*give it to the method around this descent"):
        parse_config(config, {"lhuc": {"on": "fmllr"}}, "recipe")


@pytest.mark.parametrize("make", METHODS)
def test_missing_and_foreign_files_are_refused(make, small, training, speaker_of, tmp_path):
    ann = {"ann": speaker_of(9, 30)}
    with pytest.raises(ConfigError, match="learns from the training speakers; give it a folder"):
        make()(None).estimate(small, ann, seed=0)
    with pytest.raises(ConfigError, match="learns from the training speakers; give it a folder"):
        make()(None).prepare(small, training, seed=0)
    method = make()(tmp_path)
    with pytest.raises(CheckpointError, match=r"safetensors: no such file; prepare the method on the training"):
        method.estimate(small, ann, seed=0)
    with pytest.raises(SpeakerError, match="at least 2 training speakers with frames of weight > 0; found 1"):
        method.prepare(small, ann, seed=0)
    assert not list(tmp_path.iterdir())
    method.prepare(small, training, seed=0)

    other = Dnn(small.config, small.feature_dimension, small.pdf_count).eval()
    with pytest.raises(ModelMismatchError, match=r"safetensors: made with model .* delete the file and prepare"):
        method.estimate(other, ann, seed=0)
    with pytest.raises(ModelMismatchError, match="made with sites"):
        make(layers=(0,))(tmp_path).estimate(small, ann, seed=0)
    with pytest.raises(ModelMismatchError, match="made with amplitude 'exp', here it is '2sigmoid'"):
        make(amplitude="2sigmoid")(tmp_path).estimate(small, ann, seed=0)

    if make in (subspace, predicted):
        method.config = method.config.model_copy(update={"dimensions": 1})
        with pytest.raises(ModelMismatchError, match=r"made with dimensions [23], here it is 1; delete the file"):
            method.estimate(small, ann, seed=0)
        method = make()(tmp_path)

    (path,) = tmp_path.iterdir()
    tensors, description = load_tensors(path)
    name = next(iter(tensors))
    tensors[name].view(-1)[0] = float("nan")
    save_tensors(path, tensors, description)
    with pytest.raises(CheckpointError, match=f"{name} is not finite, the file is damaged"):
        method.estimate(small, ann, seed=0)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="cannot be read"):
        method.estimate(small, ann, seed=0)
