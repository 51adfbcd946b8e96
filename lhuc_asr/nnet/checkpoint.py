"""Acoustic model files: safetensors, with the network's shape in the description, under the name of its kind."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from lhuc_asr.base.config import StrictModel, parse_config
from lhuc_asr.base.documents import Count, Positive
from lhuc_asr.base.errors import CheckpointError, ConfigError
from lhuc_asr.base.tensors import Shape, check_tensors, load_tensors, save_tensors
from lhuc_asr.nnet.acoustic_model import AcousticModel
from lhuc_asr.nnet.layered_network import LayeredNetwork
from lhuc_asr.nnet.normalisation import check_variances
from lhuc_asr.nnet.shapes import SHAPES, AnyShape
from lhuc_asr.nnet.vector_tensors import PREFIX, VectorTensors

REMEDY = "delete it and run its stage again"
# Prefix of the tensors that speakers' vectors are computed with.
VECTORS = f"vectors.{PREFIX}"
PlainName = Annotated[str, Field(pattern=r"^[a-z_]+$", max_length=100)]


def save_model(path: Path, model: AcousticModel) -> None:
    """Write a network and its shape, whole or not at all.

    Raises:
        CheckpointError: The network is of a class that ``load_model`` does not know.
    """
    if not isinstance(model, LayeredNetwork) or type(model.config) not in SHAPES.values():
        raise CheckpointError(f"{path}: a {type(model).__name__} cannot be saved; expected one of {', '.join(SHAPES)}")
    # Without None and without a vector that it does not take: the file of an older network is the same to the bit.
    shape = model.config.model_dump(mode="json", exclude={"kind"}, exclude_none=True)
    description: dict[str, Any] = {
        model.config.kind_name: shape,
        "feature_dimension": model.feature_dimension,
        "pdf_count": model.pdf_count,
    }
    if model.vector_dimension:
        description["vector_dimension"] = model.vector_dimension
    if model.vectors is not None:
        description["vectors"] = {name: list(tensor.shape) for name, tensor in model.vectors.by_name().items()}
    save_tensors(path, model.state_dict(), description)


class _Description(StrictModel):
    """Description of a network's file, the shape with its kind."""

    shape: AnyShape
    feature_dimension: Positive
    pdf_count: Positive
    vector_dimension: Count = 0
    vectors: Annotated[dict[PlainName, tuple[Positive, ...]], Field(min_length=1)] | None = None

    def tensors(self) -> dict[str, Shape]:
        """Shapes of the file's tensors, by name."""
        network = self.shape.tensors(self.feature_dimension, self.pdf_count, self.vector_dimension)
        return network | {f"{VECTORS}{name}": shape for name, shape in (self.vectors or {}).items()}


def load_model(path: Path) -> LayeredNetwork:
    """Read a network, in evaluation mode.

    Raises:
        CheckpointError: The file is damaged, its tensors do not fit its description, or they are not finite.
    """
    tensors, tree = load_tensors(path)
    source = f"{path}: not an acoustic model of this version"
    try:
        description = parse_config(_Description, _with_kind(tree), source)
    except ConfigError as error:
        raise CheckpointError(f"{error}; {REMEDY}") from error
    # Before a network of these sizes is made, which may be larger than any memory.
    check_tensors(source, tensors, description.tensors(), REMEDY)
    check_variances(source, tensors, REMEDY)
    _check_vectors(source, description)
    model = description.shape.make(description.feature_dimension, description.pdf_count, description.vector_dimension)
    if description.vectors is not None:
        own = {name: tensors[f"{VECTORS}{name}"] for name in description.vectors}
        model.vectors = VectorTensors(own, str(path))
    model.load_state_dict(tensors)
    return model.eval()


def _check_vectors(source: str, description: _Description) -> None:
    """Refuse a network that takes vectors and does not say how they are computed, or the other way round.

    Raises:
        CheckpointError: The network is one of these.
    """
    if description.vector_dimension and description.vectors is None:
        problem = f"takes vectors of {description.vector_dimension} values, but has no tensors to compute them with"
    elif description.vectors is not None and not description.vector_dimension:
        problem = "takes no vectors, but has tensors to compute them with"
    else:
        return
    raise CheckpointError(f"{source}: {problem}; {REMEDY}")


def _with_kind(tree: dict[str, Any]) -> dict[str, Any]:
    """A file's description with the shape under ``shape``; as it is where it does not name one kind."""
    kinds = tree.keys() & SHAPES.keys()
    if len(kinds) != 1 or "shape" in tree:
        return tree
    (kind,) = kinds
    shape = tree[kind]
    if not isinstance(shape, dict) or "kind" in shape:
        return tree
    return {key: value for key, value in tree.items() if key != kind} | {"shape": {"kind": kind, **shape}}
