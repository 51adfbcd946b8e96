"""The contract of adaptation methods over other networks: time delays, batch and layer normalisation.

What ``test_adapt_contract.py`` holds every method to on a plain network, in fewer steps on each of these.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from contract_methods import OPTIONS, TARGETS_BELOW, WITHOUT_TARGETS, add_test_methods, gaussians, prepared_method
from scaled_speakers import PDFS, UNITS, VECTOR, WIDTH, frames_of, voices

from lhuc_asr.adapt.amplitudes import Amplitudes
from lhuc_asr.adapt.lhuc import Lhuc, LhucConfig
from lhuc_asr.adapt.methods import load_speakers
from lhuc_asr.adapt.moments import Moments, MomentsConfig
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.adapt.targets import no_targets
from lhuc_asr.lhuc.attach import attach
from lhuc_asr.nnet.dnn import DnnConfig
from lhuc_asr.nnet.layered_network import LayeredNetwork, NetworkShape
from lhuc_asr.nnet.normalisation import BatchNormalisation, estimating
from lhuc_asr.nnet.scoring import score_utterance
from lhuc_asr.nnet.tdnn import TdnnConfig
from lhuc_asr.nnet.vector_tensors import VectorTensors

# Two hidden layers, as the other tests' network has; the first of the time-delay network has two positions.
TDNN = TdnnConfig(offsets=((-1, 0, 1), (-1, 2)), channels=UNITS, hidden_layers=0, dropout=0.3)
DNN = DnnConfig(hidden_layers=2, hidden_units=UNITS, context=1, dropout=0.3, activation="relu")
SHAPES: dict[str, NetworkShape] = {
    "tdnn": TDNN,
    "tdnn batch": TDNN.model_copy(update={"normalisation": "batch"}),
    "dnn layer": DNN.model_copy(update={"normalisation": "layer"}),
}
# Logits are up to a hundred here; a folded network rounds otherwise than the network itself.
CLOSE = {"rtol": 1e-5, "atol": 1e-4}


def network(name: str, activation: str = "relu", vectors: bool = False) -> LayeredNetwork:
    """A network with confident outputs, whose statistics are those of standard normal features."""
    model = SHAPES[name].model_copy(update={"activation": activation}).make(WIDTH, PDFS, VECTOR if vectors else 0)
    if vectors:
        model.vectors = VectorTensors(voices().tensors(), "a test")
    generator = torch.Generator().manual_seed(0)
    model.initialise(generator)
    torch.nn.init.normal_(model.output.weight, std=1.5, generator=generator)
    for module in model.modules():
        if isinstance(module, BatchNormalisation | torch.nn.LayerNorm):
            torch.nn.init.normal_(module.weight, 1.0, 0.2, generator=generator)
            torch.nn.init.normal_(module.bias, 0.0, 0.5, generator=generator)
    spliced = hidden = model.splicing.utterance(torch.randn(500, WIDTH, generator=generator))
    with estimating(model):
        model(spliced)
    with torch.no_grad():
        for layer in model.hidden:
            hidden = layer(hidden)
        # Without this bias all frames would have the same few pdfs.
        model.output.bias.copy_(-model.output.weight @ hidden.mean(0))
    return model.eval()


def people_of(model: LayeredNetwork) -> dict[str, SpeakerData]:
    """Three speakers with units scaled in ways of their own."""
    generator = torch.Generator().manual_seed(11)
    scales = {name: 0.4 * torch.randn(2, UNITS, generator=generator) for name in ("ann", "bob", "cat")}
    return {name: frames_of(model, 20 + n, 90 + 30 * n, r) for n, (name, r) in enumerate(scales.items())}


def utterance(seed: int = 1, frames: int = 25) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((frames, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def mixtures(tmp_path_factory):
    """Gaussians of each network's own pdfs."""
    folders = {name: tmp_path_factory.mktemp("gaussians") for name in SHAPES}
    return {name: gaussians(network(name), folder) for name, folder in folders.items()}


