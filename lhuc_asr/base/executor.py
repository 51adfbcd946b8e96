"""Work spread over processes: results in the order of the items, memory bounded, no orphans.

Processes are spawned, not forked: a fork of a process whose libraries run threads can hang. A task is therefore a
function that is importable by name, with arguments that can be pickled, from a module that is quick to import where
the work is short; a script that spreads work needs the usual ``if __name__ == "__main__"``. Other machines may stand
behind the same class one day: a task must leave the same result when it is run twice.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from lhuc_asr.base.errors import LhucError

if TYPE_CHECKING:  # not there on a system without semaphores
    from multiprocessing.synchronize import Event

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

# Items under way for each process: enough to keep it busy, few enough to keep memory flat.
IN_FLIGHT = 4
PARENT_POLL_SECONDS = 1.0
DIED = "a worker process died, most likely killed for its memory; try workers=1, or run again"


class WorkerError(LhucError, RuntimeError):
    """A worker process died, or cannot be started."""


class Executor:
    """Processes that may share a costly start, as a context manager.

    With 0 or 1 processes everything runs in the calling process, item by item, also without ``with``.

    Example:
        >>> with Executor(1) as executor:
        ...     list(executor.map(abs, [-1, 2]))
        [1, 2]

    Args:
        processes: Number of processes.
        start: Makes what all tasks of a process share, such as a graph. It is called once in each process, or at once
            if the tasks run in this process; every task is then called as ``function(shared, item)``.
        arguments: Arguments of ``start``.
    """

    def __init__(
        self, processes: int, start: Callable[..., Any] | None = None, arguments: tuple[Any, ...] = ()
    ) -> None:
        self.processes = max(1, processes)
        self._start, self._arguments = start, arguments
        self._pool: ProcessPoolExecutor | None = None
        self._ended: Event | None = None  # set where the processes end without finishing their tasks
        # Not a global variable, as in the other processes: two executors in this one do not share.
        self._shared = start(*arguments) if start is not None and self.is_local else None

    @property
    def shared(self) -> Any:
        """What ``start`` returned in the calling process; None where work is done in others."""
        return self._shared

    @property
    def is_local(self) -> bool:
        """Whether everything runs in the calling process."""
        return self.processes == 1

    @property
    def is_open(self) -> bool:
        """Whether items can be worked on: the executor is local, or inside its ``with``."""
        return self.is_local or self._pool is not None

    def __enter__(self) -> Executor:
        if not self.is_local:
            with _starting():
                context = multiprocessing.get_context("spawn")
                self._ended = context.Event()
                initial = (os.getpid(), self._ended, self._start, self._arguments)
                self._pool = ProcessPoolExecutor(self.processes, context, _start_process, initial)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None and self._ended is not None:
            if error is not None and not isinstance(error, Exception):
                # This process was told to end. The others may not have been, and a task of theirs can take an hour.
                self._ended.set()
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def map(
        self, function: Callable[..., ResultT], items: Iterable[ItemT], in_flight: int = IN_FLIGHT
    ) -> Iterator[ResultT]:
        """Apply a function; results come in the order of the items.

        Args:
            function: The task: of an item, or of what ``start`` made and an item.
            items: Arguments of the tasks, read as they are needed.
            in_flight: Number of items handed out and not yet answered, for each process.

        Raises:
            WorkerError: A process died (killed, out of memory), or cannot be started.
            Exception: Whatever the function raises.
        """
        if self.is_local:
            for item in items:
                yield self._here(function, item)
            return
        waiting: deque[Future[ResultT]] = deque()
        try:
            for item in items:
                waiting.append(self._submit(function, item))
                if len(waiting) >= in_flight * self.processes:
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

    def each(self, function: Callable[..., None], items: Iterable[ItemT]) -> None:
        """Apply a function, in no order, to as many items at once as there are processes.

        For long work: after a failure no further item is begun, and those in work are waited for. A process that is
        told to end (Ctrl-C, SIGTERM) ends those that work for it.

        Args:
            function: The task, as of ``map``.
            items: Arguments of the tasks, read as they are needed.

        Raises:
            WorkerError: A process died (killed, out of memory), which ends the others too, or cannot be started.
            Exception: Whatever the function raises.
        """
        if self.is_local:
            for item in items:
                self._here(function, item)
            return
        waiting: set[Future[None]] = set()
        try:
            for item in items:
                waiting.add(self._submit(function, item))
                if len(waiting) == self.processes:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
            for future in as_completed(waiting):
                future.result()
        except BrokenProcessPool as error:
            raise WorkerError(DIED) from error

    def _here(self, function: Callable[..., ResultT], item: ItemT) -> ResultT:
        return function(item) if self._start is None else function(self._shared, item)

    def _submit(self, function: Callable[..., ResultT], item: ItemT) -> Future[ResultT]:
        if self._pool is None:
            raise WorkerError("the executor is not open; use it as: with Executor(processes) as executor")
        with _starting():  # the first items start the processes
            if self._start is None:
                return self._pool.submit(function, item)
            return self._pool.submit(_with_shared, function, item)


@contextmanager
def _starting() -> Iterator[None]:
    """Say what to do where processes cannot be started, as in a container without shared memory."""
    try:
        yield
    except (OSError, ImportError, NotImplementedError) as error:  # the last two: a system without semaphores
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise WorkerError(
            f"processes cannot be started ({reason}); is /dev/shm there, and are the limits of processes and memory "
            "high enough? Or do all work in this one: workers=1"
        ) from error


# In a process of an executor: what its ``start`` made.
_shared: Any = None


def _start_process(parent: int, ended: Event, start: Callable[..., Any] | None, arguments: tuple[Any, ...]) -> None:
    global _shared
    _exit_with_parent(parent, ended)
    if start is not None:
        _shared = start(*arguments)


def _with_shared(function: Callable[..., ResultT], item: ItemT) -> ResultT:
    return function(_shared, item)


def _exit_with_parent(parent: int, ended: Event) -> None:
    """End with the parent, or when it says so: a worker whose parent was killed would wait for work forever."""

    def watch() -> None:
        while os.getppid() == parent and not ended.wait(PARENT_POLL_SECONDS):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
