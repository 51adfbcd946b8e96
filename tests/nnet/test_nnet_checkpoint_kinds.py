"""Files of every kind of network: the same bits when they are read, older ones too, and errors for hostile ones."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
import torch
from safetensors import safe_open
from small_networks import DIMENSION, PDFS, SMALL, lively

from lhuc_asr.base.errors import CheckpointError
from lhuc_asr.base.tensors import load_tensors, save_tensors
from lhuc_asr.lhuc.identity import model_hash
from lhuc_asr.nnet.checkpoint import load_model, save_model
from lhuc_asr.nnet.dnn import DnnConfig
from lhuc_asr.nnet.layered_network import LayeredNetwork
from lhuc_asr.nnet.tdnn import TdnnConfig

SHAPES_BEFORE = {"hidden_layers": 3, "hidden_units": 12, "activation": "relu", "dropout": 0.0, "context": 1}
TDNN = SMALL["tdnn, batch"]


@pytest.mark.parametrize("vector", [0, 3])
@pytest.mark.parametrize("name", SMALL)
def test_a_network_comes_back_bit_for_bit(tmp_path, name, vector):
    model = lively(SMALL[name], vector)
    save_model(tmp_path / "model.safetensors", model)
    loaded = load_model(tmp_path / "model.safetensors")
    assert type(loaded) is type(model)
    assert loaded.config == model.config
    assert loaded.splicing == model.splicing
    assert not loaded.training
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(map(torch.equal, loaded.state_dict().values(), model.state_dict().values()))
    spliced = torch.randn(5, model.splicing.width)
    assert torch.equal(loaded(spliced), model(spliced))
    assert model_hash(loaded) == model_hash(model)
    if model.vectors is not None and loaded.vectors is not None:
        assert loaded.vectors.source == str(tmp_path / "model.safetensors")
        before, after = model.vectors.by_name(), loaded.vectors.by_name()
        assert before.keys() == after.keys() == {"forward", "training", "by_name"}
        assert all(torch.equal(before[key], after[key]) for key in before)


def test_the_file_of_a_plain_dnn_is_what_it_always_was(tmp_path):
    """Its description, the names and the order of its tensors; such a file without the newer keys is read."""
    model = lively(SMALL["dnn relu, plain"])
    save_model(tmp_path / "model.safetensors", model)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        description = file.metadata()["description"]
    before: dict[str, Any] = {"dnn": SHAPES_BEFORE, "feature_dimension": DIMENSION, "pdf_count": PDFS}
    assert description == json.dumps(before)
    layers = [f"hidden.{layer}.linear.{part}" for layer in range(3) for part in ("weight", "bias")]
    assert list(model.state_dict()) == ["log_prior", *layers, "output.weight", "output.bias"]


def test_a_network_of_another_class_is_not_saved(tmp_path):
    class Own(DnnConfig):
        pass

    with pytest.raises(CheckpointError, match="a Dnn cannot be saved; expected one of dnn, tdnn"):
        save_model(tmp_path / "model.safetensors", lively(Own(hidden_layers=1, hidden_units=3, context=0)))


def described(tmp_path, change: dict[str, Any], model: LayeredNetwork | None = None) -> None:
    """Read the file of a time-delay network with other keys in its description; None takes a key away."""
    path = tmp_path / "model.safetensors"
    save_model(path, lively(TDNN) if model is None else model)
    tensors, description = load_tensors(path)
    changed = {key: value for key, value in (description | change).items() if value is not None}
    save_tensors(path, {name: tensor.clone() for name, tensor in tensors.items()}, changed)
    load_model(path)


OWN = TDNN.model_dump(mode="json", exclude={"kind"})


@pytest.mark.parametrize(
    "change",
    [
        {"tdnn": None},
        {"tdnn": None, "lstm": OWN},
        {"dnn": SHAPES_BEFORE},
        {"tdnn": None, "dnn": SHAPES_BEFORE},
        {"tdnn": None, "shape": OWN | {"kind": "tdnn", "channels": 13}},
        {"shape": OWN | {"kind": "tdnn"}},
        {"tdnn": OWN | {"kind": "dnn"}},
        {"tdnn": OWN | {"kind": "tdnn"}},
        {"tdnn": [OWN]},
        {"tdnn": "tdnn"},
        {"tdnn": OWN | {"channels": 13}},
        {"tdnn": OWN | {"normalisation": "layer"}},
        {"tdnn": OWN | {"normalisation": None}},
        {"tdnn": OWN | {"normalisation": "group"}},
        {"tdnn": OWN | {"offsets": [[-1, 0, 1], [-1, 2, 3]]}},
        {"tdnn": OWN | {"offsets": [[-1, 0, 1], [2, -1]]}},
        {"tdnn": OWN | {"offsets": [[-1, 0, 1], [-1, 10**9]]}},
        {"tdnn": OWN | {"hidden_layers": 2}},
        {"vector_dimension": 3},
        {"vectors": {}},
        {"vector_dimension": -1},
        {"vector_dimension": 2**40},
        {"feature_dimension": 5},
        {"pdf_count": 2**31 - 1},
    ],
)
def test_a_description_that_does_not_fit_is_refused(tmp_path, change):
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not an acoustic model of this version.*; delete"):
        described(tmp_path, change)


def test_a_network_takes_vectors_and_says_how_they_are_computed_or_neither(tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(path, lively(TDNN, 3))
    tensors, description = load_tensors(path)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    plain = {name: tensor for name, tensor in tensors.items() if not name.startswith("vectors.")}
    save_tensors(path, plain, {key: value for key, value in description.items() if key != "vectors"})
    with pytest.raises(CheckpointError, match=r"model\.safetensors: .* takes vectors of 3 values, but has no"):
        load_model(path)
    # Weights of a network without a vector.
    own = {name: tensor for name, tensor in tensors.items() if name.startswith("vectors.")}
    save_tensors(path, lively(TDNN).state_dict() | own, description | {"vector_dimension": 0})
    with pytest.raises(CheckpointError, match=r"model\.safetensors: .* takes no vectors, but has tensors to"):
        load_model(path)


def test_sizes_beyond_any_memory_are_refused_before_anything_of_that_size_is_made(tmp_path):
    large = TdnnConfig(
        offsets=(tuple(range(-100, 101)), *[(0,)] * 49), channels=65_536, hidden_layers=50, hidden_units=65_536
    )
    change = {"tdnn": large.model_dump(mode="json", exclude={"kind"}), "feature_dimension": 2**31 - 1}
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match="not an acoustic model of this version"):
            described(tmp_path, change)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("hidden.0.normalisation.variance", lambda each: each.neg(), "variance is below 0"),
        ("hidden.0.normalisation.variance", lambda each: each.fill_(float("nan")), "not finite"),
        ("hidden.0.normalisation.mean", lambda each: each.fill_(float("inf")), "not finite"),
        ("hidden.0.normalisation.mean", lambda each: each[:-1], r"has shape \[11\], expected \[12\]"),
        ("hidden.0.linear.weight", lambda each: each.T, r"has shape \[12, 12\]|expected"),
        ("hidden.1.linear.weight", lambda each: each.view(12, 2, 12), r"expected \[12, 24\]"),
        ("hidden.2.normalisation.weight", lambda each: each.long(), "type torch.int64"),
        ("hidden.7.linear.bias", lambda _: torch.zeros(3), "unknown tensor 'hidden.7.linear.bias'"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path, name, change, message):
    path = tmp_path / "model.safetensors"
    wide = lively(TDNN.model_copy(update={"offsets": ((-1, 0), (-1, 2))}))
    save_model(path, wide)
    tensors, description = load_tensors(path)
    tensors = {key: value.clone() for key, value in tensors.items()}
    tensors[name] = change(tensors.get(name, torch.zeros(1)))
    save_tensors(path, tensors, description)
    with pytest.raises(CheckpointError, match=rf"model\.safetensors: not an acoustic model .*({message}).*; delete it"):
        load_model(path)
