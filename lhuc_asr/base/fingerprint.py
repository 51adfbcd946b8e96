"""The state of files that a result depends on: names, sizes and modification times, never contents.

Reading the contents of a thousand hours of recordings would take too long. Linked files and folders are followed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

# Path, bytes and modification time in nanoseconds; the last two are None if the file is missing.
FileState = tuple[str, int | None, int | None]


def fingerprint(paths: Iterable[Path]) -> str:
    """Hash of the state of files, and of all files in folders.

    Args:
        paths: Files and folders; a missing one is part of the hash too.

    Returns:
        SHA-256, hexadecimal.
    """
    states = (file_state(file) for path in paths for file in (files_below(path) if path.is_dir() else [path]))
    return hash_of(states)


def file_state(path: Path) -> FileState:
    """Path, size and modification time of a file; for a link, the size and time are its target's."""
    try:
        status = path.stat()
    except OSError:  # missing, or a link to nowhere
        return str(path), None, None
    return str(path), status.st_size, status.st_mtime_ns


def hash_of(states: Iterable[FileState]) -> str:
    """SHA-256 of the states of files, hexadecimal."""
    digest = hashlib.sha256()
    for name, size, changed in states:
        digest.update(f"{name}\n".encode() if size is None else f"{name} {size} {changed}\n".encode())
    return digest.hexdigest()


def files_below(folder: Path) -> Iterator[Path]:
    """All files in a folder and the folders below it, linked ones too, sorted.

    A link back to one of its parent folders is not followed, because that would never end.
    """
    yield from sorted(_files_below(folder, frozenset()))


def _files_below(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    """Files below a folder, given the resolved folders that contain it."""
    above |= {folder.resolve()}
    try:
        paths = list(folder.iterdir())
    except PermissionError:  # such as lost+found of a disk: nothing in there can be read anyway
        return
    for path in paths:
        if not path.is_dir():
            yield path
        elif not (path.is_symlink() and path.resolve() in above):
            yield from _files_below(path, above)
