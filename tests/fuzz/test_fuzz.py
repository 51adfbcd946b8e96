"""Thousands of changed files: each is read, or refused in one line; nothing crashes, hangs or floods the memory."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from isolation import try_inputs
from parsers import PARSERS, names
from seeds import write_seeds

# Inputs in the default suite, and with ``-m slow``, for each parser.
FEW, MANY = 12, 1600
PROCESSES = 2


@pytest.fixture(scope="session")
def seeds(finished: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch_session: pytest.MonkeyPatch) -> Path:
    from lhuc_asr.pipeline.export import export

    folder = tmp_path_factory.mktemp("fuzz")
    export(finished, folder / "exported")
    write_seeds(folder / "seeds", finished, folder / "exported")
    monkeypatch_session.setenv("FUZZ_MODEL", str(folder / "exported"))
    return folder / "seeds"


@pytest.fixture(scope="session")
def monkeypatch_session() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def faults(seeds: Path, work: Path, count: int) -> str:
    """All faults, one a line; each line names the parser and the number with which ``child.py`` makes the input."""
    with ThreadPoolExecutor(PROCESSES) as threads:
        tallies = list(threads.map(lambda name: try_inputs(name, seeds, work, 0, count), names()))
    for name, tally in zip(names(), tallies, strict=True):
        assert tally.accepted + tally.refused + len(tally.faults) == count, name
        assert tally.accepted < count, f"{name}: nothing was refused; are the files changed at all?"
    return "\n".join(str(fault) for tally in tallies for fault in tally.faults)


@pytest.mark.parametrize("name", names())
def test_whole_files_are_read(name: str, seeds: Path, tmp_path: Path) -> None:
    """Otherwise every changed file would be refused for a reason of its own."""
    whole = Path(shutil.copytree(seeds / PARSERS[name].seeds, tmp_path / "whole"))
    if name != "audio":
        PARSERS[name].read(whole)
        return
    for path in sorted(whole.iterdir()):  # one recording at a time
        alone = tmp_path / path.name
        alone.mkdir()
        PARSERS[name].read(Path(shutil.copy(path, alone)).parent)


CHILD = """
import os, signal, sys, time
for number in range(int(sys.argv[4]), int(sys.argv[5])):
    if number == 1:
        os.kill(os.getpid(), signal.SIGSEGV)
    if number == 3:
        time.sleep(60)
    os.write(1, b"fault KeyError\\n" if number == 2 else b"refused\\n" if number == 4 else b"accepted\\n")
"""


def test_a_crash_a_hang_and_a_foreign_exception_are_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "child.py").write_text(CHILD)
    monkeypatch.setattr("isolation.HERE", tmp_path)
    monkeypatch.setattr("isolation.SECONDS", 1.0)
    tally = try_inputs("any", tmp_path, tmp_path, 0, 6)
    assert (tally.accepted, tally.refused) == (2, 1)
    assert [fault.number for fault in tally.faults] == [1, 2, 3]
    assert ["ended with -11" in tally.faults[0].what, "no answer in 1 s" in tally.faults[2].what] == [True, True]


def test_changed_files_are_read_or_refused(seeds: Path, tmp_path: Path) -> None:
    assert faults(seeds, tmp_path, FEW) == ""


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_twenty_thousand_changed_files_are_read_or_refused(seeds: Path, tmp_path: Path) -> None:
    assert MANY * len(names()) >= 20_000
    assert faults(seeds, tmp_path, MANY) == ""
