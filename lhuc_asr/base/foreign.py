"""The boundary around foreign code: what a library raises over a stranger's input becomes one error of ours.

Libraries document few of the errors that damaged or hostile input draws from them: OverflowError of a date,
MemoryError of a length, ValueError of a name with a NUL, RecursionError. A list of them is never complete.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from lhuc_asr.base.errors import LhucError

# Errors of the system that say nothing about the input: disks and tables of open files that are full.
HOST = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
}

# Characters of a foreign text that fit into a message of one line.
MOST_CHARACTERS = 200


@contextmanager
def foreign_errors(kind: type[LhucError], what: str, remedy: str) -> Iterator[None]:
    """Turn every error of foreign code into one of ours; ours, and those of the host such as a full disk, pass.

    Only the call of a library belongs into the block, since a mistake of our own would be hidden there.

    Args:
        kind: Class of the error.
        what: What failed, and where.
        remedy: What to do.

    Raises:
        LhucError: ``kind``, with the message ``<what> (<reason>); <remedy>``.
        OSError: The disk is full, or another limit of the host is reached.
    """
    try:
        yield
    except LhucError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in HOST:
            raise
        raise kind(f"{what} ({reason_of(error)}); {remedy}") from error


def reason_of(error: BaseException) -> str:
    """What an error says, in one short line; its class if it says nothing, or only a value such as a key."""
    if isinstance(error, OSError) and error.strerror:
        return one_line(error.strerror)
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(cause := getattr(error, "cause", None), BaseException):
        return reason_of(cause)  # an error of another process, whose own text is a traceback, as Ray's
    text = one_line(str(error))
    return f"{type(error).__name__}: {text}" if isinstance(error, LookupError) else text or type(error).__name__


def one_line(text: str) -> str:
    """A foreign text for a message: printable, in one line, shortened if it is long."""
    shown = "".join(character if character.isprintable() else " " for character in text[: 4 * MOST_CHARACTERS])
    line = " ".join(shown.split())
    return line if len(line) <= MOST_CHARACTERS else f"{line[:MOST_CHARACTERS]} ..."
