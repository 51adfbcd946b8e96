"""Work in other processes: in order, bounded, and nobody is left behind."""

from __future__ import annotations

import operator
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lhuc_asr.base.executor import IN_FLIGHT, Executor, WorkerError

PATIENCE_SECONDS = 20.0


@pytest.mark.parametrize("processes", [0, 1])
def test_one_process_is_this_one_and_lazy(processes: int) -> None:
    read: list[int] = []

    def items() -> Iterator[int]:
        for number in range(5):
            read.append(number)
            yield number

    results = Executor(processes).map(operator.neg, items())
    assert next(results) == 0
    assert read == [0]
    assert list(results) == [-1, -2, -3, -4]


def test_results_come_in_order_and_items_are_read_as_needed() -> None:
    read: list[int] = []

    def items() -> Iterator[int]:
        for number in range(40):
            read.append(number)
            yield number

    with Executor(2) as executor:
        results = executor.map(operator.neg, items())
        assert next(results) == 0
        assert len(read) <= IN_FLIGHT * 2
        assert list(results) == [-number for number in range(1, 40)]


def test_an_exception_of_the_function_comes_through() -> None:
    with Executor(2) as executor, pytest.raises(TypeError, match="bad operand"):
        list(executor.map(operator.neg, [1, "x", 2]))


def test_a_worker_that_dies_is_told() -> None:
    message = r"a worker process died, .*; try workers=1, or run again"
    with Executor(2) as executor, pytest.raises(WorkerError, match=message):
        list(executor.map(os._exit, [9, 9, 9]))


def test_processes_are_not_started_without_with() -> None:
    with pytest.raises(WorkerError, match="the executor is not open; use it as: with Executor"):
        list(Executor(2).map(operator.neg, [1]))


def test_each_item_is_worked_on_once_and_the_next_begins_when_one_is_done(tmp_path: Path) -> None:
    for processes in (1, 2):
        with Executor(processes) as executor:
            executor.each(os.mkdir, [tmp_path / f"{number} of {processes}" for number in range(5)])
    assert {path.name for path in tmp_path.iterdir()} == {f"{n} of {p}" for n in range(5) for p in (1, 2)}


def test_after_a_failure_no_further_item_is_begun(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
    read: list[int] = []

    def items() -> Iterator[Path]:
        for number in range(20):
            read.append(number)
            yield tmp_path / str(number)

    with Executor(1) as executor, pytest.raises(FileExistsError):
        executor.each(os.mkdir, items())
    assert read == [0, 1]
    read.clear()
    (tmp_path / "0").rmdir()
    with Executor(2) as executor, pytest.raises(FileExistsError):
        executor.each(os.mkdir, items())
    # 0 is done while 1 fails, so that at most one more begins.
    assert len(read) <= 3
    assert {path.name for path in tmp_path.iterdir()} <= {"0", "1", "2"}


def test_a_worker_that_dies_among_long_items_is_told() -> None:
    with Executor(2) as executor, pytest.raises(WorkerError, match="a worker process died"):
        executor.each(os._exit, [9, 9, 9])


@pytest.mark.parametrize("processes", [1, 2])
def test_what_the_start_makes_goes_to_every_task_also_after_an_error(processes: int) -> None:
    with Executor(processes, operator.add, (20, 30)) as executor:
        with pytest.raises(TypeError, match="unsupported operand"):
            list(executor.map(operator.sub, [1, "x"]))
        assert list(executor.map(operator.sub, [1, 2, 3])) == [49, 48, 47]


def test_two_executors_in_this_process_do_not_share() -> None:
    one, two = (Executor(1, int, (number,)) for number in (10, 20))
    assert list(zip(one.map(operator.add, [1, 2]), two.map(operator.add, [1, 2]), strict=True)) == [(11, 21), (12, 22)]


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    code = f"""
        import os, signal, sys, time
        from lhuc_asr.base.executor import Executor
        if __name__ == "__main__":
            executor = Executor(2).__enter__()
            results = executor.map(eval, ["__import__('os').getpid()"] * 2 + ["__import__('time').sleep(600)"] * 9)
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


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 1)])
@pytest.mark.parametrize("work", ["executor.each(eval, tasks)", "list(executor.map(eval, tasks))"])
def test_a_process_that_is_told_to_end_does_not_wait_for_the_tasks_of_its_workers(
    tmp_path: Path, number: int, status: int, work: str
) -> None:
    code = f"""
        from lhuc_asr.base.executor import Executor
        from lhuc_asr.cli.process import prepare_process
        if __name__ == "__main__":
            prepare_process()
            begun = "__import__('pathlib').Path({str(tmp_path)!r}, str(__import__('os').getpid())).touch()"
            tasks = [f"({{begun}}, __import__('time').sleep(600))"] * 4
            with Executor(2) as executor:
                {work}
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: len(list(tmp_path.iterdir())) == 2)
        parent.send_signal(number)
        assert parent.wait(PATIENCE_SECONDS) in (status, -number)
    finally:
        parent.kill()
    assert not any(alive(int(path.name)) for path in tmp_path.iterdir())


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


@pytest.mark.parametrize(
    "refusal",
    [OSError(30, "Read-only file system"), ImportError("no _multiprocessing"), NotImplementedError("no semaphores")],
)
def test_processes_that_cannot_be_started_are_told_with_a_way_round(
    refusal: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As without /dev/shm, where the semaphores are."""

    def refused(*arguments: object) -> None:
        raise refusal

    monkeypatch.setattr("lhuc_asr.base.executor.ProcessPoolExecutor", refused)
    with pytest.raises(WorkerError, match=r"cannot be started .*workers=1"), Executor(2):
        pass


def test_a_process_that_cannot_be_started_later_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("multiprocessing.context.SpawnProcess.start", refused)
    with pytest.raises(WorkerError, match=r"temporarily unavailable.*workers=1"), Executor(2) as executor:
        list(executor.map(abs, [1, 2]))


def test_an_error_of_the_systems_in_a_task_stays_what_it_is() -> None:
    with pytest.raises(FileNotFoundError), Executor(2) as executor:
        list(executor.map(os.stat, ["/nowhere/at/all"]))
