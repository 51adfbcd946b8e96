"""Locks on folders: one run at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from lhuc_asr.base.errors import ExperimentError


@contextmanager
def locked(folder: Path) -> Iterator[Path]:
    """Make a folder if it is missing, and keep other runs out of it.

    The operating system releases the lock of a process that is killed.

    Raises:
        ExperimentError: Another run is in the folder, or it cannot be written to.
    """
    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout as error:  # itself an OSError
        raise ExperimentError(
            f"{folder}: another run is using this folder; wait for it, or choose another with exp=DIR"
        ) from error
    except OSError as error:
        raise ExperimentError(
            f"{folder}: cannot be written to ({error.strerror}); choose another with exp=DIR"
        ) from error
    try:
        yield folder
    finally:
        lock.release()
