"""Thousands of changed files: each is read, or refused in one line; nothing crashes, hangs or floods the memory."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from isolation import try_inputs
from parsers import names
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
        assert tally.accepted < count or name == "audio", f"{name}: nothing was refused; are the files changed at all?"
    return "\n".join(str(fault) for tally in tallies for fault in tally.faults)


def test_changed_files_are_read_or_refused(seeds: Path, tmp_path: Path) -> None:
    assert faults(seeds, tmp_path, FEW) == ""


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_twenty_thousand_changed_files_are_read_or_refused(seeds: Path, tmp_path: Path) -> None:
    assert MANY * len(names()) >= 20_000
    assert faults(seeds, tmp_path, MANY) == ""
