"""Work in other processes: results in the order of the items, memory bounded, no orphans.

Processes are spawned, not forked: a fork of a process whose libraries run threads can hang. The function must
therefore be importable by name, from a module that is quick to import.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from lhuc_asr.base.errors import LhucError

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

# Items under way for each worker: enough to keep it busy, few enough to keep memory flat.
IN_FLIGHT = 4
PARENT_POLL_SECONDS = 1.0


class WorkerError(LhucError, RuntimeError):
    """A worker process died."""


def process_map(function: Callable[[ItemT], ResultT], items: Iterable[ItemT], workers: int) -> Iterator[ResultT]:
    """Apply a function in worker processes; results come in the order of the items.

    Args:
        function: Importable by name.
        items: Read as they are needed.
        workers: Processes; 1 works in this one.

    Raises:
        WorkerError: A process died (killed, out of memory).
        Exception: Whatever the function raises.
    """
    if workers <= 1:
        yield from map(function, items)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _exit_with_parent, (os.getpid(),)) as pool:
        waiting: deque[Future[Any]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= IN_FLIGHT * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise WorkerError(
                "a worker process died, most likely killed for its memory; try workers=1, or run again"
            ) from error
        finally:
            for future in waiting:
                future.cancel()


def _exit_with_parent(parent: int) -> None:
    """A worker whose parent was killed would wait for work for ever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
