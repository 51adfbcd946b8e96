"""What a path names, and the ways in which people keep tables: packed, in folders, with a mark at the start."""

from __future__ import annotations

import bz2
import gzip
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lhuc_asr.base.errors import ExamplesError
from lhuc_asr.ppnet.reader import CSV_BLOCK, Reader
from lhuc_asr.ppnet.schema import FieldConfig, Schema
from lhuc_asr.ppnet.table_files import Contents, one_line, table_files

SCHEMA = Schema(
    features=(FieldConfig(name="user", kind="id"), FieldConfig(name="tags", kind="multi")),
    labels=("click",),
    user="user",
)
LONE = Schema(features=(FieldConfig(name="user", kind="id"),), labels=("click",), user="user")
CSV = b"user,tags,click\n7,a|b,1\n8,,0\n"
ROWS = {"user": ["7", "8"], "tags": [["a", "b"], []], "click": [1.0, 0.0]}


def file(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def read(*paths: Path, schema: Schema = SCHEMA, labelled: bool = True) -> dict[str, list[object]]:
    return pa.concat_tables(Reader(paths, schema, labelled).blocks(100)).to_pydict()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", CSV),
        ("A.CSV", CSV),
        ("a.csv", b"\xef\xbb\xbf" + CSV),
        ("a.csv", CSV.replace(b"\n", b"\r\n")),
        ("a.csv", CSV.replace(b"\n", b"\r")),
        ("a.csv", CSV.rstrip()),
        ("a.csv", CSV + b"\n\n"),
        ("a.csv", b'"user","tags","click"\n"7","a|b","1"\n"8","","0"\n'),
        ("a.csv", b"extra,click,tags,user,extra\nx,1,a|b,7,y\nx,0,,8,y\n"),
        ("a.csv", b'note,user,tags,click\n"two\nlines, ""quoted""",7,a|b,1\n,8,,0\n'),
        ("a.tsv", CSV.replace(b",", b"\t")),
        ("a.tsv.gz", gzip.compress(CSV.replace(b",", b"\t"), mtime=0)),
        ("a.csv.gz", gzip.compress(CSV, mtime=0)),
        ("a.csv.gz", gzip.compress(CSV[:24], mtime=0) + gzip.compress(CSV[24:], mtime=0)),
        ("a.csv.bz2", bz2.compress(CSV)),
        ("a.csv.zst", pa.compress(CSV, "zstd", asbytes=True)),
    ],
)
def test_a_table_is_the_same_however_it_is_kept(name: str, content: bytes, tmp_path: Path) -> None:
    assert read(file(tmp_path / name, content)) == ROWS


