"""Writers that are killed, fail at any step, or meet: what was whole stays whole, and nothing is left over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest

from lhuc_asr.base import partial
from lhuc_asr.base.atomic import atomic_folder, atomic_path, write_bytes, write_text
from lhuc_asr.base.errors import OutputError

FOLDER = {"target/a", "target/inner/b"}


def steps(folder: Path, *arguments: str) -> list[dict[str, Any]]:
    """What is there when a writer is stopped at its first step, its second, ..., and after the next writer."""
    program = Path(__file__).with_name("steps_of_writing.py")
    done = subprocess.run([sys.executable, program, folder, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) > 10
    return rows


@pytest.mark.parametrize("renames", [[], ["two-renames"]], ids=["exchange", "two-renames"])
@pytest.mark.parametrize("way", ["kill", "fail", "break"])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_old_or_new_is_whole_wherever_a_writer_stops(kind: str, way: str, renames: list[str], tmp_path: Path) -> None:
    names = {"target"} if kind == "file" else FOLDER
    before, after = ({name: text for name in names} for text in ("before", "after"))
    rows = steps(tmp_path, kind, way, *renames)
    # Two renames cannot do without a moment between them, in which the old folder has made way.
    at_once = [row["at_once"] for row in rows if row["at_once"] or not (kind == "folder" and renames)]
    seen = [{name: text for name, text in content.items() if ".partial" not in name} for content in at_once]
    assert [content for content in seen if content not in (before, after, {})] == []
    assert seen.count({}) <= (1 if renames and kind == "folder" and way != "fail" else 0)
    assert [row["later"] for row in rows if row["later"] not in (before, after)] == []
    assert {tuple(row["left"]) for row in rows} == {("target",)}


@pytest.mark.parametrize("renames", [[], ["two-renames"]], ids=["no-replace", "plain"])
def test_additions_are_made_all_or_none(renames: list[str], tmp_path: Path) -> None:
    before = {name: "before" for name in FOLDER}
    rows = steps(tmp_path, "additions", "fail", *renames)
    for row in rows:
        assert row["at_once"] in (before, before | {f"target/{name}": "after" for name in "xyz"})
        assert row["later"] == row["at_once"]
        assert row["left"] == ["target"]


def test_an_exchange_is_what_replaces_a_folder_here(tmp_path: Path) -> None:
    """Else the tests above would try one way twice."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text("")
    assert partial._renamed(tmp_path / "one", tmp_path / "two", partial._EXCHANGE)
    assert os.listdir(tmp_path / "one") == ["two"]


