"""Log lines, progress and metrics of a run.

On a terminal, progress is a bar. Only one bar is shown at a time, because two would overwrite each other. Where no
bar can be shown (no terminal, a worker process, or another task already has the bar), progress is logged from time to
time instead. A run's log is also kept in its folder. Metrics go to ``metrics.jsonl``, one JSON object per line, each
written immediately, so that a killed run keeps them.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from lhuc_asr.base.atomic import append_json_line
from lhuc_asr.base.outputs import named

logger = logging.getLogger(__name__)

ItemT = TypeVar("ItemT")

# Minimum time between two progress lines of one task, so that the log of a long run stays readable.
SECONDS_BETWEEN_LINES = 15.0

# Held by the task that shows a bar.
_bar_shown = threading.Lock()


def setup_logging(level: int = logging.INFO, prefix: str = "") -> None:
    """Send the package's log to standard error, with rich's handler on a terminal.

    Args:
        level: Lowest level that is shown.
        prefix: Text before every message, to tell processes apart.
    """
    package = logging.getLogger("lhuc_asr")
    package.setLevel(level)
    package.handlers.clear()
    package.propagate = False
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.logging import RichHandler

        handler: logging.Handler = RichHandler(console=Console(stderr=True), show_path=False, markup=False)
        handler.setFormatter(logging.Formatter(f"{prefix}%(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s {prefix}%(message)s"))
    package.addHandler(handler)


@contextmanager
def shown_log(level: int) -> Iterator[None]:
    """``setup_logging`` as long as the block runs; then the package's log is as it was.

    The stream of a command's log may be closed when the command has ended in a process that goes on.
    """
    package = logging.getLogger("lhuc_asr")
    before = package.level, package.propagate, list(package.handlers)
    setup_logging(level)
    try:
        yield
    finally:
        package.setLevel(before[0])
        package.propagate, package.handlers[:] = before[1:]


class _LogFile(logging.FileHandler):
    """A log in a file. The run goes on where a line cannot be written: the stages see a full disk themselves."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Nothing: the line is on standard error too."""


@contextmanager
def logged_to(path: Path) -> Iterator[None]:
    """Append the package's log to a file as well, with times, as long as the block runs.

    An error that ends the block is in the file, with its traceback.

    Args:
        path: The file.

    Raises:
        OutputError: The file cannot be opened.
    """
    with named(path):
        handler = _LogFile(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    package = logging.getLogger("lhuc_asr")
    package.addHandler(handler)
    try:
        yield
    except BaseException as error:
        trace = (type(error), error, error.__traceback__)
        handler.handle(package.makeRecord(package.name, logging.ERROR, "", 0, "ended by an error", (), trace))
        raise
    finally:
        package.removeHandler(handler)
        handler.close()


def progress(items: Iterable[ItemT], title: str, total: int | None = None) -> Iterator[ItemT]:
    """Pass ``items`` through and show the progress.

    Args:
        items: Items to iterate over.
        title: Name of the task.
        total: Number of items; needed only where ``len(items)`` is not known.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    on_terminal = (
        sys.stderr.isatty() and multiprocessing.parent_process() is None and os.environ.get("RANK", "0") == "0"
    )
    if on_terminal and _bar_shown.acquire(blocking=False):
        from rich.console import Console
        from rich.progress import track

        try:
            yield from track(items, description=title, total=total, console=Console(stderr=True), transient=True)
        finally:
            _bar_shown.release()
        return
    last = time.monotonic()
    for count, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - last > SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            logger.info("%s: %d of %s", title, count, "?" if total is None else total)


@contextmanager
def without_bar() -> Iterator[None]:
    """A context in which progress is logged, because results appear on the terminal and a bar would overwrite them."""
    with _bar_shown:
        yield


class Metrics:
    """A writer that appends metrics to ``metrics.jsonl``.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, stage: str, **figures: Any) -> None:
        """Append one line: the stage, the time in seconds since 1970, and the metrics."""
        append_json_line(self.path, {"stage": stage, "time": round(time.time(), 3), **figures})


@contextmanager
def stopwatch() -> Iterator[Stopwatch]:
    """Measure the wall-clock time of a block, in seconds: ``with stopwatch() as watch: ...; watch.seconds``."""
    watch = Stopwatch()
    try:
        yield watch
    finally:
        watch.stop()


class Stopwatch:
    """A wall-clock stopwatch that runs from its creation until it is stopped."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._seconds: float | None = None

    def stop(self) -> None:
        """Stop the stopwatch."""
        self._seconds = time.perf_counter() - self._start

    @property
    def seconds(self) -> float:
        """Seconds until now, or until the stopwatch was stopped."""
        return time.perf_counter() - self._start if self._seconds is None else self._seconds
