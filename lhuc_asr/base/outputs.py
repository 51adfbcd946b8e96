"""What a path names that is to be written: behind its links, a place for a file or a folder, or a device."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lhuc_asr.base.errors import OutputError
from lhuc_asr.base.partial import PREFIX

# Linux follows at most so many links in one path.
MOST_LINKS = 40
INTACT = "what was finished before is intact"
# A full disk; these errors of the system come without the name of a file.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ENAMETOOLONG}


def behind_links(path: Path) -> Path:
    """The path that a chain of links ends at, whether it is there or not; the path itself if it is not a link.

    Raises:
        OSError: The links go round in a circle.
    """
    for _ in range(MOST_LINKS):
        path = Path(os.path.realpath(path.parent), path.name) if path.name != ".." else Path(os.path.realpath(path))
        # The links in there lead to open files and not to the names that they show.
        if path.is_relative_to("/proc") or not path.is_symlink():
            return path
        path = path.parent / os.readlink(path)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def state_of(path: Path) -> os.stat_result | None:
    """The state of what is there, after links; None if nothing is."""
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def is_stream(path: Path, state: os.stat_result | None) -> bool:
    """Whether a path (without links) must be written to as it is: a device, a pipe, or a file that is open already."""
    if path.is_relative_to("/proc"):
        return True
    return state is not None and not stat.S_ISREG(state.st_mode) and not stat.S_ISDIR(state.st_mode)


def copy_to_stream(source: Path, target: Path, state: os.stat_result | None) -> None:
    """Write a file's content to a device, a pipe, or an open file (such as ``/dev/stdout``), where that stands.

    Raises:
        OutputError: The target is a disk.
    """
    if state is not None and stat.S_ISBLK(state.st_mode):
        raise OutputError(f"{target}: is a disk, and would lose all that is on it; name a file")
    own = Path(f"/proc/{os.getpid()}/fd")
    # A copy of the open file writes on where that is; to open it anew would begin at its start.
    opened = os.dup(int(target.name)) if target.parent == own else os.open(target, os.O_WRONLY | os.O_NOCTTY)
    with source.open("rb") as read, os.fdopen(opened, "wb") as written:
        shutil.copyfileobj(read, written)


@contextmanager
def nameless_file() -> Iterator[Path]:
    """The path of an empty temporary file that has no name in any folder: it is gone when the process ends, however.

    The path can be opened as often as needed, also by a child process that inherits the file's descriptor, which is
    the path's name.

    Raises:
        OutputError: There is no folder for temporary files.
    """
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115 (the with statement is below, outside the try)
    except OSError as error:
        raise OutputError(
            f"a temporary file cannot be made ({error.strerror}); set TMPDIR to a folder that has space"
        ) from error
    with file:
        yield Path("/dev/fd", str(file.fileno()))


def copy_permissions(old: os.stat_result, opened: int) -> None:
    """Give an open file or folder the mode, and as far as this user may the owner, of the one that it replaces."""
    if os.name == "nt":  # permissions there are the folder's
        return
    new = os.fstat(opened)
    for mine, theirs, owner in ((new.st_gid, old.st_gid, (-1, old.st_gid)), (new.st_uid, old.st_uid, (old.st_uid, -1))):
        if mine != theirs:
            with suppress(PermissionError):
                os.fchown(opened, *owner)
    kept = 0o7777 if stat.S_ISDIR(old.st_mode) else 0o777
    os.fchmod(opened, old.st_mode & kept)


@contextmanager
def named(path: Path, *, own: bool = True) -> Iterator[None]:
    """Turn the system's errors into one that names the path.

    Args:
        path: The path that is to be written, as the user gave it.
        own: Whether every error in the block is about the path. If not, as where the caller's code runs, an error is
            if it names a file in a private folder, or says that a disk is full and names nothing.

    Raises:
        OutputError: The path cannot be written.
    """
    try:
        if "\0" in str(path):
            raise OutputError(f"{path}: a name cannot contain the character NUL; choose another")
        yield
    except OSError as error:
        # Copying names the source first and the copy second.
        names = [os.fsdecode(each) for each in (error.filename2, error.filename) if isinstance(each, str | bytes)]
        is_private = any(f"/{PREFIX}" in name for name in names)
        name = names[0] if names else ""
        ours = own or (error.errno in _FULL and not name) or (error.errno in _FULL | _REFUSED and is_private)
        if isinstance(error, OutputError) or not ours:
            raise
        where = "" if not name or is_private or os.path.abspath(name) == os.path.realpath(path) else f"{name}: "
        remedy = "free some space" if error.errno in _FULL else "choose another place"
        raise OutputError(
            f"{path}: cannot be written ({where}{error.strerror or error}); {remedy}; {INTACT}"
        ) from error
