"""Safetensors files with a JSON description in the header: the one place where they are read and written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lhuc_asr.base.atomic import write_bytes
from lhuc_asr.base.errors import CheckpointError

_READING_ERRORS = (SafetensorError, OSError, MemoryError, KeyError, ValueError, RecursionError)


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
        tensors, text = _read(path)
        if text is None:
            raise ValueError("its header has no description")
        description = json.loads(text)
        if not isinstance(description, dict):
            raise ValueError(f"its description is a {type(description).__name__}, expected a dict")
    except _READING_ERRORS as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); {remedy}") from error
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
        raise CheckpointError(f"{path}: not {noun} ({error}); {remedy}") from error


def read_format(path: Path | str, noun: str = "a safetensors file") -> str | None:
    """The format that a file's description names; None where it names none. Only the header is read.

    Args:
        path: The file.
        noun: What the file should be, with its article, for the messages.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            description = json.loads((file.metadata() or {}).get("description", "{}"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file") from error
    except _READING_ERRORS as error:
        raise CheckpointError(f"{path}: not {noun}, or damaged ({error}); copy it again") from error
    return description.get("format") if isinstance(description, dict) else None


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
        tensors, text = _read(path)
        description = json.loads(text or "{}")
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such {noun.partition(' ')[2]}") from error
    except _READING_ERRORS as error:
        raise CheckpointError(f"{path}: not a safetensors file, or damaged ({error}); copy it again") from error
    form = description.get("format") if isinstance(description, dict) else None
    if form != expected:
        raise CheckpointError(f"{path}: expected {noun} of format {expected!r}, found {form!r}")
    return tensors, description


def _read(path: Path | str) -> tuple[dict[str, Tensor], str | None]:
    """The tensors, memory-mapped, and the text of the description."""
    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get("description")
        return {name: file.get_tensor(name) for name in file.keys()}, text  # noqa: SIM118 (not a dict)
