"""Curves of a run for TensorBoard, as event files that are made from its files of metrics.

A thread reads the metrics from time to time, so what trains knows nothing of it, in other processes too. Each run
writes all points anew, after an entry by which TensorBoard forgets what it read before: a run that was killed and
resumed has each point once. Training that begins again does the same. No file is removed: a TensorBoard that has one
open would wait for it for ever.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lhuc_asr.base.atomic import DamagedFileError, read_json_lines
from lhuc_asr.base.extras import extra
from lhuc_asr.base.outputs import named

with extra("tensorboard"):
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)

# Epochs take seconds or more, and TensorBoard itself reads every half a minute.
POLL_SECONDS = 5.0


@dataclass(frozen=True)
class Point:
    """Figures of one step of a training.

    Attributes:
        run: Name of the training: TensorBoard has a curve for each name.
        step: Number of the step, such as the epoch.
        time: Seconds since 1970.
        scalars: The figures, by name; those with the same text before a slash stand together.
    """

    run: str
    step: int
    time: float
    scalars: Mapping[str, float]


class EventFiles:
    """The event files of an experiment.

    Args:
        folder: Folder of the event files, with a folder for each training.
        metrics: Files of metrics by the name that goes before those of their trainings, such as ``fold1``; of the files
            of one name, the first that is there counts. A file that is missing or damaged says nothing.
        point: Function from a row of a file to its point; None for a row that has none.

    Raises:
        OutputError: The folder cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        metrics: Mapping[str, Sequence[Path]],
        point: Callable[[Mapping[str, Any]], Point | None],
    ) -> None:
        self._folder, self._metrics, self._point = folder, metrics, point
        self._written: dict[str, list[Point]] = {}
        self._writers: dict[str, SummaryWriter] = {}
        with named(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def update(self) -> None:
        """Write the points that are new since the last call."""
        for prefix, paths in self._metrics.items():
            for run, points in _by_run(_rows(paths), self._point).items():
                self._write("/".join(filter(None, (prefix, run))), points)

    def close(self) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _write(self, run: str, points: Sequence[Point]) -> None:
        written = self._written.setdefault(run, [])
        if written != points[: len(written)]:  # training began again
            written.clear()
        new = points[len(written) :]
        if not new:
            return
        if run not in self._writers:
            self._writers[run] = SummaryWriter(self._folder / run)
        writer = self._writers[run]
        if not written:
            forget = Event(step=new[0].step, session_log=SessionLog(status=SessionLog.START))
            writer.file_writer.add_event(forget)  # type: ignore[attr-defined]
        for point in new:
            for name, value in point.scalars.items():
                writer.add_scalar(name, value, point.step, point.time)
        writer.flush()
        written += new


@contextmanager
def event_files(
    folder: Path, metrics: Mapping[str, Sequence[Path]], point: Callable[[Mapping[str, Any]], Point | None]
) -> Iterator[None]:
    """Keep event files up to date as long as the block runs, and complete when it ends; see ``EventFiles``.

    The run goes on where they cannot be written: the log says so, once.

    Raises:
        OutputError: The folder cannot be written at the beginning.
    """
    files, ended = EventFiles(folder, metrics, point), threading.Event()
    logger.info("curves of the training: tensorboard --logdir %s", folder)

    def follow() -> None:
        try:
            files.update()
            while not ended.wait(POLL_SECONDS):
                files.update()
            files.update()
        except OSError as error:
            logger.warning("%s: the curves end here (%s); run again when this is mended", folder, error)
        finally:
            with suppress(OSError):
                files.close()

    thread = threading.Thread(target=follow, name="event files", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _rows(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """The rows of the first file that is there; none where it is just being replaced, or is damaged."""
    for path in paths:
        with suppress(FileNotFoundError):
            try:
                return list(read_json_lines(path))
            except DamagedFileError:
                return []
    return []


def _by_run(
    rows: Sequence[Mapping[str, Any]], point: Callable[[Mapping[str, Any]], Point | None]
) -> dict[str, list[Point]]:
    """The points of each training; one that begins again with an earlier step replaces those from that step on."""
    runs: dict[str, list[Point]] = {}
    for each in filter(None, map(point, rows)):
        earlier = runs.get(each.run, [])
        runs[each.run] = [*(before for before in earlier if before.step < each.step), each]
    return runs
