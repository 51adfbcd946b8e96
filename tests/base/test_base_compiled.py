"""Compiled loops where their code can be kept, and where not."""

import errno
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numba
import pytest

import lhuc_asr
from lhuc_asr.base.compiled import compiled


def double(value: int) -> int:
    return 2 * value


def test_a_compiled_function_does_what_it_did() -> None:
    assert compiled(double)(21) == 42


def module(folder: Path, name: str) -> Callable[[int], int]:
    """A compiled function from a file of its own."""
    path = folder / f"{name}.py"
    path.write_text(
        "from lhuc_asr.base.compiled import compiled\n\n@compiled\ndef double(value):\n    return 2 * value\n"
    )
    spec = importlib.util.spec_from_file_location(name, path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded.double


def test_nowhere_to_keep_the_code_is_not_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As numba does in a container that is read-only."""

    def nowhere(*arguments: object) -> None:
        raise RuntimeError("cannot cache function 'double': no locator available")

    monkeypatch.setattr("lhuc_asr.base.compiled.FunctionCache.__init__", nowhere)
    assert module(tmp_path, "nowhere")(21) == 42


@pytest.mark.parametrize("ending", [".nbi", ".nbc"])
@pytest.mark.parametrize("left", [0, 10, 60])
def test_a_damaged_cache_is_made_again(
    tmp_path: Path, ending: str, left: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    assert module(tmp_path, "cached")(21) == 42
    (file,) = tmp_path.rglob(f"*{ending}")
    file.write_bytes(file.read_bytes()[:left])
    assert module(tmp_path, "cached")(21) == 42
    assert "damaged cache of compiled code" in caplog.text
    caplog.clear()
    again = module(tmp_path, "cached")
    assert again(21) == 42
    assert caplog.text == ""
    assert again.stats.cache_hits


def test_a_full_disk_is_not_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr("numba.core.caching.IndexDataCacheFile._save_data", full)
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    assert module(tmp_path, "full")(21) == 42


CALLER = """
from lhuc_asr.base.compiled import compiled
from lhuc_asr.lang.callee import moved

@compiled
def doubled(value):
    return 2 * moved(value)
"""
CALLEE = """
from lhuc_asr.base.compiled import compiled
from lhuc_asr.lang.step import STEP

@compiled
def moved(value):
    return value + STEP
"""
SHOWN = "from lhuc_asr.lang.caller import doubled; print(doubled(10), sum(doubled.stats.cache_hits.values()))"


def test_a_change_of_what_a_function_calls_compiles_it_again(tmp_path: Path) -> None:
    """numba compiles what is called, and constants, into the caller, and looks at the caller's file alone."""
    package = tmp_path / "lhuc_asr"
    source = Path(lhuc_asr.__file__).parent
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__"))
    files = {"caller": CALLER, "callee": CALLEE, "step": "STEP = 1\n"}
    for name, text in files.items():
        (package / "lang" / f"{name}.py").write_text(text)

    def shown() -> list[int]:
        environment = os.environ | {"PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
        command = [sys.executable, "-c", SHOWN]
        return [int(part) for part in subprocess.check_output(command, cwd=tmp_path, env=environment).split()]

    assert shown() == [2 * (10 + 1), 0]
    assert shown() == [2 * (10 + 1), 1]
    (package / "lang" / "callee.py").write_text(CALLEE.replace("value + STEP", "value - STEP"))
    assert shown() == [2 * (10 - 1), 0]
    (package / "lang" / "step.py").write_text("STEP = 3\n")
    assert shown() == [2 * (10 - 3), 0]
    (package / "lang" / "elsewhere.py").write_text("# compiled functions do not depend on it\n")
    assert shown() == [2 * (10 - 3), 1]
