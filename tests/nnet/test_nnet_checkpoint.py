"""Files of networks: the same bits when they are read, and errors for damaged and foreign files."""

import pytest
import torch

from lhuc_asr.base.errors import CheckpointError
from lhuc_asr.base.tensors import save_tensors
from lhuc_asr.nnet.checkpoint import load_model, save_model
from lhuc_asr.nnet.dnn import Dnn, DnnConfig


@pytest.fixture
def model() -> Dnn:
    made = Dnn(DnnConfig(hidden_layers=2, hidden_units=5, activation="relu", dropout=0.1, context=2), 3, 4)
    made.initialise(torch.Generator().manual_seed(0))
    made.log_prior.copy_(torch.log_softmax(torch.randn(4, generator=torch.Generator().manual_seed(1)), 0))
    return made


def test_a_network_comes_back_bit_for_bit(tmp_path, model):
    save_model(tmp_path / "model.safetensors", model)
    loaded = load_model(tmp_path / "model.safetensors")
    assert loaded.config == model.config
    assert (loaded.feature_dimension, loaded.pdf_count) == (3, 4)
    assert not loaded.training
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "text", "folder"])
def test_a_damaged_file_is_refused(tmp_path, model, damage):
    path = tmp_path / "model.safetensors"
    save_model(path, model)
    data = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes({"empty": b"", "cut": data[:-4], "text": b"no tensors are here, only words"}[damage])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: cannot be read .*run its stage again"):
        load_model(path)


@pytest.mark.parametrize(
    "description",
    [
        {},
        {"dnn": {"hidden_layers": 0}, "feature_dimension": 3, "pdf_count": 4},
        {"dnn": {"unheard_of": 1}, "feature_dimension": 3, "pdf_count": 4},
        {"dnn": {"hidden_layers": 2, "hidden_units": 5}, "feature_dimension": 3, "pdf_count": 9},
        {"dnn": {"hidden_layers": 2, "hidden_units": 5}, "feature_dimension": "wide", "pdf_count": 4},
        # Larger than any memory, and layers without number: refused before a network of this size is made.
        {"dnn": {"hidden_layers": 2, "hidden_units": 10**6}, "feature_dimension": 10**6, "pdf_count": 4},
        {"dnn": {"hidden_layers": 10**6, "hidden_units": 5}, "feature_dimension": 3, "pdf_count": 4},
        {"dnn": {"hidden_layers": 2, "hidden_units": 5, "context": 3}, "feature_dimension": 3, "pdf_count": -4},
        {"dnn": [], "feature_dimension": 3, "pdf_count": 4},
    ],
)
def test_a_description_that_does_not_fit_is_refused(tmp_path, model, description):
    path = tmp_path / "model.safetensors"
    save_tensors(path, model.state_dict(), description)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not an acoustic model of this version"):
        load_model(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensor: tensor.fill_(float("nan")), "hidden.0.linear.bias is not finite"),
        (lambda tensor: tensor.long(), r"hidden.0.linear.bias has type torch.int64"),
        (lambda tensor: tensor.reshape(1, 5), r"hidden.0.linear.bias has shape \[1, 5\], expected \[5\]"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path, model, change, message):
    path = tmp_path / "model.safetensors"
    tensors = model.state_dict()
    tensors["hidden.0.linear.bias"] = change(tensors["hidden.0.linear.bias"].clone())
    description = {"dnn": model.config.model_dump(mode="json"), "feature_dimension": 3, "pdf_count": 4}
    save_tensors(path, tensors, description)
    with pytest.raises(CheckpointError, match=rf"model\.safetensors: not an acoustic model .*{message}.*; delete it"):
        load_model(path)
