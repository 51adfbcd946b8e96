"""Acoustic model files: safetensors, with the network's shape in the description."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from lhuc_asr.base.config import StrictModel, parse_config
from lhuc_asr.base.documents import Positive
from lhuc_asr.base.errors import CheckpointError, ConfigError
from lhuc_asr.base.tensors import Shape, check_tensors, load_tensors, save_tensors
from lhuc_asr.features.context import Splicing
from lhuc_asr.nnet.acoustic_model import AcousticModel
from lhuc_asr.nnet.dnn import Dnn, DnnConfig
from lhuc_asr.nnet.vector_tensors import VectorTensors

REMEDY = "delete it and run its stage again"

PlainName = Annotated[str, Field(pattern=r"^[a-z_]+$", max_length=100)]


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
            **({} if model.vectors is None else {"vector": _vector(model, model.vectors)}),
        },
    )


def _vector(model: AcousticModel, vectors: VectorTensors) -> dict[str, object]:
    shapes = {name: list(tensor.shape) for name, tensor in vectors.by_name().items()}
    return {"dimension": model.vector_dimension, "tensors": shapes}


class _Vector(StrictModel):
    """What a file says of the vector of the speaker that the network takes."""

    dimension: Positive
    tensors: dict[PlainName, tuple[Positive, ...]]


class _Description(StrictModel):
    """Description of a network's file."""

    dnn: DnnConfig
    feature_dimension: Positive
    pdf_count: Positive
    vector: _Vector | None = None

    def shapes(self) -> dict[str, Shape]:
        """Shapes of the network's tensors, by name."""
        vector = 0 if self.vector is None else self.vector.dimension
        units, inputs = self.dnn.hidden_units, Splicing(self.dnn.context, self.feature_dimension, vector).width
        shapes: dict[str, Shape] = {"log_prior": (self.pdf_count,)}
        for layer in range(self.dnn.hidden_layers):
            shapes[f"hidden.{layer}.linear.weight"] = (units, units if layer else inputs)
            shapes[f"hidden.{layer}.linear.bias"] = (units,)
        own = {} if self.vector is None else self.vector.tensors
        shapes |= {f"vectors.{name}": shape for name, shape in own.items()}
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
    layers, vector = description.dnn.hidden_layers, description.vector
    if len(tensors) != 2 * layers + 3 + len(() if vector is None else vector.tensors):
        raise CheckpointError(f"{source}: {len(tensors)} tensors for {layers} hidden layers; {REMEDY}")
    check_tensors(source, tensors, description.shapes(), REMEDY)
    dimensions = description.feature_dimension, description.pdf_count, 0 if vector is None else vector.dimension
    model = Dnn(description.dnn, *dimensions)
    if vector is not None:
        model.vectors = VectorTensors({name: tensors[f"vectors.{name}"] for name in vector.tensors})
    model.load_state_dict(tensors)
    return model.eval()
