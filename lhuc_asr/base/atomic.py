"""Files and folders that appear whole or not at all: made in a private folder beside the target, fsynced, and renamed.

The two formats that all rooms share are here too: JSON and JSON lines.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from io import RawIOBase
from pathlib import Path
from typing import Any

from lhuc_asr.base.errors import LhucError, OutputError
from lhuc_asr.base.outputs import (
    INTACT,
    behind_links,
    copy_permissions,
    copy_to_stream,
    is_stream,
    named,
    nameless_file,
    state_of,
)
from lhuc_asr.base.partial import NEW, move_without_replacing, private_folder, put_in_place
from lhuc_asr.base.plain_file import check_plain_file
from lhuc_asr.base.strict_json import parse_json

# Bytes that are read at a time from the end of a file.
BLOCK_BYTES = 1 << 16


class DamagedFileError(LhucError, ValueError):
    """A JSON or JSON-lines file cannot be read back."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path to write to; what is there replaces ``path`` when the block ends without an exception.

    After an exception ``path`` is as it was before. A new file has the mode that the user's umask gives it, one that
    replaces another has the mode of that. Where ``path`` is a link, what it names is replaced. A device or a pipe,
    such as ``/dev/stdout``, is written to.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    with named(path):
        target = behind_links(path)
        old = state_of(target)
        if old is not None and stat.S_ISDIR(old.st_mode):
            raise OutputError(f"{path}: is a folder; name a file")
    if is_stream(target, old):
        with nameless_file() as temporary:
            with named(path, own=False):
                yield temporary
            with named(path):
                copy_to_stream(temporary, target, old)
        return
    with _beside(path, target) as new:
        with named(path, own=False):
            yield new
        with named(path):
            _settle(new, old)
            os.replace(new, target)
            _fsync_folder(target.parent)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """An empty folder to fill; it replaces ``path`` when the block ends without an exception.

    The old folder is whole until the new one stands in its place; see ``partial.py``. Modes are kept, of the folder and
    of the files that the old folder has too. Where ``path`` is a link, the folder that it names is replaced.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    with named(path):
        target = behind_links(path)
        old = state_of(target)
        if old is not None and not stat.S_ISDIR(old.st_mode):
            raise OutputError(f"{path}: is not a folder; choose another place")
        if not target.name or os.path.ismount(target):
            raise OutputError(f"{path}: a disk's own folder cannot be replaced; name a folder in it")
    with _beside(path, target) as new:
        new.mkdir()
        with named(path, own=False):
            yield new
        with named(path):
            for inner in new.rglob("*"):
                if not inner.is_symlink():
                    _settle(inner, _same_kind(inner, target / inner.relative_to(new)))
            _settle(new, old)
            put_in_place(new, target)
            _fsync_folder(target.parent)


@contextmanager
def atomic_additions(folder: Path) -> Iterator[Path]:
    """An empty folder to fill with files; they are moved to ``folder`` when the block ends without an exception.

    All of them are moved or none, and none takes the place of a file that is there.

    Raises:
        OutputError: A file of that name is there, or the files cannot be written.
    """
    with named(folder):
        is_new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with _beside(folder, behind_links(folder) / NEW) as new:
            new.mkdir()
            with named(folder, own=False):
                yield new
            with named(folder):
                files = sorted(new.iterdir())
                for file in files:
                    _settle(file, None)
                _move_all(files, folder)
    except BaseException:
        if is_new:
            with suppress(OSError):
                folder.rmdir()
        raise


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


def append_json_line(path: Path, row: dict[str, Any]) -> None:
    """Append one JSON object to a file of JSON lines, whole or not at all.

    Half a line that a full disk left at the end of the file is removed first.

    Raises:
        OutputError: The file cannot be written.
    """
    line = (json.dumps(row, ensure_ascii=False) + "\n").encode()
    with named(path), path.open("ab+", buffering=0) as file:
        end = _end_of_lines(file)
        if end < file.seek(0, os.SEEK_END):
            file.truncate(end)
        # In one call, which a signal does not cut in two.
        if file.write(line) < len(line):
            file.truncate(end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


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


def _end_of_lines(file: RawIOBase) -> int:
    """Position behind the last line break of a file, 0 if it has none."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - BLOCK_BYTES)
        file.seek(start)
        if (position := (file.read(end - start) or b"").rfind(b"\n")) >= 0:
            return start + position + 1
        end = start
    return 0


def _parsed(content: bytes, where: str) -> Any:
    try:
        return parse_json(content)
    except ValueError as error:
        raise DamagedFileError(f"{where}: not valid JSON ({error}); delete the file and run again") from error


@contextmanager
def _beside(path: Path, target: Path) -> Iterator[Path]:
    """A temporary path in a private folder beside ``target``, the place that ``path`` names behind its links."""
    with ExitStack() as stack:
        with named(path):
            if os.path.lexists(path.parent) and not path.parent.is_dir():
                raise OutputError(f"{path}: {path.parent} is not a folder; choose another place; {INTACT}")
            path.parent.mkdir(parents=True, exist_ok=True)
            place = stack.enter_context(private_folder(target.parent))
        yield place / NEW


def _move_all(files: Sequence[Path], folder: Path) -> None:
    """Move files to names in a folder that are free: all, or none."""
    moved: list[tuple[Path, os.stat_result]] = []
    try:
        for file in files:
            state = os.lstat(file)
            move_without_replacing(file, folder / file.name)
            moved.append((folder / file.name, state))
        _fsync_folder(folder)
    except BaseException:
        for target, state in moved:
            with suppress(OSError):
                # Not one that another writer has put there since.
                if os.path.samestat(os.lstat(target), state):
                    target.unlink()
        raise


def _settle(new: Path, old: os.stat_result | None) -> None:
    """Give a file or a folder the permissions of the one that it replaces, and bring it to the disk."""
    if os.name == "nt" and new.is_dir():  # where a folder cannot be opened
        return
    descriptor = os.open(new, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        if old is not None:
            copy_permissions(old, descriptor)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _same_kind(new: Path, old: Path) -> os.stat_result | None:
    """The state of an old file or folder that a new one of the same kind replaces."""
    try:
        state = os.lstat(old)
    except (FileNotFoundError, NotADirectoryError):
        return None
    of_kind = stat.S_ISDIR if new.is_dir() else stat.S_ISREG
    return state if of_kind(state.st_mode) else None


def _fsync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    if os.name == "nt":  # where a folder cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot do this for folders; names are then as safe as they can make them.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
