"""Paths in a configuration: absolute from the moment it is read, and those of inputs checked before any work.

A recipe's relative paths are meant from the folder of the command. They are written to an experiment's ``config.yaml``
as absolute ones, so that other verbs can use them from any folder.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator

from lhuc_asr.base.errors import ConfigError


def local_path(value: Any) -> Any:
    """An absolute path, with ``~`` at its beginning written out; what is not a path is returned as it is.

    Links stay in the path, except where the path goes up again with ``..``.

    Raises:
        ValueError: The path is empty, is not UTF-8, contains a control character, or leads nowhere.
    """
    if not isinstance(value, str | Path):
        return value
    text = str(value)
    if not text:
        raise ValueError("the path is empty; write . for the folder of the command, or leave the key out")
    # Controls would break messages and tables; Python has bytes that are not UTF-8 as half pairs of characters.
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise ValueError("the path has a control character, or is not UTF-8; rename the file or folder")
    try:
        path = Path(text).expanduser().absolute()
        return path.resolve() if ".." in path.parts else path
    except (RuntimeError, OSError) as error:  # an unknown user; links in a circle, a folder that was deleted
        raise ValueError(f"the path leads nowhere: {error}") from error


@dataclass(frozen=True)
class Input:
    """Annotation of a path that must exist before any work begins.

    Attributes:
        kind: What has to be there.
    """

    kind: Literal["file", "folder"]


def place(value: Any) -> Any:
    """The URL of a store as it is, without a slash at its end, and a path as an absolute one, both as text.

    Raises:
        ValueError: As of ``local_path``.
    """
    if isinstance(value, str) and "://" in value:
        return value.rstrip("/")
    path = local_path(value)
    return str(path) if isinstance(path, Path) else path


# A folder, or a store such as ``s3://BUCKET/PREFIX``.
Place = Annotated[str, BeforeValidator(place)]
LocalPath = Annotated[Path, BeforeValidator(local_path)]
InputFile = Annotated[LocalPath, Input("file")]
InputFolder = Annotated[LocalPath, Input("folder")]


def check_inputs(config: BaseModel) -> None:
    """Refuse missing input files and folders, all in one message.

    Raises:
        ConfigError: A path that the configuration names is not there, cannot be read, or is of the other kind.
    """
    faults = [f"{key}: {path}: {fault}" for key, path, kind in _inputs("", config, ()) if (fault := _fault(path, kind))]
    if faults:
        raise ConfigError(f"{'; '.join(faults)}; correct the path in the recipe")


def _inputs(key: str, value: Any, notes: tuple[Any, ...]) -> Iterator[tuple[str, Path, str]]:
    """Key, path and kind of every input in a value, whose annotations are ``notes``."""
    if isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            inner = f"{key}.{name}" if key else name
            yield from _inputs(inner, getattr(value, name), (field.annotation, *field.metadata))
    elif isinstance(value, dict):
        for name, each in value.items():
            yield from _inputs(f"{key}.{name}", each, notes)
    elif isinstance(value, tuple):
        for each in value:
            yield from _inputs(key, each, notes)
    elif isinstance(value, Path):
        yield from ((key, value, note.kind) for note in _flat(notes) if isinstance(note, Input))


def _flat(notes: Any) -> Iterator[Any]:
    """Annotations, and those inside them."""
    for note in notes:
        yield note
        yield from _flat(get_args(note))


def _fault(path: Path, kind: str) -> str | None:
    """Why an input cannot be used; None where it can."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return f"no such {kind}"
    except OSError as error:
        return str(error.strerror)
    if kind == "file" and not stat.S_ISREG(mode):
        return "is a folder, expected a file" if stat.S_ISDIR(mode) else "is not a regular file"
    if kind == "folder" and not stat.S_ISDIR(mode):
        return "is a file, expected a folder"
    return None if os.access(path, os.R_OK) else "cannot be read, permission is missing"
