"""A run that is killed at any moment ends, run again, as if nothing had happened; a full disk costs nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

MAIN = "from lhuc_asr.cli.main import main; main()"
KILLS = 6
PATIENCE_SECONDS = 300.0
WORKERS_END_SECONDS = 20.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def start(recipe: Path, folder: Path, log: Path) -> subprocess.Popen[bytes]:
    """``lhuc-asr run`` in a process group of its own, by which its workers are known."""
    command = [sys.executable, "-c", MAIN, "run", str(recipe), f"exp={folder}", "workers=2"]
    with log.open("ab") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)


def members(group: int) -> list[int]:
    """Processes of a group that still run."""
    running = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[2]) == group and fields[0] != "Z":
                running.append(int(entry.name))
    return running


def wait_for_none(group: int) -> None:
    end = time.monotonic() + WORKERS_END_SECONDS
    while left := members(group):
        assert time.monotonic() < end, f"left behind: {left}"
        time.sleep(0.2)


def finished_stages(folder: Path) -> set[str]:
    return {path.stem for path in (folder / "stages").glob("*.json")}


def executed(folder: Path) -> list[str]:
    """Stages that ended, out of the figures; a last line that was cut by the kill is not a stage."""
    path = folder / "metrics.jsonl"
    stages = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        row = json.loads(line)
        if set(row) == {"stage", "time", "seconds"}:
            stages.append(row["stage"])
    return stages


def test_a_killed_run_ends_with_the_same_bytes(finished: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    folder, log = tmp_path / "exp", tmp_path / "log"
    moments = np.random.default_rng(1).uniform(4.0, 9.0, KILLS)
    killed_in = []
    for moment in moments:
        process = start(tiny_recipe, folder, log)
        before = len(executed(folder))
        done = finished_stages(folder)
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed_in.append(len(finished_stages(folder)))
        wait_for_none(process.pid)
        assert not done & set(executed(folder)[before:]), "a finished stage was repeated"
    assert killed_in, "no run was killed"
    process = start(tiny_recipe, folder, log)
    assert process.wait(PATIENCE_SECONDS) == 0, log.read_text(encoding="utf-8")
    wait_for_none(process.pid)
    for expected in finished.rglob("wer.json"):
        assert (folder / expected.relative_to(finished)).read_bytes() == expected.read_bytes()
    assert (folder / "am/si/model.safetensors").read_bytes() == (finished / "am/si/model.safetensors").read_bytes()
    left = [path for path in folder.rglob("*") if path.name.endswith((".partial", ".old")) or "training-" in path.name]
    assert not left
    assert "Traceback" not in log.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "stage", ["lexicon", "features of train", "monophones", "network si", "graph", "lhuc over test"]
)
def test_a_kill_as_a_stage_begins_costs_only_that_stage(
    stage: str, finished: Path, copied: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    """The moment that hurts most: the stage's record is gone, its outputs half replaced."""
    (copied / "stages" / f"{stage}.json").unlink()
    before = len(executed(copied))
    process = start(tiny_recipe, copied, tmp_path / "log")
    end = time.monotonic() + PATIENCE_SECONDS
    while f"INFO {stage}\n" not in (tmp_path / "log").read_text(encoding="utf-8"):
        assert time.monotonic() < end
        time.sleep(0.02)
    process.kill()
    process.wait()
    wait_for_none(process.pid)
    again = start(tiny_recipe, copied, tmp_path / "log")
    assert again.wait(PATIENCE_SECONDS) == 0
    assert executed(copied)[before:] == [stage]
    for expected in finished.rglob("wer.json"):
        assert (copied / expected.relative_to(finished)).read_bytes() == expected.read_bytes()


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.8, 0.9, 0.98])
def test_a_full_disk_is_one_line_and_room_mends_it(
    share: float, finished: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    """The disk holds a share of what the experiment takes."""
    # In tmpfs a file takes whole pages of 4 KiB.
    pages = sum(-(-path.stat().st_size // 4096) for path in finished.rglob("*") if path.is_file())
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={round(share * 4 * pages)}k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small disk is not permitted here")
    try:
        process = start(tiny_recipe, disk / "exp", tmp_path / "log")
        assert process.wait(PATIENCE_SECONDS) == 1
        wait_for_none(process.pid)
        text = (tmp_path / "log").read_text(encoding="utf-8")
        assert "Traceback" not in text, text
        last = text.splitlines()[-1]
        assert last.startswith("lhuc-asr: error: ")
        assert "No space left on device" in last or "room" in last, last
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        done = finished_stages(disk / "exp")
        before = len(executed(disk / "exp"))
        again = start(tiny_recipe, disk / "exp", tmp_path / "log")
        assert again.wait(PATIENCE_SECONDS) == 0, (tmp_path / "log").read_text(encoding="utf-8")
        assert not done & set(executed(disk / "exp")[before:])
        for expected in finished.rglob("wer.json"):
            assert (disk / "exp" / expected.relative_to(finished)).read_bytes() == expected.read_bytes()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_folder_without_permission_is_one_line(tiny_recipe: Path) -> None:
    """Root may write everywhere: the process becomes nobody once it has loaded what it needs."""
    become_nobody = "import os, lhuc_asr.pipeline.run, lhuc_asr.score.tables\nif os.geteuid() == 0: os.setuid(65534)\n"
    # pytest's own temporary folders are closed to others.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "exp"
        folder.mkdir()
        recipe = Path(shutil.copy(tiny_recipe / "config.yaml", name))
        for path, mode in ((folder, 0o555), (recipe.parent, 0o755), (recipe, 0o644)):
            path.chmod(mode)
        command = [sys.executable, "-c", become_nobody + MAIN, "run", str(recipe), f"exp={folder}"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
        folder.chmod(0o755)
    assert ended.returncode == 1
    expected = f"lhuc-asr: error: {folder}: cannot be written to (Permission denied); choose another with exp=DIR"
    assert ended.stderr.splitlines()[-1] == expected
