"""LHUC's rivals: each formula written out, the first step of each is the gradient's, and their files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from scaled_speakers import PDFS, UNITS, WIDTH, frames_of, small_dnn
from torch import Tensor
from torch.nn import functional

from lhuc_asr.adapt.gaussian_model import GaussianModel
from lhuc_asr.adapt.lhn import LhnConfig
from lhuc_asr.adapt.lhuc import PAPER
from lhuc_asr.adapt.lin import LinConfig
from lhuc_asr.adapt.lora import LoraConfig, LoraSpeakers
from lhuc_asr.adapt.methods import load_speakers
from lhuc_asr.adapt.moved import MovedConfig
from lhuc_asr.adapt.prelu import PreluConfig
from lhuc_asr.adapt.speaker_bias import SpeakerBiasConfig
from lhuc_asr.adapt.whole_network import WholeNetworkConfig
from lhuc_asr.base.config import parse_config
from lhuc_asr.base.errors import CheckpointError, ConfigError, ModelMismatchError, SiteError
from lhuc_asr.base.tensors import load_tensors, save_tensors
from lhuc_asr.features.context import splice
from lhuc_asr.hmm.gmm import DiagonalGmm
from lhuc_asr.nnet.dnn import Dnn, DnnConfig

Formula = Callable[[Dnn, Mapping[str, Tensor], Tensor], Tensor]


def lin(net: Dnn, own: Mapping[str, Tensor], x: Tensor) -> Tensor:
    return net(x @ own["matrix"].T + own["offset"])


def last(net: Dnn, own: Mapping[str, Tensor], x: Tensor) -> Tensor:
    for layer in net.hidden:
        x = layer(x)
    return net.output(x @ own["matrix"].T + own["offset"])


def first(net: Dnn, own: Mapping[str, Tensor], x: Tensor) -> Tensor:
    hidden = net.hidden[0](x) @ own["matrix"].T + own["offset"]
    return net.output(net.hidden[1](hidden))


def bias(net: Dnn, own: Mapping[str, Tensor], x: Tensor) -> Tensor:
    for number, layer in enumerate(net.hidden):
        x = torch.relu(layer.linear(x) + own[f"offset.{number}"])
    return net.output(x)


def prelu(net: Dnn, own: Mapping[str, Tensor], x: Tensor) -> Tensor:
    for number, layer in enumerate(net.hidden):
        z = layer.linear(x)
        x = own[f"positive.{number}"] * z.clamp(min=0) + own[f"negative.{number}"] * z.clamp(max=0)
    return net.output(x)


def lora(net: Dnn, own: Mapping[str, Tensor], x: Tensor) -> Tensor:
    for number, layer in enumerate(net.hidden):
        weight = layer.linear.weight + own[f"up.{number}"] @ own[f"down.{number}"]
        x = torch.relu(x @ weight.T + layer.linear.bias)
    return net.output(x)


def whole(net: Dnn, own: Mapping[str, Tensor], x: Tensor) -> Tensor:
    for number, layer in enumerate([*(each.linear for each in net.hidden), net.output]):
        x = x @ (layer.weight + own[f"weight.{number}"]).T + layer.bias + own[f"bias.{number}"]
        x = torch.relu(x) if number < 2 else x
    return x


CASES: list[tuple[type[MovedConfig], dict[str, object], Formula]] = [
    (LinConfig, {}, lin),
    (LhnConfig, {}, last),
    (LhnConfig, {"layer": 0}, first),
    (LhnConfig, {"layer": 1}, last),
    (SpeakerBiasConfig, {}, bias),
    (PreluConfig, {}, prelu),
    (LoraConfig, {"rank": 3}, lora),
    (WholeNetworkConfig, {}, whole),
]
cases = pytest.mark.parametrize(("kind", "options", "formula"), CASES)


@pytest.fixture
def model() -> Dnn:
    """Its activation is a ReLU, as in the formulas."""
    made = Dnn(DnnConfig(hidden_layers=2, hidden_units=UNITS, context=1, activation="relu"), WIDTH, PDFS)
    generator = torch.Generator().manual_seed(0)
    made.initialise(generator)
    torch.nn.init.normal_(made.output.weight, std=0.5, generator=generator)
    return made.eval()


def in_double(model: Dnn) -> Dnn:
    double = Dnn(model.config, WIDTH, PDFS).double().eval()
    double.load_state_dict(model.state_dict())
    return double


@cases
def test_scores_are_those_of_the_formula(model, kind, options, formula):
    config = kind.model_validate(options)
    start = config.move.start(model.feed_forward(), seed=2)
    generator = torch.Generator().manual_seed(4)
    own = {part: values + 0.2 * torch.randn(values.shape, generator=generator) for part, values in start.items()}
    speakers = config.speakers(model, config.move, {"ann": own, "nobody": start})
    utterance = np.random.default_rng(1).standard_normal((30, WIDTH)).astype(np.float32)
    spliced, double = splice(torch.from_numpy(utterance), 1), in_double(model)
    with torch.no_grad():
        expected = formula(double, {part: each.double() for part, each in own.items()}, spliced.double())
        expected = torch.log_softmax(expected, 1) - double.log_prior
        plain = model.log_likelihoods(spliced)
    np.testing.assert_allclose(speakers.log_likelihoods("ann", [utterance]), expected.numpy(), atol=1e-4)
    np.testing.assert_allclose(speakers.log_likelihoods("nobody", [utterance]), plain.numpy(), atol=1e-5)
    assert float((expected - plain).abs().max()) > 0.05


@cases
def test_a_step_of_sgd_follows_the_gradient_of_the_cross_entropy(model, kind, options, formula):
    frames = frames_of(model, 5, 60)
    config = kind.model_validate({**options, **PAPER, "batch_size": 60, "learning_rate": 0.1})
    start = config.move.start(model.feed_forward(), seed=7)
    own = {part: values.double().requires_grad_() for part, values in start.items()}
    logits = formula(in_double(model), own, splice(torch.from_numpy(frames.features), 1).double())
    functional.cross_entropy(logits, torch.from_numpy(frames.targets.pdf[:, 0]).long()).backward()
    moved = config.make(None).estimate(model, {"ann": frames}, seed=7).of("ann")
    assert moved.keys() == own.keys()
    for part, values in moved.items():
        gradient = own[part].grad
        assert gradient is not None
        torch.testing.assert_close(values.double(), own[part].detach() - 0.1 * gradient, rtol=0, atol=1e-6)
    assert max(float(each.grad.abs().max()) for each in own.values() if each.grad is not None) > 1e-3


def test_numbers_that_do_not_fit_together_are_adapted_one_after_the_other(model, monkeypatch):
    speakers = {f"s{n}": frames_of(model, n, 20 + 17 * n) for n in range(4)}
    method = WholeNetworkConfig(learning_rate=0.01, sweeps=2).make(None)
    together = method.estimate(model, speakers, seed=1)
    monkeypatch.setattr("lhuc_asr.adapt.moved.NUMBERS_BYTES", 1)
    for name in speakers:
        apart = method.estimate(model, speakers, seed=1).of(name)
        for part, values in together.of(name).items():
            torch.testing.assert_close(apart[part], values, rtol=0, atol=1e-6)


def test_lora_begins_with_the_same_directions_for_everybody_and_with_no_update(model):
    start = LoraConfig(rank=2).move.start(model.feed_forward(), seed=1)
    again, other = (LoraConfig(rank=2).move.start(model.feed_forward(), seed=seed) for seed in (1, 2))
    assert torch.equal(start["down.0"], again["down.0"])
    assert not torch.equal(start["down.0"], other["down.0"])
    assert not start["up.0"].any()
    assert start["down.1"].shape == (2, UNITS)


def test_bfloat16_is_refused():
    with pytest.raises(ConfigError, match="bfloat16: the numbers differ from their start by less than it resolves"):
        parse_config(LoraConfig, {"bfloat16": True}, "recipe")


def test_what_a_network_lacks_is_told(model):
    frames = {"ann": frames_of(model, 5, 20)}
    sigmoid = small_dnn()
    assert sigmoid.config.activation == "sigmoid"
    with pytest.raises(SiteError, match="prelu: the network's non-linearity is Sigmoid; it needs a ReLU"):
        PreluConfig().make(None).estimate(sigmoid, frames, seed=0)
    with pytest.raises(SiteError, match="layer 2: the network has hidden layers 0 to 1"):
        LhnConfig(layer=2).make(None).estimate(model, frames, seed=0)
    gaussians = GaussianModel(DiagonalGmm.flat(torch.zeros(WIDTH), torch.ones(WIDTH), PDFS))
    with pytest.raises(SiteError, match="GaussianModel has no feed-forward layers to change; adapt a network"):
        LinConfig().make(None).estimate(gaussians, frames, seed=0)


def test_speakers_of_other_options_and_damaged_descriptions_are_refused(model, tmp_path: Path):
    frames = {"ann": frames_of(model, 5, 20)}
    small, large = (LoraConfig(rank=rank).make(None).estimate(model, frames, seed=0) for rank in (2, 3))
    small.save(tmp_path)
    large.save_speaker("ann", tmp_path / "bob.safetensors", {})
    with pytest.raises(ModelMismatchError, match=r"bob.safetensors: adapted with other options than ann.safetensors"):
        load_speakers(model, tmp_path)
    path = tmp_path / "ann.safetensors"
    loaded = load_speakers(model, path)
    assert isinstance(loaded, LoraSpeakers)
    assert loaded.move.rank == 2
    tensors, description = load_tensors(path)
    for wrong in ({"rank": 0}, {"rank": 2, "more": 1}, None, "x"):
        save_tensors(path, tensors, description | {"move": wrong})
        with pytest.raises(CheckpointError, match=r"ann.safetensors: its description lacks what was adapted"):
            load_speakers(model, path)
    save_tensors(path, tensors, description | {"move": {"rank": 3}})
    with pytest.raises(CheckpointError, match=r"ann.safetensors: .* has shape .*; adapt the speaker again"):
        load_speakers(model, path)
