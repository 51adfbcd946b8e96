"""JSON files as typed values: what Python's reader takes and JSON does not, wrong types, and files without an end."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from lhuc_asr.base.atomic import DamagedFileError, read_json, read_json_lines, sha256_of
from lhuc_asr.base.documents import Count, DocumentKind, FilePath, Name, Positive
from lhuc_asr.base.errors import ScoreError
from lhuc_asr.base.plain_file import check_plain_file


@dataclass(frozen=True)
class Thing:
    """What the files of these tests hold."""

    count: Count
    names: tuple[Name, ...]
    length: Positive = 1
    path: FilePath = Path("here")


THINGS = DocumentKind(Thing, "a thing", ScoreError, "make it again", missing="make it")
NOT_JSON = {
    '{"a": NaN}': "NaN is not a number of JSON",
    "[-Infinity]": "-Infinity is not a number of JSON",
    "1e999": "the number 1e999 does not fit into 64 bits",
    "1" + 5000 * "0": "does not fit into 64 bits",
    '{"a": 1, "b": {"c": 1, "c": 2}}': "the key 'c' occurs twice",
    r'{"a": "\ud800"}': "lone surrogate",
    r'{"\uDC00": 1}': "lone surrogate",
    100_000 * "[": "nested too deeply",
    "\ufeff{}": "Expecting value",
    "": "Expecting value",
}


@pytest.mark.parametrize("text", NOT_JSON, ids=range(len(NOT_JSON)))
def test_what_is_not_json_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    for read in (read_json, THINGS.read, lambda path: list(THINGS.rows(path)) or read_json(path)):
        with pytest.raises((DamagedFileError, ScoreError), match=r"a\.json(:1)?: .*again$") as caught:
            read(path)
        assert NOT_JSON[text] in str(caught.value)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400


def test_a_pair_of_surrogates_is_a_character(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(r'{"a": "\ud83d\ude00"}')
    assert read_json(tmp_path / "a.json") == {"a": "\U0001f600"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "Input should be an object, found []"),
        ('{"count": 1}', "names: "),
        ('{"count": true, "names": []}', "count: Input should be a valid integer, found True"),
        ('{"count": 1.0, "names": []}', "count: "),
        ('{"count": "1", "names": []}', "count: "),
        ('{"count": -1, "names": []}', "count: Input should be greater than or equal to 0, found -1"),
        ('{"count": 2147483648, "names": []}', "count: Input should be less than 2147483648"),
        ('{"count": 1, "names": "ab"}', "names: "),
        ('{"count": 1, "names": ["a", ""]}', "names.1: "),
        ('{"count": 1, "names": ["a\\nb"]}', "names.0: not a name: it is empty, or has control characters"),
        ('{"count": 1, "names": [], "length": 0}', "length: "),
        ('{"count": 1, "names": [], "path": "a\\u0000b"}', "path: not the name of a file"),
        ('{"count": 1, "names": [], "path": ""}', "path: not the name of a file"),
    ],
)
def test_values_of_another_kind_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    for read in (THINGS.read, lambda path: list(THINGS.rows(path))):
        with pytest.raises(ScoreError, match=r"a\.json(:1)?: not a thing \(.*\); make it again$") as caught:
            read(path)
        assert message in str(caught.value)


def test_what_fits_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"count": 2, "names": ["a"], "path": "/x/y"}\n{"count": 0, "names": []}\n')
    assert list(THINGS.rows(path)) == [Thing(2, ("a",), 1, Path("/x/y")), Thing(0, ())]
    with pytest.raises(ScoreError, match=r"none\.json: no such file; make it$"):
        THINGS.read(tmp_path / "none.json")


def test_a_pipe_a_device_and_a_folder_are_not_read(tmp_path: Path) -> None:
    """A link counts as what it names; reading a pipe or /dev/zero would never end."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "device", "folder"):
        path = tmp_path / name
        for read in (read_json, sha256_of, check_plain_file, lambda path: list(read_json_lines(path))):
            with pytest.raises(OSError, match=r"not a file on disk|Is a directory"):
                read(path)
        with pytest.raises(ScoreError, match=f"{name}: cannot be read .*; make it again"):
            THINGS.read(path)
    for name in ("a\0b", "\ud800"):
        with pytest.raises(OSError, match="not the name of a file"):
            check_plain_file(tmp_path / name)
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    assert check_plain_file(tmp_path / "link") == 3
