"""The lines of text files from outside: the one reader of transcripts, tables, lexica, text and language models."""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from lhuc_asr.base.errors import CorpusError, LhucError
from lhuc_asr.base.plain_file import check_plain_file

Stream = io.BufferedReader | gzip.GzipFile

# A text of the language model may have a document on a line; a file without line ends must not fill the memory.
LONGEST_LINE_BYTES = 16 << 20

_GZIP = b"\x1f\x8b"
_ARCHIVES = {b"PK\x03\x04": "a zip archive", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_MAGIC_BYTES = max(map(len, _ARCHIVES))
_CHUNK_BYTES = 1 << 20
_QUOTED_CHARACTERS = 80

# Editors on Windows write it at the beginning of a file, and it gets inside where such files are joined.
_BYTE_ORDER_MARK = "\N{ZERO WIDTH NO-BREAK SPACE}"
# What separates words for str.split is white space; NUL is a sign of UTF-16, U+0092 of Windows-1252.
_CONTROL_CHARACTER = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")


def read_lines(path: Path, error: type[LhucError] = CorpusError) -> Iterator[tuple[int, str]]:
    r"""Yield the lines of a UTF-8 file that are not empty, with their numbers from 1.

    Lines end with ``\n``, ``\r\n`` or ``\r``, and are stripped of white space. Byte-order marks are left out, wherever
    they are.

    Args:
        path: The file; a compressed one is recognised by its content.
        error: Class of the errors to raise.

    Raises:
        LhucError: The file is missing, damaged or not UTF-8 text, or a line is longer than ``LONGEST_LINE_BYTES``; the
            error has the class ``error``, and names the line.
    """
    number = 0
    try:
        if not _is_open(path):
            check_plain_file(path)
        with path.open("rb") as file:
            for number, raw in enumerate(_raw_lines(_uncompressed(file)), start=1):
                if line := _decoded(raw):
                    yield number, line
    except FileNotFoundError as problem:
        raise error(f"{path}: no such file") from problem
    except _BadLine as problem:
        raise error(f"{path}:{number + problem.lines_behind}: {problem}") from problem
    except (gzip.BadGzipFile, EOFError, zlib.error) as problem:
        raise error(f"{path}:{number + 1}: cannot be read further ({problem}); the file is damaged") from problem
    except OSError as problem:
        raise error(f"{path}: cannot be read ({problem.strerror or problem})") from problem


def _is_open(path: Path) -> bool:
    """Whether a path leads to a stream that is open already, as a shell's ``<(sed ...)``; others may never end."""
    return path.is_relative_to("/dev/fd") or path.is_relative_to("/proc") or path == Path("/dev/stdin")


def quoted(text: str) -> str:
    """A line or a part of one for a message, cut where it is long.

    Example:
        >>> quoted("a" * 100_000)
        "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...'"
    """
    return repr(text if len(text) <= _QUOTED_CHARACTERS else f"{text[:_QUOTED_CHARACTERS]}...")


class _BadLine(Exception):
    """What is wrong with a line, and how many lines it is behind the last one that was counted."""

    def __init__(self, problem: str, lines_behind: int = 0) -> None:
        super().__init__(problem)
        self.lines_behind = lines_behind


def _uncompressed(file: io.BufferedReader) -> Stream:
    head = file.peek(_MAGIC_BYTES)[:_MAGIC_BYTES]
    for magic, kind in _ARCHIVES.items():
        if head.startswith(magic):
            raise _BadLine(f"expected UTF-8 text, plain or compressed with gzip, found {kind}; unpack it", 1)
    return gzip.GzipFile(fileobj=file) if head.startswith(_GZIP) else file


def _raw_lines(file: Stream) -> Iterator[bytes]:
    """The lines of a file; no more than one of them and a chunk are in memory."""
    rest = b""
    while chunk := file.read(_CHUNK_BYTES):
        *lines, rest = (rest + chunk).splitlines(keepends=True)
        # A line end may be cut in two, and the rest may be a whole line: both are seen when more has been read.
        yield from lines
        if len(rest) > LONGEST_LINE_BYTES:
            megabytes = LONGEST_LINE_BYTES >> 20
            raise _BadLine(f"expected lines of at most {megabytes} MiB, found a longer one; break it into lines", 1)
    yield rest


def _decoded(raw: bytes) -> str:
    try:
        line = raw.decode()
    except UnicodeDecodeError as problem:
        raise _BadLine(
            f"expected UTF-8 text, found byte 0x{raw[problem.start]:02x}; "
            "convert the file, for example with iconv -t UTF-8"
        ) from problem
    if match := _CONTROL_CHARACTER.search(line):
        shown = line[max(0, match.start() - 20) : match.end() + 20].strip()
        raise _BadLine(f"control character U+{ord(match[0]):04X} in {shown!r}; convert the file to UTF-8 text")
    return line.replace(_BYTE_ORDER_MARK, "").strip()
