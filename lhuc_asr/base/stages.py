"""Named stages of an experiment: each is run once, and skipped while everything that it depends on is the same.

The key of a stage is the hash of its name, its options, and the keys of the stages before it. A stage that ends well
writes its key to ``stages/<name>.json``; a later run with the same key skips it. A killed run leaves no key, and the
stage is run again from its beginning, or from a state that it saved itself.

Some files are known only when the stage has run: the recordings that a corpus names. The stage returns their paths.
Their sizes and modification times are kept in ``stages/<name>.files.jsonl``. When one of them has changed or is gone,
the stage is run again, and so are the stages after it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from lhuc_asr.base.atomic import DamagedFileError, read_json, read_json_lines, write_json, write_json_lines
from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.fingerprint import FileState, file_state, hash_of
from lhuc_asr.base.runlog import Metrics, stopwatch

logger = logging.getLogger(__name__)

# Changed files that a log line names.
CHANGES_IN_MESSAGE = 3

# Names of a file's state in ``stages/<name>.files.jsonl``; ``changed`` is the modification time in nanoseconds.
STATE_FIELDS = ("path", "bytes", "changed")
# A time of change that no file has.
NEVER = -1

OptionsT = TypeVar("OptionsT")


class Stages:
    """The stages of one experiment's folder.

    Args:
        folder: The experiment's folder.
        metrics: Where the seconds of each stage are written.
    """

    def __init__(self, folder: Path, metrics: Metrics) -> None:
        self._experiment = folder.absolute()
        self._folder = folder / "stages"
        self._metrics = metrics
        self._keys: dict[str, str] = {}

    def run(
        self,
        name: str,
        work: Callable[[OptionsT], Iterable[Path] | None],
        *,
        options: OptionsT,
        after: Iterable[str] = (),
        outputs: Iterable[Path] = (),
    ) -> None:
        """Run a stage, or skip it.

        Args:
            name: Name of the stage, in the log and in ``stages/``.
            work: The work, which is given the options. It may return files that the result depends on and that were
                not known before.
            options: Everything that the result depends on, apart from earlier stages: configurations, dataclasses,
                numbers, strings, lists of them. The key is made of them, so that the work cannot use an option that
                the key lacks.
            after: Names of the stages whose results the work reads.
            outputs: Files that the work writes; the stage is run again when one is missing.
        """
        key = stage_key(name, options, [self._keys[before] for before in after])
        self._keys[name] = key
        states = self._unchanged(name, key, outputs)
        if states is None:
            logger.info("%s", name)
            states = self._executed(name, key, lambda: work(options))
        else:
            logger.info("%s: done before", name)
        if states:
            self._keys[name] = hashlib.sha256(f"{key} {hash_of(states)}".encode()).hexdigest()

    def key(self, name: str) -> str:
        """Key of a stage that was run or skipped, or of the one that is running."""
        return self._keys[name]

    def _executed(self, name: str, key: str, work: Callable[[], Iterable[Path] | None]) -> list[FileState]:
        """Run a stage and write its record; returns the states of the files that it named."""
        record, files = self._record(name), self._files(name)
        record.unlink(missing_ok=True)
        begun = time.time_ns()
        with stopwatch() as watch:
            paths = work() or ()
        seconds = round(watch.seconds, 2)
        self._metrics.write(name, seconds=seconds)
        states = [self._state_at(begun, path) for path in sorted({self._stored(path) for path in paths})]
        files.unlink(missing_ok=True)
        if states:
            write_json_lines(files, (dict(zip(STATE_FIELDS, state, strict=True)) for state in states))
        write_json(record, {"key": key, "seconds": seconds, "files": hash_of(states)})
        return states

    def _unchanged(self, name: str, key: str, outputs: Iterable[Path]) -> list[FileState] | None:
        """States of the files that a finished stage named; None where the stage has to be run."""
        try:
            record = read_json(self._record(name))
            recorded = self._recorded_states(name)
            if (record["key"], record["files"]) != (key, hash_of(recorded)):
                return None
        except (OSError, KeyError, TypeError, DamagedFileError):
            return None
        if not all(path.exists() for path in outputs):
            return None
        states = [self._state(path) for path, _, _ in recorded]
        changed = [new[0] for old, new in zip(recorded, states, strict=True) if old != new]
        if changed:
            more = f" and {len(changed) - CHANGES_IN_MESSAGE} more" if len(changed) > CHANGES_IN_MESSAGE else ""
            shown = ", ".join(changed[:CHANGES_IN_MESSAGE])
            logger.info("%s: changed or missing since the last run: %s%s", name, shown, more)
            return None
        return states

    def _recorded_states(self, name: str) -> list[FileState]:
        path = self._files(name)
        if not path.exists():
            return []
        return [(row["path"], row["bytes"], row["changed"]) for row in read_json_lines(path)]

    def _record(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def _files(self, name: str) -> Path:
        return self._folder / f"{name}.files.jsonl"

    def _stored(self, path: Path) -> str:
        """A path as records name it: relative to the experiment's folder if it is inside, else absolute.

        An experiment whose folder is moved stays finished.
        """
        path = path.absolute()
        inside = path.is_relative_to(self._experiment)
        return str(path.relative_to(self._experiment) if inside else path)

    def _state_at(self, begun: int, stored: str) -> FileState:
        """State of a file that a stage has read; one that is never found again if it has changed since the stage began.

        The stage may have read the file before it changed. Files in the experiment's folder are made by the stage.
        """
        stored, size, changed = self._state(stored)
        # A file may have a time in the future, from a clock that was wrong.
        changed_meanwhile = Path(stored).is_absolute() and changed is not None and begun < changed <= time.time_ns()
        return stored, size, NEVER if changed_meanwhile else changed

    def _state(self, stored: str) -> FileState:
        _, size, changed = file_state(self._experiment / stored)
        return stored, size, changed


def stage_key(name: str, options: Any, before: Sequence[str]) -> str:
    """The key of a stage.

    Args:
        name: Name of the stage.
        options: Its options.
        before: The keys of the stages whose results it reads.

    Returns:
        SHA-256, hexadecimal.
    """
    content = json.dumps([name, _plain(options), list(before)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _plain(options: Any) -> Any:
    """Options as JSON values without None, so that a new option with the default None leaves finished stages valid."""
    if isinstance(options, StrictModel):
        return options.model_dump(mode="json", exclude_none=True)
    if is_dataclass(options):
        return _plain({field.name: getattr(options, field.name) for field in fields(options)})
    if isinstance(options, dict):
        return {str(name): _plain(value) for name, value in options.items() if value is not None}
    if isinstance(options, list | tuple):
        return [_plain(value) for value in options]
    if isinstance(options, Path):
        return str(options)
    return options
