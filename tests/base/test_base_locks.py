"""Locks on folders: a second run is refused at once, a killed one leaves nothing locked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lhuc_asr.base.errors import ExperimentError
from lhuc_asr.base.locks import locked

HOLD = """
import sys, time
from pathlib import Path
from lhuc_asr.base.locks import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(600)
"""


def test_a_folder_is_made_and_may_be_locked_again(tmp_path: Path) -> None:
    for _ in range(2):
        with locked(tmp_path / "deep" / "exp") as folder:
            assert folder.is_dir()


def test_a_second_run_is_refused_and_the_first_keeps_its_lock(tmp_path: Path) -> None:
    with locked(tmp_path):
        for _ in range(2):
            with (
                pytest.raises(ExperimentError, match="another run is using this folder; wait for it"),
                locked(tmp_path),
            ):
                pass


def test_a_killed_process_leaves_the_folder_free(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(ExperimentError, match="another run is using this folder"), locked(tmp_path):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with locked(tmp_path):
        pass


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ExperimentError, match=r"cannot be written to \(.+\); choose another"),
        locked(tmp_path / "file"),
    ):
        pass


def test_a_link_in_the_locks_place_is_not_written_through(tmp_path: Path) -> None:
    """Releases of filelock before 3.20.1 emptied what the link names."""
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp" / ".lock").symlink_to("../precious")
    with pytest.raises(ExperimentError, match="exp: cannot be written to"), locked(tmp_path / "exp"):
        pass
    assert (tmp_path / "precious").read_text() == "kept"
