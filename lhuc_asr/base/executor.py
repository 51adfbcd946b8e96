"""Work in other processes: results in the order of the items, memory bounded, no orphans.

Processes are spawned, not forked: a fork of a process whose libraries run threads can hang. The function must
therefore be importable by name, from a module that is quick to import where the work is short.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any, TypeVar

from lhuc_asr.base.errors import LhucError

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

# Items under way for each worker: enough to keep it busy, few enough to keep memory flat.
IN_FLIGHT = 4
PARENT_POLL_SECONDS = 1.0
DIED = "a worker process died, most likely killed for its memory; try workers=1, or run again"


class WorkerError(LhucError, RuntimeError):
    """A worker process died."""


class WorkerPool:
    """Processes that may share a costly start, as a context manager.

    Args:
        workers: Processes.
        start: Called in each process before its first item; importable by name.
        arguments: Of ``start``.
    """

    def __init__(self, workers: int, start: Callable[..., None] | None = None, arguments: tuple[Any, ...] = ()) -> None:
        self.workers = workers
        self._executor = ProcessPoolExecutor(
            workers, multiprocessing.get_context("spawn"), _start_worker, (os.getpid(), start, arguments)
        )

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)

    def map(
        self, function: Callable[[ItemT], ResultT], items: Iterable[ItemT], in_flight: int = IN_FLIGHT
    ) -> Iterator[ResultT]:
        """Apply a function; results come in the order of the items.

        Args:
            function: Importable by name.
            items: Read as they are needed.
            in_flight: Items handed out and not yet answered, for each worker.

        Raises:
            WorkerError: A process died (killed, out of memory).
            Exception: Whatever the function raises.
        """
        waiting: deque[Future[ResultT]] = deque()
        try:
            for item in items:
                waiting.append(self._executor.submit(function, item))
                if len(waiting) >= in_flight * self.workers:
                    yield waiting[0].result()
                    waiting.popleft()
            while waiting:
                yield waiting[0].result()
                waiting.popleft()
        except BrokenProcessPool as error:
            raise WorkerError(DIED) from error
        finally:
            for future in waiting:
                future.cancel()

    def each(self, function: Callable[[ItemT], None], items: Iterable[ItemT]) -> None:
        """Apply a function, in no order, to as many items at once as there are workers.

        For long work: after a failure or Ctrl-C no further item is begun, and those in work are waited for.

        Args:
            function: Importable by name.
            items: Read as they are needed.

        Raises:
            WorkerError: A process died (killed, out of memory); the others are ended with it.
            Exception: Whatever the function raises.
        """
        waiting: set[Future[None]] = set()
        try:
            for item in items:
                waiting.add(self._executor.submit(function, item))
                if len(waiting) == self.workers:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
            for future in as_completed(waiting):
                future.result()
        except BrokenProcessPool as error:
            raise WorkerError(DIED) from error


def process_map(function: Callable[[ItemT], ResultT], items: Iterable[ItemT], workers: int) -> Iterator[ResultT]:
    """``WorkerPool.map`` with processes of its own; with 1 worker in this one."""
    if workers <= 1:
        yield from map(function, items)
        return
    with WorkerPool(workers) as pool:
        yield from pool.map(function, items)


def _start_worker(parent: int, start: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    _exit_with_parent(parent)
    if start is not None:
        start(*arguments)


def _exit_with_parent(parent: int) -> None:
    """A worker whose parent was killed would wait for work for ever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
