"""Files on disk, told from what only looks like one: a pipe, a device or a socket can be read for ever."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def check_plain_file(path: Path | str) -> int:
    """Refuse what is not a file on disk; a link counts as what it names.

    Returns:
        Size of the file, in bytes.

    Raises:
        OSError: The file is missing, its name cannot be a file's, it may not be read, or it is a folder, a pipe, a
            device or a socket.
    """
    try:
        status = os.stat(path)
    except ValueError as error:  # a NUL or a lone surrogate in the name
        raise OSError(errno.EINVAL, f"not the name of a file ({error})", str(path)) from error
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a file on disk, but a pipe, a device or a socket", str(path))
    if not os.access(path, os.R_OK):  # safetensors would say that it is not there
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    return status.st_size
