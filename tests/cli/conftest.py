"""The command line in this process, and a recording for it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lhuc_asr.audio.utterance import read_manifest
from lhuc_asr.cli import main as command_line


@pytest.fixture
def command(package_log, monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """Run ``lhuc-asr`` in this process; returns what it exits with."""

    def call(*arguments: object) -> object:
        monkeypatch.setattr(sys, "argv", ["lhuc-asr", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            command_line.main()
        return caught.value.code

    return call


@pytest.fixture
def spoken(finished: Path) -> Path:
    """A recording of a test speaker."""
    return next(u.audio for u in read_manifest(finished / "corpus" / "test.jsonl") if u.speaker == "2001")
