"""The boundary around foreign code: any error becomes one of ours in one line, except ours and the host's."""

from __future__ import annotations

import errno

import pytest

from lhuc_asr.base.errors import AudioError, CorpusError
from lhuc_asr.base.foreign import MOST_CHARACTERS, foreign_errors, one_line


class RemoteError(Exception):
    """An error of another process, as Ray makes them: its text is a traceback, and it has what was raised there."""

    def __init__(self, cause: Exception) -> None:
        super().__init__('ray::Actor.ready() (pid=1)\n  File "a.py", line 1, in ready\n' * 9)
        self.cause = cause


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OverflowError("date value out of range"), "date value out of range"),
        (MemoryError(), "not enough memory"),
        (RecursionError("maximum"), "nested too deeply"),
        (NotImplementedError(), "NotImplementedError"),
        (ValueError("embedded null byte"), "embedded null byte"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), "can't decode byte 0xff"),
        (KeyError("rows"), "KeyError: 'rows'"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 9999), "File name too long"),
        (EOFError("two\nlines\x1b[31m"), "two lines [31m"),
        (AttributeError("x" * 9999), "x ..."),
        (RemoteError(KeyError("rows")), "(KeyError: 'rows');"),
    ],
    ids=repr,
)  # fmt: skip
def test_every_error_is_one_line_of_ours(error: Exception, reason: str) -> None:
    with pytest.raises(CorpusError) as caught, foreign_errors(CorpusError, "a.txt: cannot be read", "delete it"):
        raise error
    message = str(caught.value)
    assert message.startswith("a.txt: cannot be read (")
    assert reason in message
    assert message.endswith("); delete it")
    assert message.isprintable()
    assert len(message) < MOST_CHARACTERS + 100
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error", [AudioError("ours"), OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()]
)
def test_ours_and_the_hosts_pass(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, foreign_errors(CorpusError, "a.txt", "delete it"):
        raise error
    assert caught.value is error


def test_foreign_text_of_any_length_is_one_line() -> None:
    assert one_line("a\r\n\tb\x00c\u2028d") == "a b c d"
    assert len(one_line("x" * 10**6)) == MOST_CHARACTERS + len(" ...")
