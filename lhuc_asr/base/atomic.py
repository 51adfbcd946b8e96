"""Files that appear whole or not at all: written to a temporary file next to the target, fsynced, and renamed.

The two formats that all rooms share are here too: JSON and JSON lines.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lhuc_asr.base.errors import LhucError
from lhuc_asr.base.plain_file import check_plain_file
from lhuc_asr.base.strict_json import parse_json


class DamagedFileError(LhucError, ValueError):
    """A JSON or JSON-lines file cannot be read back."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to; it replaces ``path`` when the block ends without an exception.

    After an exception ``path`` is as it was before, and the temporary file is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The same name in every run, so that the file of a killed run is overwritten and does not linger.
    temporary = path.with_name(f".{path.name}.partial")
    try:
        yield temporary
        _fsync(temporary)
        os.replace(temporary, path)
        _fsync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside ``path`` to fill; it replaces ``path`` when the block ends without an exception.

    Replacing an existing folder takes two renames: the old folder makes way, then the new one takes its place. If the
    second fails, the old folder is put back. If the process is killed between the two, ``path`` is missing until its
    next ``atomic_folder``, which puts the old folder back first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    old = path.with_name(f".{path.name}.old")
    _put_back(old, path)
    for left in (temporary, old):
        shutil.rmtree(left, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _fsync(file)
        if path.exists():
            os.replace(path, old)
        os.replace(temporary, path)
        _fsync(path.parent)
    finally:
        _put_back(old, path)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Write one JSON value, whole or not at all.

    Raises:
        ValueError: The value contains NaN or infinity, which JSON does not have.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_json_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object per line, whole or not at all.

    Raises:
        ValueError: A row contains NaN or infinity, which JSON does not have.
    """
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read one JSON value.

    Raises:
        DamagedFileError: The file is not JSON.
        OSError: The file is missing, or not a file on disk.
    """
    check_plain_file(path)
    return _parsed(path.read_bytes(), str(path))


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read one JSON object per line.

    Raises:
        DamagedFileError: A line is not a JSON object; the message names it.
        OSError: The file is missing, or not a file on disk.
    """
    check_plain_file(path)
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            row = _parsed(line, f"{path}:{number}")
            if not isinstance(row, dict):
                raise DamagedFileError(
                    f"{path}:{number}: expected a JSON object, found {type(row).__name__}; "
                    "delete the file and run again"
                )
            yield row


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as 64 hex digits.

    Raises:
        FileNotFoundError: The file is missing.
        OSError: It is not a file on disk, or cannot be read.
    """
    check_plain_file(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parsed(content: bytes, where: str) -> Any:
    try:
        return parse_json(content)
    except ValueError as error:
        raise DamagedFileError(f"{where}: not valid JSON ({error}); delete the file and run again") from error


def _put_back(old: Path, path: Path) -> None:
    """Undo the first of the two renames of ``atomic_folder`` if the second did not follow."""
    if old.exists() and not path.exists():
        os.replace(old, path)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
