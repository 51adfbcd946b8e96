"""Files appear whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhuc_asr.base.atomic import (
    BLOCK_BYTES,
    DamagedFileError,
    append_json_line,
    atomic_folder,
    atomic_path,
    read_json,
    read_json_lines,
    write_json,
    write_json_lines,
    write_text,
)

NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | NUMBERS | st.text()
ROWS = st.lists(st.dictionaries(st.text(), SCALARS))


def test_a_file_is_not_there_before_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
    assert path.read_text() == "half"
    assert os.listdir(path.parent) == ["file"]


def test_an_exception_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    with pytest.raises(KeyError), atomic_path(path) as temporary:  # noqa: PT012
        temporary.write_text("after")
        raise KeyError
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["file"]


def test_an_exception_leaves_the_folder_that_was_there(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    with atomic_folder(folder) as temporary:
        (temporary / "a").write_text("before")
    with pytest.raises(KeyError), atomic_folder(folder) as temporary:  # noqa: PT012
        (temporary / "a").write_text("after")
        raise KeyError
    assert (folder / "a").read_text() == "before"
    assert os.listdir(tmp_path) == ["folder"]


def test_a_new_folder_replaces_the_old_one_with_all_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    for name in ("old", "new"):
        with atomic_folder(folder) as temporary:
            (temporary / name).write_text(name)
    assert os.listdir(folder) == ["new"]
    assert os.listdir(tmp_path) == ["folder"]


def test_a_killed_process_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    code = """
        import os, signal, sys
        from pathlib import Path
        from lhuc_asr.base.atomic import atomic_path
        with atomic_path(Path(sys.argv[1])) as temporary:
            temporary.write_text("after")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(path)], timeout=60)
    assert ended.returncode == -signal.SIGKILL
    assert path.read_text() == "before"
    write_text(path, "after")
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_that_does_not_fit_is_not_there(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk."""
    path = tmp_path / "file"
    write_text(path, "before")
    code = """
        import sys
        from pathlib import Path
        from lhuc_asr.base.atomic import write_text
        try:
            write_text(Path(sys.argv[1]), "x" * 100_000)
        except OSError as error:
            sys.exit(f"refused: {error}")
    """

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    command = [sys.executable, "-c", textwrap.dedent(code), str(path)]
    ended = subprocess.run(command, preexec_fn=limited, capture_output=True, text=True, timeout=60)
    remedy = "free some space; what was finished before is intact"
    assert ended.stderr == f"refused: {path}: cannot be written (File too large); {remedy}\n"
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["file"]


def test_a_line_is_appended_whole_and_half_a_line_makes_way(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append_json_line(path, {"a": 1})
    for torn in ('{"a": 2', '{"a": "' + "x" * 3 * BLOCK_BYTES):
        with path.open("a") as file:
            file.write(torn)
        append_json_line(path, {"a": 3})
    assert list(read_json_lines(path)) == [{"a": 1}, {"a": 3}, {"a": 3}]
    path.write_text(torn)
    append_json_line(path, {"a": 4})
    assert list(read_json_lines(path)) == [{"a": 4}]


def test_a_line_that_does_not_fit_leaves_no_half(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk."""
    path = tmp_path / "rows.jsonl"
    code = """
        import resource, signal, sys
        from pathlib import Path
        from lhuc_asr.base.atomic import append_json_line
        append_json_line(Path(sys.argv[1]), {"a": 1})
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        try:
            append_json_line(Path(sys.argv[1]), {"a": "x" * 1000})
        except OSError as error:
            sys.exit(f"refused: {error}")
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.stderr.startswith(f"refused: {path}: cannot be written (No space left on device)")
    assert list(read_json_lines(path)) == [{"a": 1}]


@given(rows=ROWS)
def test_json_lines_come_back(rows: list[dict[str, object]], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("lines") / "rows.jsonl"
    write_json_lines(path, rows)
    assert list(read_json_lines(path)) == rows
    write_json(path, rows)
    assert read_json(path) == rows


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_json_is_not_written(value: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"wer": value})
    with pytest.raises(ValueError, match="JSON"):
        write_json_lines(tmp_path / "a.jsonl", [{"wer": value}])
    assert os.listdir(tmp_path) == []


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"a": 1}) + "\n" + '{"a": 2')
    with pytest.raises(DamagedFileError, match=r"rows\.jsonl:2: not valid JSON .*; delete the file"):
        list(read_json_lines(path))
    path.write_text("[" * 200_000)
    with pytest.raises(DamagedFileError, match=r"rows\.jsonl:1: not valid JSON"):
        list(read_json_lines(path))
    path.write_text("[1]\n")
    with pytest.raises(DamagedFileError, match=r"rows\.jsonl:1: expected a JSON object, found list"):
        list(read_json_lines(path))


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe", b"[" * 200_000])
def test_a_damaged_file_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"a\.json: not valid JSON .*; delete the file and run again"):
        read_json(path)


def test_bytes_that_are_not_text_are_a_damaged_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": "\xff"}\n')
    with pytest.raises(DamagedFileError, match=r"rows\.jsonl"):
        list(read_json_lines(path))
