"""Acoustic model files: safetensors, with the network's shape in the description."""

from __future__ import annotations

from pathlib import Path

from lhuc_asr.base.config import StrictModel, parse_config
from lhuc_asr.base.documents import Positive
from lhuc_asr.base.errors import CheckpointError, ConfigError
from lhuc_asr.base.tensors import Shape, check_tensors, load_tensors, save_tensors
from lhuc_asr.nnet.acoustic_model import AcousticModel
from lhuc_asr.nnet.dnn import Dnn, DnnConfig

REMEDY = "delete it and run its stage again"


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


class _Description(StrictModel):
    """Description of a network's file."""

    dnn: DnnConfig
    feature_dimension: Positive
    pdf_count: Positive

    def shapes(self) -> dict[str, Shape]:
        """Shapes of the network's tensors, by name."""
        units, inputs = self.dnn.hidden_units, (2 * self.dnn.context + 1) * self.feature_dimension
        shapes: dict[str, Shape] = {"log_prior": (self.pdf_count,)}
        for layer in range(self.dnn.hidden_layers):
            shapes[f"hidden.{layer}.linear.weight"] = (units, units if layer else inputs)
            shapes[f"hidden.{layer}.linear.bias"] = (units,)
        return shapes | {"output.weight": (self.pdf_count, units), "output.bias": (self.pdf_count,)}


def load_model(path: Path) -> Dnn:
    """Read a network, in evaluation mode.

    Raises:
        CheckpointError: The file is damaged, its tensors do not fit its description, or they are not finite.
    """
    tensors, tree = load_tensors(path)
    source = f"{path}: not an acoustic model of this version"
    try:
        description = parse_config(_Description, tree, source)
    except ConfigError as error:
        raise CheckpointError(f"{error}; {REMEDY}") from error
    # Before a network of these sizes is made, which may be larger than any memory.
    layers = description.dnn.hidden_layers
    if len(tensors) != 2 * layers + 3:
        raise CheckpointError(f"{source}: {len(tensors)} tensors for {layers} hidden layers; {REMEDY}")
    check_tensors(source, tensors, description.shapes(), REMEDY)
    model = Dnn(description.dnn, description.feature_dimension, description.pdf_count)
    model.load_state_dict(tensors)
    return model.eval()
