"""Acoustic model files: safetensors, with the network's shape in the description."""

from __future__ import annotations

from pathlib import Path

from lhuc_asr.base.config import parse_config
from lhuc_asr.base.errors import CheckpointError
from lhuc_asr.base.tensors import load_tensors, save_tensors
from lhuc_asr.nnet.acoustic_model import AcousticModel
from lhuc_asr.nnet.dnn import Dnn, DnnConfig


def save_model(path: Path, model: AcousticModel) -> None:
    """Write a network and its shape, whole or not at all.

    Raises:
        CheckpointError: The network is of a class that ``load_model`` does not know.
    """
    if not isinstance(model, Dnn):
        raise CheckpointError(f"{path}: a {type(model).__name__} cannot be saved; expected a {Dnn.__name__}")
    save_tensors(
        path,
        model.state_dict(),
        {
            "dnn": model.config.model_dump(mode="json"),
            "feature_dimension": model.feature_dimension,
            "pdf_count": model.pdf_count,
        },
    )


def load_model(path: Path) -> Dnn:
    """Read a network, in evaluation mode.

    Raises:
        CheckpointError: The file is damaged, or its tensors do not fit its description.
    """
    tensors, description = load_tensors(path)
    try:
        config = parse_config(DnnConfig, description["dnn"], str(path))
        model = Dnn(config, description["feature_dimension"], description["pdf_count"])
        model.load_state_dict(tensors)
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path}: not an acoustic model of this version: {error}") from error
    return model.eval()
