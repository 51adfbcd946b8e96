"""Training of time-delay and normalised networks: they learn, and statistics are those of the weights they are with."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from corner_frames import PDFS, corner_frames

from lhuc_asr.base.errors import CheckpointError
from lhuc_asr.base.tensors import load_tensors, save_tensors
from lhuc_asr.nnet.dnn import DnnConfig
from lhuc_asr.nnet.frames import FrameSource
from lhuc_asr.nnet.layered_network import LayeredNetwork, NetworkShape
from lhuc_asr.nnet.normalisation import BatchNormalisation
from lhuc_asr.nnet.schedule import NewbobConfig
from lhuc_asr.nnet.tdnn import TdnnConfig
from lhuc_asr.nnet.trainer import TrainerConfig, estimate_statistics, evaluate, train

CPU = torch.device("cpu")
DNN = DnnConfig(hidden_layers=2, hidden_units=16, activation="relu", dropout=0.2, context=1)
TDNN = TdnnConfig(offsets=((-1, 0, 1), (-1, 1)), channels=12, hidden_units=12, dropout=0.2)
SHAPES: dict[str, NetworkShape] = {
    f"{kind} {name}": shape.model_copy(update={"normalisation": name})
    for kind, shape in {"dnn": DNN, "tdnn": TDNN}.items()
    for name in (None, "batch", "layer")
}
CALM = TrainerConfig(batch_size=32, schedule=NewbobConfig(learning_rate=0.05, max_epochs=6))
# A rate so high that some epochs make the held-out loss worse.
BUMPY = TrainerConfig(batch_size=32, schedule=NewbobConfig(learning_rate=0.6, stop_below=0.0, max_epochs=6))
# Here averages are better than the last epoch.
AVERAGED = TrainerConfig(
    batch_size=32,
    average_epochs=3,
    schedule=NewbobConfig(learning_rate=0.2, halve_below=0.0, stop_below=0.0, max_epochs=5),
)


class _KilledError(Exception):
    """Raised in place of a killed process."""


def model_of(shape: NetworkShape, seed: int = 0) -> LayeredNetwork:
    model = shape.make(2, PDFS)
    model.initialise(torch.Generator().manual_seed(seed))
    return model


def sources_of(shape: NetworkShape, noise: float = 0.3) -> tuple[FrameSource, FrameSource]:
    context = shape.splicing(2).context
    return corner_frames(0, 610, noise, context), corner_frames(1, 300, noise, context)


def trained(
    path: Path,
    shape: NetworkShape,
    config: TrainerConfig,
    seed: int = 0,
    after_epoch: Callable[[dict[str, Any], LayeredNetwork], None] = lambda figures, model: None,
    noise: float = 0.3,
) -> LayeredNetwork:
    model = model_of(shape, seed)
    return train(model, *sources_of(shape, noise), config, path, 3, CPU, lambda figures: after_epoch(figures, model))


def same(one: LayeredNetwork, other: LayeredNetwork) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", SHAPES)
def test_a_separable_problem_is_learned(tmp_path, name, precision):
    config = CALM.model_copy(update={"precision": precision})
    model = trained(tmp_path / "state", SHAPES[name], config, noise=0.0)
    evaluation = evaluate(model, sources_of(SHAPES[name], 0.0)[1], CPU)
    assert evaluation.accuracy > 0.95
    assert evaluation.loss < 0.2
    assert all(tensor.dtype == torch.float32 for tensor in model.state_dict().values())


@pytest.mark.parametrize("config", [BUMPY, AVERAGED], ids=["bumpy", "averaged"])
@pytest.mark.parametrize("name", ["dnn batch", "tdnn batch", "tdnn layer"])
def test_a_run_killed_after_any_epoch_ends_with_the_same_bits(tmp_path, name, config):
    kept: list[bool] = []
    path = tmp_path / "whole"

    def after_epoch(figures: dict[str, Any], model: LayeredNetwork) -> None:
        if "epoch" in figures:
            kept.append(figures["kept"])
            shutil.copy(path, tmp_path / str(figures["epoch"]))

    expected = trained(path, SHAPES[name], config, after_epoch=after_epoch)
    assert config is not BUMPY or set(kept) == {True, False}
    for epoch in range(1, len(kept) + 1):
        # The file as it was after the epoch; all that counts must come from there, so the weights are others.
        assert same(trained(tmp_path / str(epoch), SHAPES[name], config, seed=99), expected), f"after epoch {epoch}"


@pytest.mark.parametrize("name", ["dnn batch", "tdnn batch"])
def test_an_undone_epoch_leaves_the_statistics_of_the_weights_before_it(tmp_path, name):
    before = model_of(SHAPES[name]).state_dict()
    undone = []

    def after_epoch(figures: dict[str, Any], model: LayeredNetwork) -> None:
        nonlocal before
        state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        if not figures["kept"]:
            undone.append(all(torch.equal(state[key], before[key]) for key in state))
        before = state

    trained(tmp_path / "state", SHAPES[name], BUMPY, after_epoch=after_epoch)
    assert undone
    assert all(undone)


@pytest.mark.parametrize("name", ["dnn batch", "tdnn batch"])
@pytest.mark.parametrize("config", [CALM, BUMPY, AVERAGED], ids=["calm", "bumpy", "averaged"])
def test_statistics_are_those_of_the_networks_own_weights(tmp_path, name, config):
    """Of a run with few frames, all of them: each layer's outputs have mean 0 and variance 1, whatever was averaged."""
    averaged = []

    def after_epoch(figures: dict[str, Any], model: LayeredNetwork) -> None:
        averaged.append(figures.get("averaged_epochs", 0))

    model = trained(tmp_path / "state", SHAPES[name], config, after_epoch=after_epoch)
    assert config is not AVERAGED or averaged[-1] > 1
    again = SHAPES[name].make(2, PDFS)
    again.load_state_dict(model.state_dict())
    estimate_statistics(again, sources_of(SHAPES[name])[0], 3, CPU)
    assert same(again, model)
    (hidden, _), *more = list(sources_of(SHAPES[name])[0].in_order(10_000))
    assert not more
    with torch.no_grad():
        for layer in model.hidden:
            outputs = layer.linear(layer.shape.arrangement.of_grid(hidden)).flatten(0, -2)
            normal = layer.normalisation
            torch.testing.assert_close(normal.mean, outputs.mean(0), rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(normal.variance, outputs.var(0, correction=0), rtol=1e-4, atol=1e-4)
            hidden = layer(hidden)


def test_statistics_are_estimated_from_part_of_a_large_corpus(monkeypatch):
    """Of random frames, not of the first utterances; those of the whole are near."""
    monkeypatch.setattr("lhuc_asr.nnet.trainer.EVALUATION_BATCH", 100)
    shape = SHAPES["dnn batch"]
    source, model, whole = corner_frames(0, 6000), model_of(shape), model_of(shape)
    estimate_statistics(model, source, 3, CPU)
    monkeypatch.undo()
    estimate_statistics(whole, source, 3, CPU)
    ours, theirs = (network.hidden[0].normalisation for network in (model, whole))
    assert not torch.equal(ours.mean, theirs.mean)
    assert bool(((ours.mean - theirs.mean).abs() < 0.2 * theirs.variance.sqrt()).all())
    assert bool((ours.variance / theirs.variance - 1).abs().max() < 0.2)


def test_the_last_mini_batch_may_have_a_single_frame(tmp_path):
    """601 frames in batches of 200: a single frame has no deviation."""
    shape = SHAPES["dnn batch"]
    training = corner_frames(0, 601)
    config = CALM.model_copy(update={"batch_size": 200})
    model = train(
        model_of(shape), training, corner_frames(1, 300), config, tmp_path / "state", 3, CPU, lambda figures: None
    )
    assert all(bool(tensor.isfinite().all()) for tensor in model.state_dict().values())


def test_a_state_with_a_variance_below_zero_is_refused(tmp_path):
    trained(tmp_path / "state", SHAPES["dnn batch"], CALM)
    tensors, description = load_tensors(tmp_path / "state")
    name = "model.hidden.0.normalisation.variance"
    save_tensors(tmp_path / "state", {**{k: v.clone() for k, v in tensors.items()}, name: -tensors[name]}, description)
    with pytest.raises(CheckpointError, match=r"state of another network: hidden\.0\..*variance is below 0.*; delete"):
        trained(tmp_path / "state", SHAPES["dnn batch"], CALM)


def test_a_network_without_batch_normalisation_is_trained_as_ever(tmp_path):
    """No pass over the frames, no seed drawn: ``estimate_statistics`` does nothing."""

    class Untouched(FrameSource):
        def shuffled(self, *arguments: Any) -> Any:
            raise AssertionError("frames were read")

    source = corner_frames(0)
    untouched = Untouched(source.features, source.targets, source.utterances, source.context)
    model = model_of(SHAPES["dnn layer"]).train()
    estimate_statistics(model, untouched, 3, CPU)
    assert model.training
    assert not any(isinstance(module, BatchNormalisation) for module in model.modules())
