"""Locks on folders: one run at a time."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lhuc_asr.base.errors import ExperimentError


@contextmanager
def locked(folder: Path) -> Iterator[Path]:
    """Make a folder where it is not there, and keep other runs out of it.

    Raises:
        ExperimentError: Another run is in the folder, or it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise ExperimentError(
            f"{folder}: cannot be written to ({error.strerror}); choose another with exp=DIR"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ExperimentError(
                f"{folder}: another run is using this folder; wait for it, or choose another with exp=DIR"
            ) from error
        yield folder
