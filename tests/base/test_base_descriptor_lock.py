"""Locks on open files: one holder, released with its process; the branch for Windows on a stand-in of its library."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from lhuc_asr.base import descriptor_lock
from lhuc_asr.base.descriptor_lock import lock_descriptor, open_to_lock

HOLDER = """
import sys
from pathlib import Path
from lhuc_asr.base.descriptor_lock import lock_descriptor, open_to_lock
lock_descriptor(open_to_lock(Path(sys.argv[1]), 0o600), wait=False)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_lock_has_one_holder_and_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        descriptor = open_to_lock(path, 0o600)
        with pytest.raises(BlockingIOError):
            lock_descriptor(descriptor, wait=False)
        holder.kill()
        lock_descriptor(descriptor, wait=True)
    os.close(descriptor)


def test_what_is_opened_is_made_with_its_mode_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    os.close(open_to_lock(path, 0o600))
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text("content")
    os.close(open_to_lock(path, 0o600))
    assert path.read_text() == "content"


def test_a_link_is_not_followed_and_a_pipe_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    (tmp_path / "link").symlink_to("precious")
    with pytest.raises(OSError, match="symbolic links"):
        open_to_lock(tmp_path / "link", 0o600)
    os.mkfifo(tmp_path / "pipe")
    os.close(open_to_lock(tmp_path / "pipe", 0o600))


class Windows(ModuleType):
    """msvcrt's locks on bytes, each of which one descriptor may hold."""

    LK_LOCK, LK_NBLCK = 1, 2

    def __init__(self) -> None:
        super().__init__("msvcrt")
        self.held: dict[int, int] = {}
        self.modes: list[int] = []

    def locking(self, descriptor: int, mode: int, count: int) -> None:
        assert count == 1
        self.modes.append(mode)
        place = os.lseek(descriptor, 0, os.SEEK_CUR)
        if self.held.setdefault(place, descriptor) != descriptor:
            raise PermissionError(13, "Permission denied")


def test_on_windows_a_byte_that_no_file_has_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    windows = Windows()
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "msvcrt", windows)
    monkeypatch.setitem(sys.modules, "fcntl", None)
    spec = importlib.util.spec_from_file_location("descriptor_lock_of_windows", descriptor_lock.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    first, second = (module.open_to_lock(tmp_path / "lock", 0o600) for _ in range(2))
    module.lock_descriptor(first, wait=True)
    with pytest.raises(BlockingIOError):
        module.lock_descriptor(second, wait=False)
    assert list(windows.held.values()) == [first]
    assert min(windows.held) >= 1 << 40
    assert windows.modes == [windows.LK_LOCK, windows.LK_NBLCK]
    for descriptor in (first, second):
        os.close(descriptor)