# The basis is of transforms of features by Gaussians, and never sees a network; these pdfs tell too little of features.
@pytest.mark.parametrize("options", [options for options in OPTIONS if options != "basis_fmllr"])
@pytest.mark.parametrize("name", SHAPES)
def test_every_method_adapts_every_network(name, options, mixtures, tmp_path, monkeypatch):
    add_test_methods(monkeypatch)
    model = network(name, vectors="ivector" in options)
    people = people_of(model)
    method = prepared_method(options, model, tmp_path / "prepared", mixtures[name])
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    own = score_utterance(model, utterance())

    empty = SpeakerData(np.zeros((0, WIDTH), np.float32), (), no_targets(0))
    mute = replace(people["ann"], targets=no_targets(90))
    adapted = method.estimate(model.train(), {**people, "empty": empty, "mute": mute}, seed=1)
    assert all(torch.equal(model.state_dict()[key], tensor) for key, tensor in before.items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert all(module.training for module in model.modules())
    model.eval()

    scores = {person: adapted.log_likelihoods(person, [utterance()]) for person in adapted.speakers}
    np.testing.assert_allclose(scores["empty"], own, **CLOSE)
    if options not in (*WITHOUT_TARGETS, *TARGETS_BELOW):
        np.testing.assert_allclose(scores["mute"], own, **CLOSE)
    for person in people:
        assert (np.abs(scores[person] - own).max() > 0.05) == (options != "none")
        np.testing.assert_allclose(adapted.unadapted().log_likelihoods(person, [utterance()]), own, **CLOSE)
    alone = method.estimate(model, {"bob": people["bob"]}, seed=1)
    np.testing.assert_allclose(alone.log_likelihoods("bob", [utterance()]), scores["bob"], **CLOSE)
    both = adapted.log_likelihoods(["cat", "bob"], [utterance(), utterance(2, 1)])
    np.testing.assert_array_equal(both[:25], scores["cat"])

    adapted.save_speaker("bob", tmp_path / "bob.safetensors", {})
    loaded = load_speakers(model, tmp_path / "bob.safetensors")
    np.testing.assert_array_equal(loaded.log_likelihoods("bob", [utterance()]), scores["bob"])


def test_the_sites_of_a_time_delay_network_have_one_amplitude_a_channel():
    model = network("tdnn")
    bank = Lhuc(LhucConfig()).estimate(model, people_of(model), seed=1).bank
    assert [(site.name, site.width) for site in bank.sites] == [
        ("hidden.0.activation", UNITS),
        ("hidden.1.activation", UNITS),
    ]


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
@pytest.mark.parametrize("name", SHAPES)
def test_a_speakers_scores_are_those_of_hooks(name, activation):
    model = network(name, activation)
    adapted = Lhuc(LhucConfig(learning_rate=0.1)).estimate(model, people_of(model), seed=1)
    spliced = model.splicing.utterance(torch.from_numpy(utterance()))
    with adapted.applied("ann") as hooked, torch.no_grad():
        expected = hooked.log_likelihoods(spliced).numpy()
    np.testing.assert_allclose(adapted.log_likelihoods("ann", [utterance()]), expected, **CLOSE)


@pytest.mark.parametrize("name", SHAPES)
def test_descent_lowers_the_cross_entropy_of_other_frames(name):
    """A voice whose units are louder or softer in a way of their own is learned from other recordings of it."""
    model = network(name)
    scales = 0.5 * torch.randn(2, UNITS, generator=torch.Generator().manual_seed(4))
    heard, other = (frames_of(model, seed, 1500, scales) for seed in (31, 32))
    config = LhucConfig(learning_rate=0.02, sweeps=10, kl_weight=0.0)
    adapted = Lhuc(config).estimate(model, {"ann": heard}, seed=1)
    losses = []
    for speakers in (adapted.unadapted(), adapted):
        scores = torch.from_numpy(speakers.log_likelihoods("ann", [other.features])) + model.log_prior
        pdfs = torch.from_numpy(other.targets.pdf[:, 0]).long()
        losses.append(float(torch.nn.functional.cross_entropy(scores, pdfs)))
    assert losses[1] < losses[0] - 0.1


def test_moments_of_a_time_delay_layer_are_means_over_its_positions(tmp_path):
    """One speaker like the training speakers but for the features: the ratio by hand, from hooks."""
    model = network("tdnn", "sigmoid")
    training = {name: frames_of(model, n, 200) for n, name in enumerate(("a", "b"))}
    method = Moments(MomentsConfig(prior_frames=50.0, layers=(0,)), tmp_path)
    method.prepare(model, training, seed=0)
    ann = frames_of(model, 9, 100, scale=1.5)
    adapted = method.estimate(model, {"ann": ann}, seed=0)
    assert isinstance(adapted, Amplitudes)

    def activations(data: SpeakerData) -> torch.Tensor:
        with torch.no_grad():
            hidden = model.hidden[0](model.splicing.utterance(torch.from_numpy(data.features)))
        assert hidden.shape == (len(data.features), 2, UNITS)
        return ((hidden[:, 0] + hidden[:, 1]) / 2).double()

    pdfs = np.concatenate([data.targets.pdf[:, 0] for data in training.values()])
    learned = torch.cat([activations(data) for data in training.values()])
    mean = learned.mean(0)
    expected = torch.stack(
        [(learned[pdfs == pdf].sum(0) + 10 * mean) / (np.sum(pdfs == pdf) + 10) for pdf in range(PDFS)]
    )
    said = expected[torch.from_numpy(ann.targets.pdf[:, 0]).long()].sum(0)
    xi = (said + 50 * mean) / (activations(ann).sum(0) + 50 * mean)
    own = adapted.bank.xi("hidden.0.activation", adapted.bank.rows_of(["ann"]))[0].detach()
    torch.testing.assert_close(own.double(), xi, rtol=1e-5, atol=1e-5)


def test_hooks_scale_each_position_alike():
    model = network("tdnn")
    spliced = model.splicing.utterance(torch.from_numpy(utterance()))
    with torch.no_grad():
        plain = model.hidden[0](spliced)
        bank = attach(model, "hidden.0.activation", ["ann"])
        bank.tables[0][1] = torch.linspace(-1, 1, UNITS)
        with bank.speaker("ann"):
            scaled = model.hidden[0](spliced)
    torch.testing.assert_close(scaled, plain * torch.linspace(-1, 1, UNITS).exp())
