"""The harness of kills finds each kind of damage: commands that are wrong on purpose, and one that is right."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from kills import Command, Trial

# Writes b"new" * 30,000 to ``kept``, whole or not at all, and leaves nothing else.
RIGHT = """
import os, pathlib, time
pathlib.Path("beside").write_bytes(b"new" * 30000)
time.sleep(0.25)
os.replace("beside", "kept")
"""
# Half of the new text is in place for a while.
TORN = """
import time
with open("kept", "wb", buffering=0) as file:
    file.write(b"new" * 15000)
    time.sleep(0.25)
    file.write(b"new" * 15000)
"""
# The temporary file has a name of its own each time.
LEFT_OVER = RIGHT.replace('"beside"', 'f"beside{os.getpid()}"')
# What an earlier run left changes the result.
OTHER_BYTES = """
import os, pathlib, time
stale = pathlib.Path("beside").exists()
pathlib.Path("beside").write_bytes(b"new" * 30000)
time.sleep(0.25)
os.replace("beside", "kept")
if stale:
    pathlib.Path("kept").write_bytes(b"mixture")
"""
# What an earlier run left stops the next one.
STOPPED = """
import os, sys, time
if os.path.exists("lock"):
    sys.exit("locked")
open("lock", "w").close()
time.sleep(0.25)
os.remove("lock")
open("kept", "wb").write(b"new" * 30000)
"""


def trial(entry: str, folder: Path) -> Trial:
    """A command on a folder in which ``kept`` is old."""
    (folder / "before").mkdir()
    (folder / "before" / "kept").write_bytes(b"old")
    made = Trial(Command("command", (), folder / "before", ("kept",), entry), folder / "work")
    made.prepare()
    return made


def faults(entry: str, folder: Path, how: Callable[[Trial, random.Random], list[str]] = Trial.killed) -> str:
    """What is found in a few disturbances, in one text."""
    made, rng = trial(entry, folder), random.Random(1)
    return "\n".join(fault for _ in range(6) for fault in how(made, rng))


def test_a_right_command_has_no_fault(tmp_path: Path) -> None:
    assert faults(RIGHT, tmp_path) == ""


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        (TORN, "kept: neither as before nor as after"),
        (LEFT_OVER, "left over: beside"),
        (OTHER_BYTES, "other bytes: kept"),
        (STOPPED, "the next run ends with 1: locked"),
    ],
    ids=["torn", "left over", "other bytes", "stopped"],
)
def test_a_wrong_command_is_found_out_by_kills(entry: str, fault: str, tmp_path: Path) -> None:
    assert fault in faults(entry, tmp_path)


def test_a_wrong_command_is_found_out_by_many_kills_in_a_row(tmp_path: Path) -> None:
    made = trial(OTHER_BYTES, tmp_path)
    assert "other bytes: kept" in "\n".join(made.killed_often(random.Random(1), 3))


@pytest.mark.parametrize(("entry", "fault"), [(TORN, "neither as before"), (RIGHT, "Traceback")])
def test_full_disks_find_torn_files_and_tracebacks(entry: str, fault: str, tmp_path: Path) -> None:
    assert fault in faults(entry, tmp_path, Trial.full_disk)


def test_commands_whose_files_differ_from_run_to_run_cannot_be_judged(tmp_path: Path) -> None:
    entry = "import os; open(f'kept{os.getpid()}', 'w').close()"
    with pytest.raises(AssertionError, match="in one run only"):
        trial(entry, tmp_path)
