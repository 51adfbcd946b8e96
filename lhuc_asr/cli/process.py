"""The process that a command runs in: its streams, its signals, its folder."""

from __future__ import annotations

import os
import signal
import sys
from io import TextIOWrapper

from lhuc_asr.base.errors import LhucError
from lhuc_asr.cli.signals import ENDING

# Exit statuses of a process that was told to end, as in shells: 128 plus the signal's number.
SIGNALLED = {128 + number for number in ENDING}

# Status of this process once it was told to end.
_told: int | None = None


def prepare_process() -> None:
    """Clean up when the process is told to end, as by ``docker stop``; print names that are not UTF-8 as they are."""
    _open_closed_streams()
    for number in ENDING:
        # Not under nohup, which ignores SIGHUP.
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _end)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")


def require_current_folder() -> None:
    """Refuse to work in a folder that was deleted: relative paths lead nowhere, and libraries cannot be loaded.

    Raises:
        LhucError: The current folder is not there.
    """
    try:
        os.getcwd()
    except OSError as error:
        raise LhucError(f"the current folder is not there any more ({error.strerror}); cd to another") from error


def _open_closed_streams() -> None:
    """Lead standard streams that were closed (``>&-``) to /dev/null.

    A file that is opened later would take the number of a closed stream, and what libraries print would go into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is this one. Processes that are started inherit it.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w" if number else "r"))  # noqa: SIM115 (open until the end)


def told_to_end() -> int | None:
    """The exit status of a process that was told to end, None before.

    Libraries that are ended half-way, as numpy while it is loaded, turn that into errors of their own.
    """
    return _told


def _end(number: int, frame: object) -> None:
    global _told
    _told = 128 + number
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(_told)
