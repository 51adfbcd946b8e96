"""Compiled loops where their code can be kept, and where not."""

import errno
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numba
import pytest

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
