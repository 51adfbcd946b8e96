"""i-vectors as a method: speakers whose vector cannot be computed, and networks whose tensors do not make vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scaled_speakers import VECTOR, WIDTH, frames_of, small_dnn, voices

from lhuc_asr.adapt.ivector import Ivector, IvectorConfig, extractor_of
from lhuc_asr.adapt.targets import no_targets
from lhuc_asr.base.errors import CheckpointError, SiteError
from lhuc_asr.base.tensors import load_tensors, save_tensors
from lhuc_asr.nnet.checkpoint import load_model, save_model


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e20, 3e38])
def test_a_speaker_whose_numbers_are_too_large_gets_the_vector_of_nobody_and_others_their_own(
    value: float, caplog: pytest.LogCaptureFixture
) -> None:
    model = small_dnn(vectors=True)
    people = {name: frames_of(model, seed, 60) for seed, name in enumerate(("ann", "bob", "cat"))}
    features = people["bob"].features.copy()
    features[3] = value
    bad = people | {"bob": replace(people["bob"], features=features), "mute": people["ann"]}
    bad["mute"] = replace(people["ann"], targets=no_targets(60))
    method = Ivector(IvectorConfig())
    alone, adapted = method.estimate(model, people, 0), method.estimate(model, bad, 0)
    for name in ("ann", "cat"):
        assert torch.equal(adapted.of(name), alone.of(name))
        assert float(adapted.of(name).norm()) > 0.1
    for name in ("bob", "mute"):
        assert torch.equal(adapted.of(name), torch.zeros(VECTOR))
    unusable = (
        "1 of 4 speakers stay unadapted, their features are not finite or too large (check their recordings): bob"
    )
    silent = "1 of 4 speakers stay unadapted, all their frames have weight 0: mute"
    assert [record.message for record in caplog.records] == [silent, unusable]


def test_a_network_without_vectors_is_refused() -> None:
    with pytest.raises(SiteError, match="the network does not take a vector of the speaker; give the recipe one"):
        extractor_of(small_dnn())


def _changed(path: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    """Write a network whose tensors of vectors are changed, and described as they are."""
    save_model(path, small_dnn(vectors=True))
    tensors, description = load_tensors(path)
    prefix = "vectors.tensor_"
    network = {name: tensor.clone() for name, tensor in tensors.items() if not name.startswith(prefix)}
    own = change(voices().tensors())
    description["vectors"] = {name: list(tensor.shape) for name, tensor in own.items()}
    save_tensors(path, network | {f"{prefix}{name}": tensor for name, tensor in own.items()}, description)


@pytest.mark.parametrize("name", voices().tensors())
def test_a_network_with_one_of_the_tensors_alone_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "network.safetensors"
    _changed(path, lambda tensors: {name: tensors[name]})
    message = (
        r"network\.safetensors: the network's i-vector extractor: the tensor '\w+' is missing; copy the model again, or"
    )
    with pytest.raises(CheckpointError, match=message):
        extractor_of(load_model(path))


@pytest.mark.parametrize("name", ["forward", "training", "by_name", "source", "weight_"])
def test_a_network_with_a_tensor_more_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "network.safetensors"
    _changed(path, lambda tensors: {**tensors, name: torch.zeros(2)})
    with pytest.raises(
        CheckpointError, match=rf"network\.safetensors: .*: unknown tensor '{name}'; copy the model again"
    ):
        extractor_of(load_model(path))


def test_a_network_of_other_vectors_or_features_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "network.safetensors"
    _changed(path, lambda tensors: tensors)
    assert extractor_of(load_model(path)).dimension == VECTOR
    _changed(path, lambda tensors: {**tensors, "loading": tensors["loading"].repeat(1, 1, 2)})
    message = r"network\.safetensors: .* vectors of 4 values, but the network takes 2; copy the model again, or train"
    with pytest.raises(CheckpointError, match=message):
        extractor_of(load_model(path))
    wide = {"mean": (1, 2), "variance": (1, 2), "loading": (1, 2, 1)}
    _changed(path, lambda tensors: {name: each.repeat(wide.get(name, 1)) for name, each in tensors.items()})
    with pytest.raises(
        CheckpointError, match=rf"network\.safetensors: .* has shape \[3, {2 * WIDTH}.*expected \[3, {WIDTH}"
    ):
        extractor_of(load_model(path))
