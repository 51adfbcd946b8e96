"""The stages of an experiment in the processes that only help to train its networks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from lhuc_asr.base.fingerprint import InputFiles
from lhuc_asr.base.ranks import POLL_SECONDS, RankError, ranks
from lhuc_asr.base.runlog import Metrics
from lhuc_asr.base.stage_key import Before
from lhuc_asr.base.stages import Stages, alike

OptionsT = TypeVar("OptionsT")

# A file that one machine has written may be seen by another some time later, on a network disk.
SEEN_SECONDS = 60.0


class FollowedStages(Stages):
    """The stages in another process than the first: it does its part of those that all do together.

    Args:
        folder: The experiment's folder, which the first process works in.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, Metrics(folder / "metrics.jsonl"))

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
        """Wait until the first process has done a stage, or do it with it; the arguments are those of ``Stages.run``.

        Raises:
            RankError: The first process is at another stage.
        """
        news = self._told(name)
        self._keys[name] = news["key"]
        if news["together"]:
            if news["alike"] != alike(name, options):
                raise RankError(
                    f"process {ranks().rank}: the stage {name!r} has other options here than in the first process, or "
                    "other versions of lhuc_asr, torch or Python; start all with one command, and one installation"
                )
            work(options)
            self._told(name)  # its files are there
        self._check_folder(name, news["key"])

    def _told(self, name: str) -> dict[str, Any]:
        news = ranks().told()
        if news["stage"] != name:
            raise RankError(
                f"process {ranks().rank} expected the stage {name!r}, and the first one is at {news['stage']!r}; start "
                "all with one command, and in a folder that all of them see"
            )
        return news

    def _check_folder(self, name: str, key: str) -> None:
        """Refuse a folder that is not the first process's: what would be read here is another experiment's."""
        last = time.monotonic() + SEEN_SECONDS
        while (record := self._recorded(name)) is None or record.key != key:
            if time.monotonic() > last:
                raise RankError(
                    f"process {ranks().rank}: {self._experiment} does not have the stage {name!r} as the first process "
                    "has made it; give exp= a folder that all processes see"
                )
            time.sleep(POLL_SECONDS)
