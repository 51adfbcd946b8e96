"""Named stages of an experiment: each is run once, and skipped while everything that it depends on is the same.

The key of a stage is the hash of its name, its options, the contents of the files that it reads, and the keys of the
stages before it. A stage that ends well writes its key to ``stages/<name>.json``; a later run with the same key skips
it. A killed run leaves no key, and the stage is run again from its beginning, or from a state that it saved itself.

A stage that reads a few of the files of an earlier one says so (``PartOf``): it then depends on their contents, and not
on the options of the earlier stage, so that a new test set leaves what was made of the training speakers as it is.

Some files are known only when the stage has run: the recordings that a corpus names. The stage returns their paths.
``stages/<name>.files.jsonl`` has them, and the files that the stage wrote, with what shows a change
(``base/watched_files.py``). When one of them has changed or is gone, the stage is run again; the stages after it are
too, unless it makes the same files again.
"""

from __future__ import annotations

import hashlib
import logging
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from pydantic import ConfigDict

from lhuc_asr.base.atomic import write_json
from lhuc_asr.base.documents import DocumentKind
from lhuc_asr.base.errors import ExperimentError
from lhuc_asr.base.fingerprint import InputFiles, files_below, fingerprint
from lhuc_asr.base.ranks import ranks
from lhuc_asr.base.runlog import Metrics, stopwatch
from lhuc_asr.base.stage_key import Before, PartOf, name_of, plain_options, stage_key
from lhuc_asr.base.stage_plan import PlannedStage, about, seconds_left
from lhuc_asr.base.version import __version__
from lhuc_asr.base.watched_files import WatchedFiles

logger = logging.getLogger(__name__)

# Changed files that a log line names.
CHANGES_IN_MESSAGE = 3

OptionsT = TypeVar("OptionsT")


