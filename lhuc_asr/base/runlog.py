"""Log lines, progress and metrics of a run.

On a terminal progress is a bar; elsewhere, and in worker processes, whose bars would fall over each other, it is a
plain log line now and then. Figures go to ``metrics.jsonl``, one JSON object a line, appended and flushed at once so
that a killed run keeps them.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

logger = logging.getLogger(__name__)

ItemT = TypeVar("ItemT")

# Without a terminal: a line at most this often, so that a log of hours stays readable.
SECONDS_BETWEEN_LINES = 15.0


def setup_logging(level: int = logging.INFO, prefix: str = "") -> None:
    """Send the package's log to standard error, with rich's handler on a terminal.

    Args:
        level: The least that is shown.
        prefix: Before every message: whose they are, where several processes write.
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


def progress(items: Iterable[ItemT], title: str, total: int | None = None) -> Iterator[ItemT]:
    """Pass ``items`` through, showing how far they have come.

    Args:
        items: Anything to iterate over.
        title: What is being done.
        total: Number of items, where ``len(items)`` is not known.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    if sys.stderr.isatty() and multiprocessing.parent_process() is None:
        from rich.console import Console
        from rich.progress import track

        yield from track(items, description=title, total=total, console=Console(stderr=True), transient=True)
        return
    last = time.monotonic()
    for count, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - last > SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            logger.info("%s: %d of %s", title, count, "?" if total is None else total)


class Metrics:
    """Appends figures to ``metrics.jsonl``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, stage: str, **figures: Any) -> None:
        """Append one line: the stage, the time of day, the figures."""
        row = {"stage": stage, "time": round(time.time(), 3), **figures}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


@contextmanager
def stopwatch() -> Iterator[Stopwatch]:
    """Measure wall seconds of a block: ``with stopwatch() as watch: ...; watch.seconds``."""
    watch = Stopwatch()
    try:
        yield watch
    finally:
        watch.stop()


class Stopwatch:
    """Wall seconds since it was made, until stopped."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._seconds: float | None = None

    def stop(self) -> None:
        """Hold the time."""
        self._seconds = time.perf_counter() - self._start

    @property
    def seconds(self) -> float:
        """Seconds so far, or until it was stopped."""
        return time.perf_counter() - self._start if self._seconds is None else self._seconds
