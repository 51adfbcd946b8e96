"""The stages of an experiment in the processes that only help to train its networks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from lhuc_asr.base.fingerprint import InputFiles
from lhuc_asr.base.ranks import RankError, ranks
from lhuc_asr.base.runlog import Metrics
from lhuc_asr.base.stage_key import Before
from lhuc_asr.base.stages import Stages

OptionsT = TypeVar("OptionsT")


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
            work(options)
            self._told(name)  # its files are there

    def _told(self, name: str) -> dict[str, Any]:
        news = ranks().told()
        if news["stage"] != name:
            raise RankError(
                f"process {ranks().rank} expected the stage {name!r}, and the first one is at {news['stage']!r}; start "
                "all with one command, and in a folder that all of them see"
            )
        return news
