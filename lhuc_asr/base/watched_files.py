"""The files that a stage named or wrote, with what shows later whether one of them has changed.

A row has the file's size and times as they were when the stage read it, and the SHA-256 of its content. Where the times
are the same, the content is not read again; where they differ and the content is the same, the new times are noted.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from lhuc_asr.base.atomic import read_json_lines, write_json_lines
from lhuc_asr.base.fingerprint import FileState, content_of, file_state, hash_of, times_of

# A time of change that no file has.
NEVER = -1


@dataclass(frozen=True, slots=True)
class WatchedFile:
    """A file that a stage named.

    Attributes:
        path: Path, relative to the experiment's folder if it is inside, else absolute.
        bytes: Size; None for a file that was missing.
        changed: Modification time in nanoseconds when the stage read it, ``NEVER`` if it changed meanwhile.
        sha256: Hash of its content; None where it is not known.
        seen: What ``times_of`` said of the file when the content was last read; None where that says nothing.
    """

    path: str
    bytes: int | None
    changed: int | None
    sha256: str | None = None
    seen: tuple[int, ...] | None = None

    @property
    def state(self) -> FileState:
        """Path, size, and what tells the content from others: its hash, or its time where the hash is not known.

        A file that was made again with the same content has the same state, so that later stages stay finished.
        """
        return self.path, self.bytes, self.sha256 or self.changed


class WatchedFiles:
    """The files that a stage named.

    Args:
        path: The list, ``stages/<name>.files.jsonl``; not there if the stage named no file.
        experiment: Folder of the experiment.
        rows: The files.
    """

    def __init__(self, path: Path, experiment: Path, rows: Iterable[WatchedFile]) -> None:
        self._path = path
        self._experiment = experiment
        self.rows = tuple(rows)

    @classmethod
    def read(cls, path: Path, experiment: Path) -> WatchedFiles:
        """The list of an earlier run; without rows if there is none or it is damaged, so that it fits no record."""
        try:
            rows = [_row(content) for content in read_json_lines(path)]
        except (OSError, TypeError, ValueError):  # a DamagedFileError is a ValueError
            rows = []
        return cls(path, experiment, rows)

    @property
    def identity(self) -> str:
        """Hash of the states of the files."""
        return hash_of(row.state for row in self.rows)

    def identity_of(self, paths: Iterable[Path]) -> str:
        """Hash of the states of some of the files; one that is not in the list counts as missing."""
        states = {row.path: row.state for row in self.rows}
        stored = sorted({self._stored(path) for path in paths})
        return hash_of(states.get(path, (path, None, None)) for path in stored)

    def changed(self) -> list[str]:
        """Paths of the files that are not as they were; new times of unchanged files are noted."""
        rows = self._looked_at_all(self.rows)
        changed = [old.path for old, new in zip(self.rows, rows, strict=True) if new is None]
        if not changed and rows != self.rows:
            self.rows = tuple(row for row in rows if row is not None)
            self._write()
        return changed

    def same(self) -> bool:
        """Whether all files are as they were; nothing is noted."""
        return None not in self._looked_at_all(self.rows)

    def changed_below(self, places: Iterable[Path]) -> bool:
        """Whether a file at or below some places in the experiment's folder is not as it was; nothing is noted."""
        stored = [Path(self._stored(place)) for place in places]
        rows = [row for row in self.rows if any(Path(row.path).is_relative_to(place) for place in stored)]
        return None in self._looked_at_all(rows)

    def replace(self, paths: Iterable[Path], begun: int) -> None:
        """Write the list of the files that a stage has named.

        Args:
            paths: The files.
            begun: Time at which the stage began, nanoseconds.
        """
        stored = sorted({self._stored(path) for path in paths})
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            self.rows = tuple(pool.map(lambda path: self._read(path, begun), stored))
        self._write()

    def _write(self) -> None:
        if self.rows:
            write_json_lines(self._path, map(asdict, self.rows))
        else:
            self._path.unlink(missing_ok=True)

    def _looked_at_all(self, rows: Sequence[WatchedFile]) -> tuple[WatchedFile | None, ...]:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return tuple(pool.map(self._looked_at, rows))

    def _looked_at(self, row: WatchedFile) -> WatchedFile | None:
        """A row with the times that its file has now; None if the file has changed."""
        path = self._experiment / row.path
        _, size, changed = file_state(path)
        if size != row.bytes:
            return None
        if size is None:
            return row
        if row.sha256 is None:  # a list of an older version, or a file that changed while the stage ran
            return row if changed == row.changed else None
        times = times_of(path)
        if times is not None and times == row.seen:
            return row
        return replace(row, seen=times) if content_of(path) == row.sha256 else None

    def _read(self, stored: str, begun: int) -> WatchedFile:
        """The row of a file that a stage has read; one that never fits again if it has changed since the stage began.

        The stage may have read the file before it changed. Files in the experiment's folder are made by the stage.
        """
        path = self._experiment / stored
        try:
            status = path.stat()
        except OSError:  # missing, or a link to nowhere
            return WatchedFile(stored, None, None)
        times, now = (status.st_mtime_ns, status.st_ctime_ns), time.time_ns()
        # A file may have a time in the future, from a clock that was wrong.
        if Path(stored).is_absolute() and any(begun < changed <= now for changed in times):
            return WatchedFile(stored, status.st_size, NEVER)
        seen = times_of(path)  # before the content is read, so that a change in between is seen
        return WatchedFile(stored, status.st_size, status.st_mtime_ns, content_of(path), seen)

    def _stored(self, path: Path) -> str:
        """A path as records name it: relative to the experiment's folder if it is inside, else absolute.

        An experiment whose folder is moved stays finished.
        """
        path = path.absolute()
        inside = path.is_relative_to(self._experiment)
        return str(path.relative_to(self._experiment) if inside else path)


def _row(content: dict[str, object]) -> WatchedFile:
    """A line of the list.

    Raises:
        TypeError: It has other names, or a path that cannot be one.
    """
    row = WatchedFile(**content)  # type: ignore[arg-type]
    if not isinstance(row.path, str) or "\0" in row.path:
        raise TypeError(f"path {row.path!r}")
    if row.seen is None:
        return row
    return replace(row, seen=tuple(row.seen))
