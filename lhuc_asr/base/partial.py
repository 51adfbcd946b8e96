"""Private folders beside a target, in which a file or a folder is made before it takes the target's place.

The folder ``.lhuc-<random>.partial`` is made exclusively, so that no link of that name is ever followed, and two
writers of one target do not meet. A writer holds a lock on the file ``lock`` in it for as long as it lives. The
operating system releases the lock of a killed process, and the next writer in the same place removes what is left.

A folder takes the place of another in one step where the system can exchange two names. Where it cannot, the old folder
is moved to ``old/<n>/<name>`` in the private folder first. Whoever removes the private folder, the writer or a later
one, first moves the old folder back, unless another stands in its place by now.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from lhuc_asr.base.descriptor_lock import lock_descriptor, open_to_lock

PREFIX, SUFFIX = ".lhuc-", ".partial"
NEW, _LOCK, _OLD = "new", "lock", "old"

# From Linux's fcntl.h and fs.h.
_AT_FDCWD, _NO_REPLACE, _EXCHANGE = -100, 1, 2
# The answers of systems and file systems that cannot do it; a sandbox answers EPERM.
_CANNOT = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM}
_renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if os.name == "posix" else None

# When this process last left each folder (device, inode): its time of change. A folder that nobody else has changed
# since is not searched again, so that thousands of files in it take linear time.
_left: dict[tuple[int, int], int] = {}


@contextmanager
def private_folder(folder: Path) -> Iterator[Path]:
    """An empty folder in ``folder`` that only this writer uses; it is removed when the block ends.

    What killed writers left in ``folder`` is removed first.

    Raises:
        OSError: ``folder`` cannot be written to.
    """
    identity, changed = _state(folder)
    if _left.get(identity) != changed:
        _remove_dead(folder)
    place, lock = _made(folder)
    try:
        yield place
    finally:
        with suppress(OSError):
            _dissolve(place)
        os.close(lock)
        if os.name == "nt":  # where a file that is open stays
            with suppress(OSError):
                _dissolve(place)
        with suppress(OSError):
            identity, changed = _state(folder)
            _left[identity] = changed


def put_in_place(new: Path, target: Path) -> None:
    """Let a folder take the place of ``target``, whether that is there or not; the old folder is whole until then.

    Args:
        new: A folder in a ``private_folder`` beside the target. The old folder is moved there.
        target: The place.

    Raises:
        OSError: The folder cannot be moved; the old one is in its place, or will be when the private folder is removed.
    """
    for attempt in count():
        try:
            if os.path.lexists(target):
                if _renamed(new, target, _EXCHANGE):
                    return
                kept = new.parent / _OLD / f"{attempt:06}" / target.name
                kept.parent.mkdir(parents=True)
                os.rename(target, kept)
            os.rename(new, target)
            return
        except OSError as error:
            # Another writer was faster. Its folder is the old one now, or it has just moved the old one away.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT) or not os.path.lexists(new):
                raise


def move_without_replacing(source: Path, target: Path) -> None:
    """Move a file to a name that is free.

    Raises:
        FileExistsError: The name is taken.
    """
    if _renamed(source, target, _NO_REPLACE):
        return
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    os.rename(source, target)


def _renamed(source: Path, target: Path, flag: int) -> bool:
    """Rename with one of Linux's flags; False where the system or the file system does not have it."""
    if _renameat2 is None:
        return False
    if _renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flag) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), str(target))


def _state(folder: Path) -> tuple[tuple[int, int], int]:
    state = os.stat(folder)
    return (state.st_dev, state.st_ino), state.st_mtime_ns


def _made(folder: Path) -> tuple[Path, int]:
    """A new private folder, and its lock."""
    while True:
        place = folder / f"{PREFIX}{secrets.token_hex(8)}{SUFFIX}"
        os.mkdir(place, 0o700)
        try:
            lock = _lock_of(place, wait=True)
        except OSError:
            os.rmdir(place)
            raise
        # None if another writer took the folder for a dead one's, before it was locked.
        if lock is not None:
            return place, lock


def _lock_of(place: Path, wait: bool) -> int | None:
    """Lock a private folder; None if a living writer has the lock, or has removed the folder.

    A file system without locks gives the lock to writers, who do not need it, and to nobody who would remove a folder.
    """
    try:
        lock = open_to_lock(place / _LOCK, 0o600)
    except FileNotFoundError:
        return None
    try:
        lock_descriptor(lock, wait)
    except OSError:
        if wait:
            return lock
        os.close(lock)
        return None
    with suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(lock), os.stat(place / _LOCK, follow_symlinks=False)):
            return lock
    os.close(lock)
    return None


def _remove_dead(folder: Path) -> None:
    """Remove the private folders of killed writers; those of other users are left to them."""
    try:
        with os.scandir(folder) as entries:
            places = [Path(entry.path) for entry in entries if entry.name.startswith(PREFIX) and _is_private(entry)]
    except PermissionError:  # a folder that may be written to but not listed
        return
    for place in places:
        with suppress(OSError):
            lock = _lock_of(place, wait=False)
            if lock is not None:
                try:
                    _dissolve(place)
                finally:
                    os.close(lock)


def _is_private(entry: os.DirEntry[str]) -> bool:
    if not entry.name.endswith(SUFFIX) or not entry.is_dir(follow_symlinks=False):
        return False
    try:
        # Windows has no numbers of users; there each is 0.
        return entry.stat(follow_symlinks=False).st_uid == (os.geteuid() if os.name == "posix" else 0)
    except FileNotFoundError:  # its writer has just ended
        return False


def _dissolve(place: Path) -> None:
    """Remove a private folder whose lock is held; a folder in it that is the only copy is moved back first."""
    for kept in sorted(place.glob(f"{_OLD}/*/*"), key=lambda path: path.parent.name, reverse=True):
        target = place.parent / kept.name
        if not os.path.lexists(target):
            try:
                os.rename(kept, target)
            except OSError as error:
                # Whatever stands there is newer. In any other case the copy stays where it is, for a later attempt.
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    return
    for child in place.iterdir():
        # The lock comes last: nobody else may look into the folder while it is removed.
        if child.name != _LOCK:
            _remove(child)
    with suppress(OSError):
        (place / _LOCK).unlink()
        place.rmdir()


def _remove(path: Path) -> None:
    """Remove a file or a folder, also one with folders that may not be written to; what cannot be removed stays."""
    if path.is_symlink() or not path.is_dir():
        with suppress(OSError):
            path.unlink()
        return
    shutil.rmtree(path, ignore_errors=True)
    if path.exists():
        path.chmod(0o700)
        for parent, folders, _ in os.walk(path):
            for folder in folders:
                if not os.path.islink(inner := os.path.join(parent, folder)):
                    os.chmod(inner, 0o700)
        shutil.rmtree(path, ignore_errors=True)
