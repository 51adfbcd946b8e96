"""Locks on open files, released by the operating system when their process ends, however it ends.

``filelock`` locks a name. The writers of ``partial.py`` and downloads must know that the file that they have locked is
the one that is there, so they lock what they have opened.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

# What Windows does not have: there a link in the file's place is followed.
_FLAGS = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK"))
# Windows locks bytes, and keeps everybody from reading and writing them: one far behind the end of any file.
_FAR = 1 << 40


def open_to_lock(path: Path, mode: int) -> int:
    """Open a file, made if it is missing; not what a link in its place leads to, and without waiting for a pipe.

    Args:
        path: The file.
        mode: Permissions of a new file.

    Returns:
        Its descriptor.

    Raises:
        OSError: It cannot be opened, or a link is in its place.
    """
    return os.open(path, os.O_RDWR | os.O_CREAT | _FLAGS, mode)


if sys.platform == "win32":
    import msvcrt

    def lock_descriptor(descriptor: int, wait: bool) -> None:
        """Lock an open file, until it is closed.

        Args:
            descriptor: Descriptor of the file, open for reading and writing.
            wait: Whether to wait until others have released it, for ten seconds.

        Raises:
            BlockingIOError: Another has locked it.
            OSError: The file system has no locks.
        """
        os.lseek(descriptor, _FAR, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError(error.errno, error.strerror) from error

else:
    import fcntl

    def lock_descriptor(descriptor: int, wait: bool) -> None:
        """Lock an open file, until it is closed.

        Args:
            descriptor: Descriptor of the file, open for reading and writing.
            wait: Whether to wait until others have released it.

        Raises:
            BlockingIOError: Another has locked it.
            OSError: The file system has no locks.
        """
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
