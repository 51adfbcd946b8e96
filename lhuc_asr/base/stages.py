"""Named stages of an experiment: done once, skipped while what they depend on is the same.

A stage has a key: the hash of its name, its options, and the keys of the stages it follows. When a stage ends
well its key is written to ``stages/<name>.json``; a later run with the same key skips it. A run that was
killed finds no key, and the stage is run again from its beginning (or, where it keeps a state of its own, from
there).
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from lhuc_asr.base.atomic import DamagedFileError, read_json, write_json
from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.runlog import Metrics, stopwatch

logger = logging.getLogger(__name__)


class Stages:
    """The stages of one experiment's folder.

    Args:
        folder: The experiment's folder.
        metrics: Where each stage's seconds go.
    """

    def __init__(self, folder: Path, metrics: Metrics) -> None:
        self._folder = folder / "stages"
        self._metrics = metrics
        self._keys: dict[str, str] = {}

    def run(
        self,
        name: str,
        action: Callable[[], None],
        *,
        after: Iterable[str] = (),
        options: Any = None,
        outputs: Iterable[Path] = (),
    ) -> None:
        """Run a stage, or skip it.

        Args:
            name: Its name; also names the stage in the log and in ``stages/``.
            action: What it does.
            after: Names of the stages whose results it reads.
            options: Whatever else its result depends on: configurations, numbers, strings, lists of them.
            outputs: Files it makes; the stage is run again when one is gone.
        """
        content = json.dumps([name, _plain(options), [self._keys[before] for before in after]], sort_keys=True)
        key = hashlib.sha256(content.encode()).hexdigest()
        self._keys[name] = key
        record = self._folder / f"{name}.json"
        outputs = list(outputs)
        if self._finished(record, key) and all(path.exists() for path in outputs):
            logger.info("%s: done before", name)
            return
        logger.info("%s", name)
        record.unlink(missing_ok=True)
        with stopwatch() as watch:
            action()
        self._metrics.write(name, seconds=round(watch.seconds, 2))
        write_json(record, {"key": key, "seconds": round(watch.seconds, 2)})

    def key(self, name: str) -> str:
        """The key of a stage that was run or skipped."""
        return self._keys[name]

    def _finished(self, record: Path, key: str) -> bool:
        try:
            return bool(read_json(record)["key"] == key)
        except (OSError, KeyError, TypeError, DamagedFileError):
            return False


def fingerprint(paths: Iterable[Path]) -> str:
    """Hash of the names, sizes and times of change of files, and of all files in folders.

    Contents are not read: a corpus of a thousand hours would take too long. A path that is not there counts as
    that.
    """
    digest = hashlib.sha256()
    for path in paths:
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        for file in files:
            state = file.stat() if file.exists() else None
            digest.update(f"{file} {state.st_size} {state.st_mtime_ns}\n".encode() if state else f"{file}\n".encode())
    return digest.hexdigest()


def _plain(options: Any) -> Any:
    if isinstance(options, StrictModel):
        return options.model_dump(mode="json")
    if isinstance(options, dict):
        return {str(name): _plain(value) for name, value in options.items()}
    if isinstance(options, list | tuple):
        return [_plain(value) for value in options]
    if isinstance(options, Path):
        return str(options)
    return options