WAITING = """
    import sys
    from pathlib import Path
    from lhuc_asr.base.atomic import atomic_folder, atomic_path
    with {kind}(Path(sys.argv[1])) as temporary:
        {write}
        print("begun", flush=True)
        sys.stdin.read()
"""
WRITERS = {
    "file": WAITING.format(kind="atomic_path", write='temporary.write_text("slow")'),
    "folder": WAITING.format(kind="atomic_folder", write='(temporary / "a").write_text("slow")'),
}


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_living_writer_is_not_harmed_and_a_dead_one_is_cleaned_up(kind: str, tmp_path: Path) -> None:
    commands = ([sys.executable, "-c", textwrap.dedent(WRITERS[kind]), tmp_path / name] for name in ("living", "dead"))
    living, dead = (
        subprocess.Popen(each, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for each in commands
    )
    for writer in (living, dead):
        assert writer.stdout is not None
        assert writer.stdout.readline() == "begun\n"
    dead.kill()
    dead.communicate(timeout=60)
    assert dead.returncode == -signal.SIGKILL
    write_text(tmp_path / "other", "")
    assert len(os.listdir(tmp_path)) == 2, "the living writer's place, and the other file"
    living.communicate(timeout=60)
    assert living.returncode == 0
    assert sorted(os.listdir(tmp_path)) == ["living", "other"]
    assert (tmp_path / "living" / "a" if kind == "folder" else tmp_path / "living").read_text() == "slow"


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    """Only folders with our marks are removed: not a file, not a link, not a user's folder of a similar name."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "old").write_text("kept")
    (tmp_path / ".lhuc-link.partial").symlink_to("elsewhere")
    (tmp_path / ".lhuc-file.partial").write_text("kept")
    (tmp_path / ".lhuc-notes").mkdir()
    (tmp_path / ".video.partial").mkdir()
    names = {*os.listdir(tmp_path), "new"}
    write_text(tmp_path / "new", "")
    assert set(os.listdir(tmp_path)) == names
    assert os.listdir(tmp_path / "elsewhere") == ["old"]


def test_a_copy_in_a_dead_place_is_put_back_only_where_nothing_stands(tmp_path: Path) -> None:
    for name in ("gone", "there"):
        kept = tmp_path / ".lhuc-0.partial" / "old" / "000000" / name
        kept.mkdir(parents=True)
        (kept / "a").write_text("old")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a").write_text("new")
    write_text(tmp_path / "other", "")
    assert (tmp_path / "gone" / "a").read_text() == "old"
    assert (tmp_path / "there" / "a").read_text() == "new"
    assert sorted(os.listdir(tmp_path)) == ["gone", "other", "there"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_writers_of_one_path_do_not_meet(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three threads write, each a content of its own; what is read is always one of the three, whole."""
    if kind == "folder":
        # Without an exchange a folder is missing for a moment, but never lost and never a mixture.
        monkeypatch.setattr(partial, "_renameat2", None)
    path, problems, torn = tmp_path / "target", [], []
    contents = [letter * size for letter, size in ((b"A", 50_000), (b"B", 70_000), (b"C", 90_000))]

    def write(content: bytes) -> None:
        try:
            for _ in range(15):
                if kind == "file":
                    write_bytes(path, content)
                else:
                    with atomic_folder(path) as temporary:
                        for name in "xy":
                            (temporary / name).write_bytes(content)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if kind == "file" and path.exists() and path.read_bytes() not in contents:
            torn.append(path)
    assert problems == []
    assert torn == []
    last = {file.read_bytes() for file in ([path] if kind == "file" else path.iterdir())}
    assert len(last) == 1
    assert last <= set(contents)
    assert os.listdir(tmp_path) == ["target"]


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "two-renames"])
def test_a_folder_that_another_writer_has_just_moved_away_is_no_obstacle(
    exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other writer is faster between each look at the target and what follows from it."""
    if not exchange:
        monkeypatch.setattr(partial, "_renameat2", None)
    target, away = tmp_path / "target", tmp_path / "away"
    looks = []
    lexists, rename = os.path.lexists, os.rename

    def moved_after_the_look(path: Path) -> bool:
        there = lexists(path)
        if path == target and there:
            looks.append(there)
            rename(target, away / str(len(looks)))
        return there

    with atomic_folder(target) as temporary:
        (temporary / "a").write_text("old")
    away.mkdir()
    with atomic_folder(target) as temporary:
        (temporary / "a").write_text("new")
        monkeypatch.setattr(os.path, "lexists", moved_after_the_look)
    assert looks
    assert (target / "a").read_text() == "new"
    assert (away / "1" / "a").read_text() == "old"


def test_a_file_that_goes_while_its_mode_is_looked_at_leaves_the_new_file_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "target"
    with atomic_folder(target) as temporary:
        (temporary / "a").write_text("old")
    lstat = os.lstat

    def removed_before_the_look(path: Path) -> os.stat_result:
        if path == target / "a":
            path.unlink(missing_ok=True)
        return lstat(path)

    monkeypatch.setattr(os, "lstat", removed_before_the_look)
    with atomic_folder(target) as temporary:
        (temporary / "a").write_text("new")
    assert (target / "a").read_text() == "new"


def test_many_files_in_one_folder_do_not_search_it_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searches = []
    remove_dead = partial._remove_dead
    monkeypatch.setattr(partial, "_remove_dead", lambda folder: (searches.append(folder), remove_dead(folder)))
    for number in range(20):
        write_text(tmp_path / str(number), "")
    assert len(searches) == 1


def test_a_file_system_without_locks_is_written_to_and_nothing_is_removed_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(partial, "lock_descriptor", no_locks)
    (tmp_path / ".lhuc-perhaps-alive.partial").mkdir()
    write_text(tmp_path / "a", "text")
    assert (tmp_path / "a").read_text() == "text"
    assert (tmp_path / ".lhuc-perhaps-alive.partial").exists()


def test_an_old_folder_that_may_not_be_written_to_goes_too(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "target") as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "a").write_text("")
    (tmp_path / "target" / "inner").chmod(0o555)
    with atomic_folder(tmp_path / "target") as temporary:
        (temporary / "b").write_text("")
    assert os.listdir(tmp_path / "target") == ["b"]
    assert os.listdir(tmp_path) == ["target"]


def test_a_failure_of_the_body_is_the_bodys_own(tmp_path: Path) -> None:
    """Only what is about the output is told as being about the output."""
    with pytest.raises(FileNotFoundError, match="input"), atomic_path(tmp_path / "a"):
        (tmp_path / "input").read_text()
    with pytest.raises(OutputError, match=r"a: cannot be written \(No space left on device\); free some space"):  # noqa: SIM117
        with atomic_path(tmp_path / "a"):
            raise OSError(28, "No space left on device")
    assert os.listdir(tmp_path) == []
