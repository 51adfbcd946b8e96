"""Models and training states as safetensors, each with its description in the header."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from lhuc_asr.base.atomic import write_bytes
from lhuc_asr.base.config import parse_config
from lhuc_asr.base.errors import CheckpointError
from lhuc_asr.nnet.dnn import Dnn, DnnConfig


def save_tensors(path: Path, tensors: dict[str, torch.Tensor], description: dict[str, Any]) -> None:
    """Write named tensors and a JSON description, whole or not at all."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # As bytes first: safetensors' own writing of files hides from the caller that the disk is full.
    write_bytes(path, save(plain, {"description": json.dumps(description)}))


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read named tensors and their description.

    Raises:
        CheckpointError: The file is missing, damaged, or has no description.
    """
    try:
        with safe_open(path, framework="pt") as file:
            description = json.loads((file.metadata() or {})["description"])
            if not isinstance(description, dict):
                raise ValueError(f"its description is a {type(description).__name__}, expected a dict")
            return {name: file.get_tensor(name) for name in file.keys()}, description  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); delete it and run its stage again") from error


def save_model(path: Path, model: Dnn) -> None:
    """Write a network with its shape."""
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
