"""Work in other processes: in order, bounded, and nobody is left behind."""

from __future__ import annotations

import operator
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lhuc_asr.base.executor import IN_FLIGHT, WorkerError, WorkerPool, process_map

PATIENCE_SECONDS = 20.0


def test_one_worker_works_here_and_lazily() -> None:
    read: list[int] = []

    def items() -> Iterator[int]:
        for number in range(5):
            read.append(number)
            yield number

    results = process_map(operator.neg, items(), 1)
    assert next(results) == 0
    assert read == [0]
    assert list(results) == [-1, -2, -3, -4]


def test_results_come_in_order_and_items_are_read_as_needed() -> None:
    read: list[int] = []

    def items() -> Iterator[int]:
        for number in range(40):
            read.append(number)
            yield number

    results = process_map(operator.neg, items(), 2)
    assert next(results) == 0
    assert len(read) <= IN_FLIGHT * 2
    assert list(results) == [-number for number in range(1, 40)]


def test_an_exception_of_the_function_comes_through() -> None:
    with pytest.raises(TypeError, match="bad operand"):
        list(process_map(operator.neg, [1, "x", 2], 2))


def test_a_worker_that_dies_is_told() -> None:
    with pytest.raises(WorkerError, match=r"a worker process died, .*; try workers=1, or run again"):
        list(process_map(os._exit, [9, 9, 9], 2))


def test_each_item_is_worked_on_once_and_the_next_begins_when_one_is_done(tmp_path: Path) -> None:
    with WorkerPool(2) as pool:
        pool.each(os.mkdir, [tmp_path / str(number) for number in range(5)])
    assert {path.name for path in tmp_path.iterdir()} == set("01234")


def test_after_a_failure_no_further_item_is_begun(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    read: list[int] = []

    def items() -> Iterator[Path]:
        for number in range(20):
            read.append(number)
            yield tmp_path / str(number)

    with WorkerPool(1) as pool, pytest.raises(FileExistsError):
        pool.each(os.mkdir, items())
    assert read == [0, 1]
    assert {path.name for path in tmp_path.iterdir()} == {"0", "1"}


def test_a_worker_that_dies_among_long_items_is_told() -> None:
    with WorkerPool(2) as pool, pytest.raises(WorkerError, match="a worker process died"):
        pool.each(os._exit, [9, 9, 9])


def test_a_pool_starts_its_processes_once_and_serves_again_after_an_error(tmp_path: Path) -> None:
    with WorkerPool(1, os.chdir, (tmp_path,)) as pool:
        with pytest.raises(TypeError, match="bad operand"):
            list(pool.map(operator.neg, [1, "x"]))
        assert list(pool.map(os.path.abspath, ["a", "b", "c"])) == [str(tmp_path / name) for name in "abc"]


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    code = f"""
        import os, signal, sys, time
        from lhuc_asr.base.executor import process_map
        if __name__ == "__main__":
            results = process_map(eval, ["__import__('os').getpid()"] * 2 + ["__import__('time').sleep(600)"] * 9, 2)
            open({str(pids)!r}, "w").write(f"{{next(results)}} {{next(results)}}")
            time.sleep(600)
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
    try:
        wait_for(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    finally:
        parent.kill()
        parent.wait()
    workers = {int(pid) for pid in pids.read_text().split()}
    wait_for(lambda: not any(alive(pid) for pid in workers))


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not yet waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(condition) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
