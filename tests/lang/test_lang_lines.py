"""The one reader of text files from outside."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lhuc_asr.base.errors import CorpusError, LexiconError
from lhuc_asr.lang import lines
from lhuc_asr.lang.lines import read_lines

BOM = b"\xef\xbb\xbf"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return tmp_path / "text"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", []),
        (b"a b\n\n  c \n", [(1, "a b"), (3, "c")]),
        (b"a\r\nb\r\n", [(1, "a"), (2, "b")]),
        (b"a\rb\rc", [(1, "a"), (2, "b"), (3, "c")]),
        (BOM + b"a\n" + BOM + b"b\n", [(1, "a"), (2, "b")]),  # two files with byte-order marks, joined
        (BOM + BOM + b" a\n" + BOM, [(1, "a")]),
        ("\u00a0a\u00a0b\u3000\n".encode(), [(1, "a\u00a0b")]),
    ],
)
def test_lines_without_their_ends_and_marks(text: Path, content: bytes, expected: list[tuple[int, str]]) -> None:
    text.write_bytes(content)
    assert list(read_lines(text)) == expected
    text.write_bytes(gzip.compress(content))
    assert list(read_lines(text)) == expected


def test_a_line_end_at_the_border_of_two_chunks_is_one(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"ab\r\ncd\r\n\r\nef\rg\xc3\xa9"
    text.write_bytes(content)
    whole = list(read_lines(text))
    assert whole == [(1, "ab"), (2, "cd"), (4, "ef"), (5, "g\u00e9")]
    for size in range(1, len(content)):
        monkeypatch.setattr(lines, "_CHUNK_BYTES", size)
        assert list(read_lines(text)) == whole


def test_the_name_of_a_file_does_not_say_whether_it_is_compressed(tmp_path: Path) -> None:
    plain, compressed = tmp_path / "text.gz", tmp_path / "text"
    plain.write_bytes(b"line\n")
    compressed.write_bytes(gzip.compress(b"line\n") + gzip.compress(b"other\n"))
    assert list(read_lines(plain)) == [(1, "line")]
    assert list(read_lines(compressed)) == [(1, "line"), (2, "other")]


@pytest.mark.parametrize(("compress", "kind"), [(bz2.compress, "bzip2"), (lzma.compress, "xz")])
def test_another_compression_is_named(text: Path, compress, kind: str) -> None:
    text.write_bytes(compress(b"line\n"))
    with pytest.raises(CorpusError, match=rf"text:1: expected UTF-8 text.*, found {kind}; unpack it"):
        list(read_lines(text))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"fine\nca\xe9\n", r"text:2: expected UTF-8 text, found byte 0xe9; .*iconv"),
        ("fine\n".encode("utf-16"), r"text:1: expected UTF-8 text, found byte 0xff"),
        ("fine\n".encode("utf-16-le"), r"text:1: control character U\+0000"),
        ("fine\nit\x92s".encode(), r"text:2: control character U\+0092 in 'it\\x92s'"),
        (
            gzip.compress(b"line\n" * 1000, mtime=0)[:-12],
            r"text:\d+: cannot be read further \(.*\); the file is damaged",
        ),
    ],
)
def test_what_is_not_text_is_named_with_its_line(text: Path, content: bytes, message: str) -> None:
    text.write_bytes(content)
    with pytest.raises(LexiconError, match=message):
        list(read_lines(text, LexiconError))


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"text: no such file"):
        list(read_lines(tmp_path / "text"))
    with pytest.raises(CorpusError, match=r": cannot be read \(Is a directory\)$"):
        list(read_lines(tmp_path))


def test_a_line_that_never_ends_does_not_fill_the_memory(text: Path) -> None:
    """A hundred times the limit, compressed to next to nothing, is refused without being unpacked."""
    with gzip.open(text, "wb", compresslevel=1) as file:
        file.write(b"short\n")
        for _ in range(100):
            file.write(b"a" * (lines.LONGEST_LINE_BYTES // 4))
    with pytest.raises(CorpusError, match=r"text:2: expected lines of at most 16 MiB, found a longer one"):
        list(read_lines(text))


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir])
def test_what_may_never_end_is_refused(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "text")
    with pytest.raises(CorpusError, match="text: cannot be read"):
        list(read_lines(tmp_path / "text"))


def test_a_stream_that_is_open_is_read() -> None:
    """As a shell's ``<(sed ...)``."""
    ours, theirs = os.pipe()
    os.write(theirs, b"a ONE\nb TWO\n")
    os.close(theirs)
    assert list(read_lines(Path(f"/dev/fd/{ours}"))) == [(1, "a ONE"), (2, "b TWO")]
    os.close(ours)