@dataclass(frozen=True)
class _Record:
    """What a finished stage wrote.

    Attributes:
        key: Key of the stage.
        seconds: Time that it took.
        files: Hash that identifies the files that it named.
        inputs: Hash of the contents of the files that it read; None for a stage that reads none, and in records of
            versions that did not write it.
        inputs_in_key: The hash of these files that the key is made of. Older versions took their sizes and times.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    key: str
    seconds: float
    files: str
    inputs: str | None = None
    inputs_in_key: str | None = None


@dataclass(frozen=True)
class _Earlier:
    """What an earlier run left of a stage.

    Attributes:
        record: Its record; None where it did not finish.
        watched: The files that it named and wrote.
        contents: Hash of the files that the stage reads, as they are now; None for a stage without such files.
        in_key: The hash that stands for ``contents`` in the record's key, if they have not changed.
        key: The stage's key with ``in_key``.
    """

    record: _Record | None
    watched: WatchedFiles
    contents: str | None
    in_key: str | None
    key: str


_RECORDS = DocumentKind(_Record, "the record of a stage", ExperimentError, "run again")


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
        self._files: dict[str, WatchedFiles] = {}
        self._plan: Sequence[PlannedStage] = ()
        self._part = ""

    def follow(self, plan: Sequence[PlannedStage], part: str = "") -> None:
        """Say in the log of each further stage which one of how many it is, and how long the rest takes, if known.

        Args:
            plan: All stages, those before the call too.
            part: Text after the time that is left, such as ``for this fold``.
        """
        self._plan, self._part = plan, f" {part}" if part else ""

    def run(
        self,
        name: str,
        work: Callable[[OptionsT], Iterable[Path] | None],
        *,
        options: OptionsT,
        after: Iterable[Before] = (),
        inputs: InputFiles | None = None,
        outputs: Iterable[Path] = (),
        together: bool = False,
    ) -> None:
        """Run a stage, or skip it.

        Args:
            name: Name of the stage, in the log and in ``stages/``.
            work: The work, which is given the options. It may return files that the result depends on and that were
                not known before.
            options: Everything that the result depends on, apart from files and earlier stages: configurations,
                dataclasses, numbers, strings, lists of them. The key is made of them, so that the work cannot use an
                option that the key lacks.
            after: Names of the stages whose results the work reads, or the files of them that it reads.
            inputs: Files that the work reads and that no stage makes; None for a stage that reads no such files.
            outputs: Files and folders that the work writes; the stage is run again when one is missing, or when the
                content of a file is not what the work wrote.
            together: Whether all processes that train together do the work; the first one does that of other stages.

        Raises:
            ExperimentError: A stage of ``after`` was neither run nor skipped before.
        """
        after, outputs = list(after), list(outputs)
        earlier = self._earlier(name, options, after, inputs)
        record, watched, key = earlier.record, earlier.watched, earlier.key
        if record is not None and record.key == key and self._unchanged(name, record, watched, outputs):
            logger.info("%s (%s): done before", name, self._place())
            if (record.inputs, record.inputs_in_key) != (earlier.contents, earlier.in_key):
                record = _Record(key, record.seconds, record.files, earlier.contents, earlier.in_key)
                self._write(name, record)
            ranks().tell(stage=name, key=key, together=False)
        else:
            logger.info("%s (%s%s)", name, self._place(), self._left())
            before = self._keys_before(name, after)
            key = self._keys[name] = stage_key(name, options, before, earlier.contents)
            if together:
                ranks().tell(stage=name, key=key, together=True, alike=alike(name, options))
            record = self._executed(name, key, earlier.contents, watched, lambda: work(options), outputs)
            ranks().tell(stage=name, key=key, together=False)
        self._keys[name], self._files[name] = _with_files(key, record, watched), watched

    def key(self, name: str) -> str:
        """Key of a stage that was run or skipped, or of the one that is running."""
        return self._keys[name]

    def _keys_before(self, name: str, after: Sequence[Before]) -> list[str]:
        """The keys of the stages whose results a stage reads, and the hashes of the parts that it reads."""
        if missing := [other for other in map(name_of, after) if other not in self._keys]:
            raise ExperimentError(
                f"the stage {name!r} reads the results of {', '.join(map(repr, missing))}, expected before it: the "
                "order of the stages is a fault of this package; report it with the recipe"
            )
        return [
            self._files[other.stage].identity_of(other.files) if isinstance(other, PartOf) else self._keys[other]
            for other in after
        ]

    def _earlier(self, name: str, options: Any, after: Sequence[Before], inputs: InputFiles | None) -> _Earlier:
        """What an earlier run left of a stage that is declared so."""
        contents = None if inputs is None else inputs.contents()
        record, in_key = self._recorded(name), contents
        if record is not None and inputs is not None:
            if record.inputs is None:
                in_key = fingerprint(inputs.paths)
            elif record.inputs == contents:
                in_key = record.inputs_in_key
        key = stage_key(name, options, self._keys_before(name, after), in_key)
        return _Earlier(record, self._watched(name), contents, in_key, key)

    def _place(self) -> str:
        """Which stage the next one is, of how many if that is known."""
        number = len(self._keys) + 1
        return f"stage {number} of {len(self._plan)}" if self._plan else f"stage {number}"

    def _left(self) -> str:
        """The time that is left from the next stage on, after a comma; nothing where it is not known."""
        left = seconds_left(self._plan[len(self._keys) :]) if self._plan else None
        return "" if left is None else f", {about(left)} left{self._part}"

    def _executed(
        self,
        name: str,
        key: str,
        contents: str | None,
        watched: WatchedFiles,
        work: Callable[[], Iterable[Path] | None],
        outputs: Iterable[Path],
    ) -> _Record:
        """Run a stage and write its record."""
        (self._folder / f"{name}.json").unlink(missing_ok=True)
        begun = time.time_ns()
        with stopwatch() as watch:
            paths = work() or ()
        seconds = round(watch.seconds, 2)
        self._metrics.write(name, seconds=seconds)
        written = (file for path in outputs for file in (files_below(path) if path.is_dir() else [path]))
        watched.replace((*paths, *written), begun)
        record = _Record(key, seconds, watched.identity, contents, contents)
        self._write(name, record)
        return record

    def _unchanged(self, name: str, record: _Record, watched: WatchedFiles, outputs: Iterable[Path]) -> bool:
        """Whether the outputs of a finished stage are there, and all files in its list are as they were."""
        if watched.identity != record.files or not all(path.exists() for path in outputs):
            return False
        changed = watched.changed()
        if changed:
            more = f" and {len(changed) - CHANGES_IN_MESSAGE} more" if len(changed) > CHANGES_IN_MESSAGE else ""
            shown = ", ".join(changed[:CHANGES_IN_MESSAGE])
            logger.info("%s: changed or missing since the last run: %s%s", name, shown, more)
        return not changed

    def _recorded(self, name: str) -> _Record | None:
        """The record of a finished stage; None where there is none."""
        try:
            return _RECORDS.read(self._folder / f"{name}.json")
        except ExperimentError:
            return None

    def _write(self, name: str, record: _Record) -> None:
        write_json(self._folder / f"{name}.json", plain_options(record))

    def _watched(self, name: str) -> WatchedFiles:
        return WatchedFiles.read(self._folder / f"{name}.files.jsonl", self._experiment)


class PlannedStages(Stages):
    """The stages of a run that has not come to them, with what they would do; nothing is run or written.

    A stage after one that is not finished counts as unfinished. The run finds it finished after all where the earlier
    stage makes the same files again; the plan says so of stages whose own options are the same (``depends``).

    Args:
        folder: The experiment's folder.
        seconds: Time of each stage in an earlier run, by its name.
        begun: The stages of the run so far; None before it begins.
    """

    def __init__(self, folder: Path, seconds: Mapping[str, float], begun: Stages | None = None) -> None:
        super().__init__(folder, Metrics(folder / "metrics.jsonl"))
        self._seconds = seconds
        self._keys = {} if begun is None else dict(begun._keys)
        self._files = {} if begun is None else dict(begun._files)
        self._planned = {name: PlannedStage(name, True, seconds.get(name)) for name in self._keys}

    @property
    def plan(self) -> list[PlannedStage]:
        """The stages in order."""
        return list(self._planned.values())

    def run(
        self,
        name: str,
        work: Callable[[OptionsT], Iterable[Path] | None],
        *,
        options: OptionsT,
        after: Iterable[Before] = (),
        inputs: InputFiles | None = None,
        outputs: Iterable[Path] = (),
        together: bool = False,
    ) -> None:
        """Note a stage; the arguments are those of ``Stages.run``."""
        after = list(after)
        earlier = self._earlier(name, options, after, inputs)
        record, watched = earlier.record, earlier.watched
        unchanged = (
            record is not None
            and (record.key, record.files) == (earlier.key, watched.identity)
            and all(path.exists() for path in outputs)
            and watched.same()
        )
        self._keys[name] = earlier.key if record is None else _with_files(earlier.key, record, watched)
        self._files[name] = watched
        finished = unchanged and all(self._planned[name_of(other)].finished for other in after)
        self._planned[name] = PlannedStage(name, finished, self._seconds.get(name), unchanged and not finished)


class RecordedStages(Stages):
    """The stages of a folder that is only read: which of them ended with the options that they are declared with now.

    The files that a stage read before are not looked at: they may have changed, or be on another machine, and the
    folder still holds one whole result. Those that it wrote are.

    Args:
        folder: The experiment's folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, Metrics(folder / "metrics.jsonl"))
        self._first_stale: dict[str, str | None] = {}

    def run(
        self,
        name: str,
        work: Callable[[OptionsT], Iterable[Path] | None],
        *,
        options: OptionsT,
        after: Iterable[Before] = (),
        inputs: InputFiles | None = None,
        outputs: Iterable[Path] = (),
        together: bool = False,
    ) -> None:
        """Look at the record of a stage; the arguments are those of ``Stages.run``."""
        after, outputs = list(after), list(outputs)
        record, watched = self._recorded(name), self._watched(name)
        in_key = None if record is None or inputs is None else record.inputs_in_key
        if inputs is not None and in_key is None:  # a record of an older version
            in_key = fingerprint(inputs.paths)
        key = self._keys[name] = stage_key(name, options, self._keys_before(name, after), in_key)
        stale: str | None = name
        if record is not None and record.key == key and watched.identity == record.files:
            self._keys[name] = _with_files(key, record, watched)
            whole = all(path.exists() for path in outputs) and not watched.changed_below(outputs)
            stale = None if whole else name
        self._files[name] = watched
        self._first_stale[name] = next(filter(None, (self._first_stale[name_of(other)] for other in after)), stale)

    def first_stale(self, names: Iterable[str]) -> str | None:
        """The first stage that is unfinished, ended with other options, or whose files were changed since.

        The stages before those that are named count too.

        Args:
            names: Names of stages.

        Returns:
            The stage's name; None where all are finished.
        """
        return next(filter(None, (self._first_stale[name] for name in names)), None)


def alike(name: str, options: Any) -> str:
    """What processes that do a stage together must have in common: its options, and the versions that compute it."""
    versions = [__version__, torch.__version__, platform.python_version()]
    return stage_key(name, {"options": plain_options(options), "versions": versions}, [])


def _with_files(key: str, record: _Record, watched: WatchedFiles) -> str:
    """The key that later stages depend on: with the files that the stage named."""
    return hashlib.sha256(f"{key} {record.files}".encode()).hexdigest() if watched.rows else key
