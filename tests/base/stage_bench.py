"""Stages of a small experiment that note what they run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.runlog import Metrics
from lhuc_asr.base.stages import Stages


class Options(StrictModel):
    """Some options."""

    size: int = 1
    path: Path = Path("a")


class Bench:
    """Two stages, the second after the first, and what each run of them did."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = folder / "output"
        self.content = "first"

    def run(
        self, first: object = None, second: object = None, outputs: bool = True, files: Iterable[Path] = ()
    ) -> list[str]:
        done: list[str] = []
        stages = Stages(self.folder, Metrics(self.folder / "metrics.jsonl"))

        def act(name: str) -> Iterable[Path] | None:
            done.append(name)
            if name == "second":
                return None
            self.output.write_text(self.content)
            return files

        stages.run("first", lambda _: act("first"), options=first, outputs=[self.output] if outputs else [])
        stages.run("second", lambda _: act("second"), after=["first"], options=second)
        return done
