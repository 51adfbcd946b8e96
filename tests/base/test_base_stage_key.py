"""Stages that read a part of another: its contents count, and not the options that it was made with."""

from __future__ import annotations

from pathlib import Path

import pytest

from lhuc_asr.base.errors import ExperimentError
from lhuc_asr.base.runlog import Metrics
from lhuc_asr.base.stage_key import PartOf
from lhuc_asr.base.stages import PlannedStages, Stages


class Parts:
    """A stage that writes two files, and one stage for each of them that reads it alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.content = {"a": "1", "b": "1"}

    def add(self, stages: Stages, options: object) -> list[str]:
        done: list[str] = []

        def write(_: object) -> None:
            done.append("both")
            for name, content in self.content.items():
                (self.folder / name).write_text(content)

        paths = {name: self.folder / name for name in self.content}
        stages.run("both", write, options=options, outputs=paths.values())
        for name, path in paths.items():
            stages.run(f"of {name}", lambda _, name=name: done.append(name), options=0, after=[PartOf("both", (path,))])
            stages.run(
                f"after {name}", lambda _, name=name: done.append(f"after {name}"), options=0, after=[f"of {name}"]
            )
        return done

    def run(self, options: object = None) -> list[str]:
        return self.add(Stages(self.folder, Metrics(self.folder / "metrics.jsonl")), options)


def test_a_stage_that_reads_a_part_of_another_depends_on_the_contents_of_that_part_alone(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    assert parts.run() == ["both", "a", "after a", "b", "after b"]
    assert parts.run("other") == ["both"]
    parts.content["b"] = "2"
    assert parts.run("another") == ["both", "b", "after b"]
    (tmp_path / "a").write_text("damaged")
    assert parts.run("another") == ["both"]
    assert (tmp_path / "a").read_text() == "1"


def test_a_plan_says_which_stages_depend_on_what_those_before_them_make(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    parts.run()
    planned = PlannedStages(tmp_path, {})
    parts.add(planned, "other")
    assert {each.name: (each.finished, each.depends) for each in planned.plan} == {
        "both": (False, False), **dict.fromkeys(("of a", "after a", "of b", "after b"), (False, True))
    }  # fmt: skip
    planned = PlannedStages(tmp_path, {})
    parts.add(planned, None)
    assert all(each.finished and not each.depends for each in planned.plan)


def test_a_part_of_a_stage_that_was_not_run_is_refused(tmp_path: Path) -> None:
    stages = Stages(tmp_path, Metrics(tmp_path / "metrics.jsonl"))
    with pytest.raises(ExperimentError, match="'second' reads the results of 'first', expected before it"):
        stages.run("second", lambda _: None, options=None, after=[PartOf("first", (tmp_path / "a",))])
