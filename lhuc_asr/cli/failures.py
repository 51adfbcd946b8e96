"""What a failure means to a user, in one line: ours, the system's, and the host's that libraries report."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import traceback
from contextlib import suppress

from lhuc_asr.base.errors import LhucError
from lhuc_asr.base.foreign import one_line
from lhuc_asr.base.outputs import INTACT

_FULL = "free some space, or ask for a larger quota"
_REFUSED = "choose a place that may be written to, or change the permissions"
_FILES = "close other programs, or raise the limit with: ulimit -n 4096"
_PROCESSES = "end other programs, raise the limits of memory and processes, or use workers=1"
_REMEDIES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,
    errno.EROFS: _REFUSED,
    errno.EACCES: _REFUSED,
    errno.EPERM: _REFUSED,
    errno.EMFILE: _FILES,
    errno.ENFILE: _FILES,
    errno.ENOMEM: _PROCESSES,
    errno.EAGAIN: _PROCESSES,
    errno.ENAMETOOLONG: "use a shorter name",
    errno.EIO: "the disk or the network fails; copy what is there to another disk",
}
# Errors of a file that is written to; without the file's name it is a temporary one, since others are named.
_OF_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
_WRITERS = {"typer", "click", "rich"}
_MEMORY = "the memory is full; close other programs, or give less at a time"


def explained(error: Exception) -> str | None:
    """The sentence for a failure that the user or the host caused; None for a mistake of the program."""
    if isinstance(error, LhucError):
        return str(error)
    if isinstance(error, OSError):
        return _of_the_system(error)
    if isinstance(error, UnicodeEncodeError):
        return _of_an_encoding(error)
    if isinstance(error, MemoryError):
        return _MEMORY
    if isinstance(error, RuntimeError):
        return _of_a_library(str(error))
    if isinstance(error, ImportError) and not (error.name or "").startswith("lhuc_asr"):
        return f"a library cannot be loaded ({one_line(str(error))}); is the memory full? Or install lhuc_asr again"
    return None


def _of_the_system(error: OSError) -> str:
    """A failed call of the system: what it was about, the system's words, and the way round."""
    names = [one_line(str(name)) for name in (error.filename, error.filename2) if name]
    reason = one_line(error.strerror or str(error))
    remedy = _REMEDIES.get(error.errno or 0, "")
    if not names and _is_of_output(error):
        names, remedy = ["standard output"], "write to a file on another disk"
    elif not names and (error.errno in _OF_WRITING or "temporary directory" in reason):
        place = f" in {tempfile.tempdir}" if tempfile.tempdir else ""
        names, remedy = [f"a temporary file{place}"], "set TMPDIR to a folder that has space"
    elif not names and not remedy:
        remedy = "--debug before the verb shows where"
    where = f"{' -> '.join(names)}: " if names else ""
    return "; ".join(filter(None, (f"{where}{reason}", remedy, INTACT)))


def _is_of_output(error: OSError) -> bool:
    """Whether text for the user could not be written; the libraries that write it give no name of a file."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if not frames or frames[-1].f_globals.get("__name__", "").partition(".")[0] not in _WRITERS:
        return False
    # What is left in the buffer is tried once more when Python ends, which would complain.
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    return True


def _of_an_encoding(error: UnicodeEncodeError) -> str:
    character = error.object[error.start]
    if error.encoding.lower().replace("-", "") == "utf8":
        return f"{one_line(ascii(error.object))}: is not text in UTF-8, at {character!r}; rename the file"
    return (
        f"the terminal's encoding {error.encoding} lacks {character!r}; write to a file, or set PYTHONIOENCODING=utf-8"
    )


def _of_a_library(text: str) -> str | None:
    """Libraries report some limits of the host as a RuntimeError of their own words."""
    if "can't allocate memory" in text or "out of memory" in text:
        return _MEMORY
    if "can't start new thread" in text:
        return f"a thread cannot be started; {_PROCESSES}; {INTACT}"
    return None