def test_a_folder_is_all_tables_below_it_in_order(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    parts = tmp_path / "parts"
    for name, content in {
        "b/part-1.csv": b"user,tags,click\n3,,0\n",
        "a/part-0.csv.gz": gzip.compress(b"user,tags,click\n1,,1\n2,,1\n"),
        "c/part-2.csv": b"user,tags,click\n",
        "_SUCCESS": b"",
        "_temporary/part-9.csv": b"damaged",
        ".part-1.csv.crc": b"x",
        "b/._part-1.csv": b"x",
        "notes.txt": b"of years",
    }.items():
        file(parts / name, content)
    pq.write_table(pa.table({"user": [4], "tags": [""], "click": [0]}), parts / "d.parquet")
    pq.write_table(pa.table({"user": [4], "tags": [""], "click": [0]}).slice(1), parts / "e.parquet")
    with caplog.at_level(logging.WARNING):
        assert read(parts)["user"] == ["1", "2", "3", "4"]
    assert [record.message for record in caplog.records] == [
        f"{parts}: left out, not examples: '{parts / 'notes.txt'}'"
    ]
    (tmp_path / "link").symlink_to(parts, target_is_directory=True)
    assert read(tmp_path / "link")["user"] == ["1", "2", "3", "4"]


def test_a_folder_that_may_not_be_read_is_not_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.csv", "secret/b.csv", ".Trash/c.csv"):
        file(tmp_path / name, b"user,tags,click\n1,,1\n")

    def iterdir(folder: Path, allowed: Callable[[Path], Iterator[Path]] = Path.iterdir) -> Iterator[Path]:
        if folder.name in ("secret", ".Trash"):
            raise PermissionError(13, "Permission denied", str(folder))
        return allowed(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    with pytest.raises(ExamplesError, match=r"secret: the folder cannot be read \(Permission denied\), and its ex"):
        read(tmp_path)
    (tmp_path / "secret").rename(tmp_path / "open")
    assert read(tmp_path)["user"] == ["1", "1"]


def test_a_pattern_is_the_files_that_match_in_order(tmp_path: Path) -> None:
    for day in (2, 1, 3):
        file(tmp_path / "days" / f"day-{day}.csv", f"user,tags,click\n{day},,1\n".encode())
    file(tmp_path / "days" / "[1].csv", b"user,tags,click\nbrackets,,1\n")
    assert read(tmp_path / "days" / "day-[12].csv")["user"] == ["1", "2"]
    assert read(tmp_path / "**" / "day-*.csv")["user"] == ["1", "2", "3"]
    assert read(tmp_path / "days" / "[1].csv")["user"] == ["brackets"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "is empty; expected a line with the names of the columns"),
        ("a.csv.gz", gzip.compress(b"", mtime=0), "is empty; expected a line"),
        ("a.csv", b"user,tags,click", "not a CSV file"),
        ("a.csv", b"user,tags,click\n", "has no rows, expected at least one example"),
        ("a.csv", gzip.compress(CSV, mtime=0), r"is packed with gzip; call it \.csv\.gz"),
        ("a.csv.gz", CSV, "not a CSV file .*incorrect header check"),
        ("a.csv.gz", gzip.compress(CSV, mtime=0)[:-9], "Truncated compressed stream"),
        ("a.csv", b"PAR1xxxxPAR1", "is a Parquet file; call it"),
        ("a.csv", b"PK\3\4" + CSV, "is a ZIP archive or a spreadsheet"),
        ("a.csv", CSV.decode().encode("utf-16"), "is text in UTF-16; save it as UTF-8"),
        ("a.csv", CSV + b"\xe9t\xe9,,1\n", "row 3, column 'user': b'\\\\xe9t\\\\xe9' is not UTF-8 text"),
        ("a.csv", CSV.replace(b",", b";"), "the file has 'user;tags;click'; are its cells separated by ';'?"),
        ("a.tsv", CSV, "the file has 'user,tags,click'; are its cells separated by ','?"),
        ("a.csv", b"user,user,tags,click\n1,1,,1\n", "column 'user' appears twice"),
        ("a.csv", b"User,tags,click\n1,,1\n", "column 'user' is missing; the file has 'User', 'tags', 'click'"),
        ("a.csv", b"user,tags,click\n7,\"a,1\n8,b,0\n", "Expected 3 columns|a line break|quote"),
        ("a.csv", b"user,click,tags\n7,1,\"a\n8,0,b\n", "row 1, column 'tags': a line break within the cell"),
        ("a.csv", CSV + b"x" * (2 * CSV_BLOCK) + b",,1\n", "a row is longer than 8 MB, or a quote is not closed"),
        ("a.csv", CSV + b"9," + b"x" * 5000 + b"\n", r"Expected 3 columns, got 2: 9,x+ \.\.\."),
        ("a.xlsx", CSV, "cannot read examples from such a file"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_in_one_line(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    path = file(tmp_path / name, content)
    with pytest.raises(ExamplesError, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 1000


def test_a_folder_or_a_pattern_without_examples_is_refused(tmp_path: Path) -> None:
    file(tmp_path / "sub" / "a.txt", b"")
    with pytest.raises(ExamplesError, match=r"sub: has no file of examples; give \.csv"):
        table_files([tmp_path / "sub"])
    with pytest.raises(ExamplesError, match=r"\*\.csv: has no file of examples"):
        table_files([tmp_path / "*.csv"])
    file(tmp_path / "sub" / "a.csv", b"user,tags,click\n")
    with pytest.raises(ExamplesError, match="sub': no file has rows, expected at least one example"):
        Reader([tmp_path / "sub"], SCHEMA)


def test_a_file_of_one_column_keeps_its_empty_cells(tmp_path: Path) -> None:
    """An empty line is a missing user there: to drop it would move all the predictions after it."""
    path = file(tmp_path / "a.csv", b"user\n1\n\n3\n")
    with pytest.raises(ExamplesError, match="row 2, column 'user': the cell is empty"):
        read(path, schema=LONE, labelled=False)


def test_a_cell_may_be_long(tmp_path: Path) -> None:
    tags = [f"tag{number}" for number in range(300_000)]
    path = file(tmp_path / "a.csv", CSV + f"9,{'|'.join(tags)},1\n".encode())
    assert read(path)["tags"][2] == tags


@pytest.mark.parametrize("word", ["true", "True", "YES", "t", "y", "1", "1.0", " 1"])
def test_words_for_one_are_labels(word: str, tmp_path: Path) -> None:
    path = file(tmp_path / "a.csv", f"user,tags,click\n7,,{word}\n8,,0\n9,,no\n9,,FALSE\n".encode())
    assert read(path)["click"] == [1.0, 0.0, 0.0, 0.0]


def test_contents_are_what_is_in_the_files_not_their_names_and_times(tmp_path: Path) -> None:
    path = file(tmp_path / "a.csv", CSV)
    before = Contents.of([path])
    os.utime(path, ns=(1, 1))
    before.check_unchanged()
    assert Contents.of([path]).hashes == before.hashes
    assert Contents.of([file(tmp_path / "b" / "other.csv", CSV)]).hashes == before.hashes
    path.write_bytes(CSV.replace(b"7", b"6"))
    with pytest.raises(ExamplesError, match=r"a\.csv: changed while it was in use; give the same command again"):
        before.check_unchanged()
    assert Contents.of([path]).hashes != before.hashes


def test_another_librarys_message_is_one_short_line() -> None:
    assert one_line(ValueError("a\nb" * 1000)) == ("a b" * 1000)[:300] + "..."
