"""Safetensors files with a JSON description in the header: the one place where they are read and written."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lhuc_asr.base.atomic import write_bytes
from lhuc_asr.base.errors import CheckpointError
from lhuc_asr.base.plain_file import check_plain_file
from lhuc_asr.base.strict_json import parse_json

# safetensors raises the last three for types that torch does not have, and for empty files.
_READING_ERRORS = (SafetensorError, OSError, MemoryError, KeyError, ValueError, AttributeError, RuntimeError, TypeError)

# Length of each of a tensor's axes; None where any length will do.
Shape = tuple[int | None, ...]


def save_tensors(path: Path, tensors: Mapping[str, Tensor], description: Mapping[str, Any] | None = None) -> None:
    """Write named tensors and a description, whole or not at all.

    Args:
        path: The file.
        tensors: Tensors of any shape, on any device.
        description: What the tensors are, as JSON values; None leaves the header without one.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # One key: safetensors orders several at random, and the same tensors would not be the same bytes.
    metadata = None if description is None else {"description": json.dumps(description)}
    # As bytes first: safetensors' own writing of files hides from the caller that the disk is full.
    write_bytes(path, save(plain, metadata))


def load_tensors(
    path: Path, remedy: str = "delete it and run its stage again"
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read named tensors and their description.

    Args:
        path: A file that ``save_tensors`` wrote.
        remedy: What to do about a file that cannot be read, for the message.

    Raises:
        CheckpointError: The file is missing or damaged, or has no description.
    """
    try:
        tensors, description = _read(path)
        if description is None:
            raise ValueError("its header has no description")
        if not isinstance(description, dict):
            raise ValueError(f"its description is a {type(description).__name__}, expected a dict")
    except _READING_ERRORS as error:
        raise CheckpointError(f"{path}: cannot be read ({_line(error)}); {remedy}") from error
    return tensors, description


def load_bare_tensors(path: Path, names: Sequence[str], noun: str, remedy: str) -> dict[str, Tensor]:
    """Read tensors from a file without a description.

    Args:
        path: The file.
        names: Names of the tensors that the file must have.
        noun: What the file should be, with its article, for the message.
        remedy: What to do about a file that cannot be read, for the message.

    Raises:
        CheckpointError: The file is missing or damaged, or lacks a tensor.
    """
    try:
        tensors, _ = _read(path)
        return {name: tensors[name] for name in names}
    except _READING_ERRORS as error:
        raise CheckpointError(f"{path}: not {noun} ({_line(error)}); {remedy}") from error


def check_tensors(path: Path | str, tensors: Mapping[str, Tensor], shapes: Mapping[str, Shape], remedy: str) -> None:
    """Refuse tensors that are not vectors and matrices of finite floating-point numbers, of given names and shapes.

    Args:
        path: File of the tensors, for the message.
        tensors: The tensors.
        shapes: Shape of each tensor that there must be; there must be no others.
        remedy: What to do about a file with other tensors, for the message.

    Raises:
        CheckpointError: A tensor is missing, unknown, of another shape or type, or not finite.
    """
    problem = None
    if missing := shapes.keys() - tensors.keys():
        problem = f"the tensor {min(missing)!r} is missing"
    elif unknown := tensors.keys() - shapes.keys():
        problem = f"unknown tensor {min(unknown)!r}"
    for name in shapes.keys() & tensors.keys() if problem is None else ():
        tensor, shape = tensors[name], shapes[name]
        fits = tensor.dim() == len(shape) and all(n in (None, m) for n, m in zip(shape, tensor.shape, strict=True))
        if not fits:
            expected = ", ".join("any" if length is None else str(length) for length in shape)
            problem = f"{name} has shape {list(tensor.shape)}, expected [{expected}]"
        elif tensor.dtype not in (torch.float32, torch.float64):
            problem = f"{name} has type {tensor.dtype}, expected float32 or float64"
        elif not bool(tensor.isfinite().all()):
            problem = f"{name} is not finite, the file is damaged"
    if problem is not None:
        raise CheckpointError(f"{path}: {problem}; {remedy}")


def read_format(path: Path | str, noun: str = "a safetensors file") -> str | None:
    """The format that a file's description names; None where it names none. Only the header is read.

    Args:
        path: The file.
        noun: What the file should be, with its article, for the messages.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    try:
        check_plain_file(path)
        with safe_open(path, framework="pt") as file:
            description = _description(file)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file") from error
    except _READING_ERRORS as error:
        raise CheckpointError(f"{path}: not {noun}, or damaged ({_line(error)}); copy it again") from error
    return _format(description)


def number_count(path: Path) -> int:
    """How many numbers the tensors of a file have; only the header is read.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    try:
        check_plain_file(path)
        with safe_open(path, framework="pt") as file:
            return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 (not a dict)
    except _READING_ERRORS as error:
        raise CheckpointError(f"{path}: cannot be read ({_line(error)}); adapt the speaker again") from error


def load_format(path: Path | str, noun: str, expected: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file whose description names its format, as one that came from another machine.

    Args:
        path: The file; its tensors are memory-mapped.
        noun: What the file should be, with its article, for the messages: "a speaker's file".
        expected: The format that the description must name.

    Raises:
        CheckpointError: The file is missing or damaged, or has another format.
    """
    try:
        tensors, description = _read(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such {noun.partition(' ')[2]}") from error
    except _READING_ERRORS as error:
        raise CheckpointError(f"{path}: not a safetensors file, or damaged ({_line(error)}); copy it again") from error
    form = _format(description)
    if form != expected:
        raise CheckpointError(f"{path}: expected {noun} of format {expected!r}, found {form!r}")
    return tensors, description


def _read(path: Path | str) -> tuple[dict[str, Tensor], Any]:
    """The tensors, memory-mapped, and the description, if there is one."""
    check_plain_file(path)
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, _description(file)  # noqa: SIM118 (not a dict)


def _description(file: Any) -> Any:
    text = (file.metadata() or {}).get("description")
    return None if text is None else parse_json(text.encode())


def _format(description: Any) -> str | None:
    form = description.get("format") if isinstance(description, dict) else None
    return form if isinstance(form, str) else None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
