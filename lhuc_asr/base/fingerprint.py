"""The files that a result depends on: whether they have changed since it was made.

A file is the same if its content is: a copy, a restored backup and ``touch`` are not changes, and a file that changes
under its old size and time is one. Contents are read again only where a file's times differ from those at which it was
last read. Linked files and folders are followed.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lhuc_asr.base.atomic import sha256_of

# A file that was written this shortly before it was read may be written again without a change of its times: on FAT
# they are two seconds coarse.
COARSEST_TIME_NANOSECONDS = 2 * 10**9

# Path, bytes, and modification time in nanoseconds or the hash of the content; the last two are None if the file is
# missing.
FileState = tuple[str, int | None, int | str | None]


@dataclass(frozen=True)
class InputFiles:
    """Files that a stage reads: tables, texts, dictionaries.

    Attributes:
        paths: Files and folders; of a folder, all files below it.
        by_name: Endings of files in the folders that count by their names alone, in lower case; the stage itself names
            those whose contents it has read.
        versions: What changes when other files change, such as those of a store.
    """

    paths: tuple[Path, ...]
    by_name: frozenset[str] = frozenset()
    versions: tuple[str, ...] = ()

    def contents(self) -> str:
        """SHA-256 of the names and contents of the files, and of the versions; a missing file counts too."""
        digest = hashlib.sha256()
        for number, path in enumerate(self.paths):
            for file in files_below(path) if path.is_dir() else [path]:
                only_named = file != path and file.suffix.lower() in self.by_name
                content = None if only_named else content_of(file)
                name = os.fsencode(file.relative_to(path)) if file != path else b""
                digest.update(b"%d %s\0%s\n" % (number, name, (content or "").encode()))
        for version in self.versions:
            digest.update(b"version %s\n" % os.fsencode(version))
        return digest.hexdigest()


def content_of(path: Path) -> str | None:
    """SHA-256 of a file, hexadecimal; None for one that is missing, unreadable, or not a regular file (a pipe)."""
    try:
        return sha256_of(path) if stat.S_ISREG(path.stat().st_mode) else None
    except OSError:
        return None


def times_of(path: Path) -> tuple[int, int, int] | None:
    """Times at which a file's content and its status changed, in nanoseconds, and the file's number on its disk.

    The second time cannot be set back. The number tells apart files that were made in one tick of the file system's
    clock, one of which takes the place of the other when their folders are renamed.

    Returns:
        None where they say nothing: about a missing file, and about one that has just been written. It may be written
        again before the clock moves.
    """
    try:
        status = path.stat()
    except OSError:
        return None
    settled = max(status.st_mtime_ns, status.st_ctime_ns) < time.time_ns() - COARSEST_TIME_NANOSECONDS
    return (status.st_mtime_ns, status.st_ctime_ns, status.st_ino) if settled else None


def fingerprint(paths: Iterable[Path]) -> str:
    """Hash of the state of files, and of all files in folders.

    Args:
        paths: Files and folders; a missing one is part of the hash too.

    Returns:
        SHA-256, hexadecimal.
    """
    states = (file_state(file) for path in paths for file in (files_below(path) if path.is_dir() else [path]))
    return hash_of(states)


def file_state(path: Path) -> tuple[str, int | None, int | None]:
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
        digest.update(os.fsencode(name) + (b"\n" if size is None else f" {size} {changed}\n".encode()))
    return digest.hexdigest()


def _leave_out(folder: Path) -> None:
    """Such as lost+found of a disk: nothing in there can be read anyway."""


def files_below(folder: Path, on_unreadable: Callable[[Path], None] = _leave_out) -> Iterator[Path]:
    """All files in a folder and the folders below it, linked ones too, sorted.

    A link back to one of its parent folders is not followed, because that would never end.

    Args:
        folder: The folder.
        on_unreadable: Called with each folder that may not be read, before it is left out.
    """
    yield from sorted(_files_below(folder, frozenset(), on_unreadable))


def _files_below(folder: Path, above: frozenset[Path], on_unreadable: Callable[[Path], None]) -> Iterator[Path]:
    """Files below a folder, given the resolved folders that contain it."""
    above |= {folder.resolve()}
    try:
        paths = list(folder.iterdir())
    except PermissionError:
        on_unreadable(folder)
        return
    for path in paths:
        if not path.is_dir():
            yield path
        elif not (path.is_symlink() and path.resolve() in above):
            yield from _files_below(path, above, on_unreadable)
