"""The record of a run, with a git that is missing, refuses, asks, or hangs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lhuc_asr.base import experiment_folder
from lhuc_asr.base.experiment_folder import run_record

COMMIT = "0123456789012345678901234567890123456789"


def git(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program called git first."""
    program = folder / "git"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")


@pytest.mark.parametrize(
    ("script", "state"),
    [
        (f'case "$*" in *rev-parse*) echo {COMMIT};; esac', {"commit": COMMIT, "dirty": False}),
        (f'case "$*" in *rev-parse*) echo {COMMIT};; *) echo " M x";; esac', {"commit": COMMIT, "dirty": True}),
        ("echo 'fatal: detected dubious ownership in repository' >&2; exit 128", None),
        ("read answer && exit 0; exit 3", None),  # it asks for a password
        ('test "$GIT_TERMINAL_PROMPT" = 0 && exit 4', None),
        ("kill -9 $$", None),
    ],
)
def test_git_is_asked_and_believed_only_if_it_answers(
    script: str, state: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    git(tmp_path, script, monkeypatch)
    assert run_record(1)["git"] == state


def test_a_git_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(experiment_folder, "GIT_SECONDS", 0.1)
    git(tmp_path, "sleep 5", monkeypatch)
    assert run_record(1)["git"] is None


def test_words_of_git_that_are_not_text_do_not_end_a_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    git(tmp_path, r"printf '\377\376'", monkeypatch)
    assert run_record(1)["git"] == {"commit": "��", "dirty": True}


def test_without_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run_record(1)["git"] is None


def test_the_record_is_made_where_nothing_can_be_asked_of_the_terminal(tmp_path: Path) -> None:
    root = str(Path(experiment_folder.__file__).parents[2])
    code = "from lhuc_asr.base.experiment_folder import run_record; run_record(1)"
    done = subprocess.run(
        ["bash", "-c", f'{sys.executable} -c "{code}" <&-'],
        cwd=tmp_path,
        env={"PATH": "/bin:/usr/bin", "PYTHONPATH": root},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
