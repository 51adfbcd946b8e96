"""A stage is done once; it is done again when what it depends on changes, and after a failure."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.fingerprint import fingerprint
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

    def run(self, first: object = None, second: object = None, outputs: bool = True) -> list[str]:
        done: list[str] = []
        stages = Stages(self.folder, Metrics(self.folder / "metrics.jsonl"))

        def act(name: str) -> None:
            done.append(name)
            self.output.write_text(name)

        stages.run("first", lambda: act("first"), options=first, outputs=[self.output] if outputs else [])
        stages.run("second", lambda: act("second"), after=["first"], options=second)
        return done


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_stages_run_once(bench: Bench) -> None:
    assert bench.run() == ["first", "second"]
    assert bench.run() == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (1, 2),
        ([1, 2], [2, 1]),
        (Options(), Options(size=2)),
        (Options(), Options(path=Path("b"))),
        ({"a": (1, Path("x"))}, {"a": (1, Path("y"))}),
        (None, 0),
        ("1", 1),
    ],
)
def test_other_options_run_a_stage_and_those_after_it(before: object, after: object, bench: Bench) -> None:
    bench.run(before, before)
    assert bench.run(before, after) == ["second"]
    assert bench.run(after, after) == ["first", "second"]
    assert bench.run(after, after) == []


def test_equal_options_are_the_same_whatever_their_type(bench: Bench) -> None:
    bench.run([1, Options()], {"b": 1, "a": 2})
    assert bench.run((1, Options()), {"a": 2, "b": 1}) == []


def test_a_missing_output_runs_its_stage_alone(bench: Bench) -> None:
    bench.run()
    bench.output.unlink()
    assert bench.run() == ["first"]


def test_a_stage_that_fails_is_run_again_and_no_other(bench: Bench) -> None:
    def fail() -> None:
        raise KeyError

    stages = Stages(bench.folder, Metrics(bench.folder / "metrics.jsonl"))
    stages.run("first", lambda: bench.output.write_text("") and None, outputs=[bench.output])
    with pytest.raises(KeyError):
        stages.run("second", fail, after=["first"])
    assert bench.run() == ["second"]


def test_a_stage_that_failed_with_new_options_is_not_taken_for_done_with_the_old_ones(bench: Bench) -> None:
    """Its outputs may be half replaced."""

    def fail() -> None:
        raise KeyError

    bench.run(1)
    stages = Stages(bench.folder, Metrics(bench.folder / "metrics.jsonl"))
    with pytest.raises(KeyError):
        stages.run("first", fail, options=2)
    assert bench.run(1) == ["first"]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"key": 3}'])
def test_a_damaged_record_runs_its_stage(content: str, bench: Bench) -> None:
    bench.run()
    (bench.folder / "stages" / "first.json").write_text(content)
    assert bench.run() == ["first"]


def test_a_stage_cannot_come_after_one_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="lost"):
        Stages(tmp_path, Metrics(tmp_path / "m")).run("x", lambda: None, after=["lost"])


def test_a_fingerprint_sees_names_sizes_and_times(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    (folder / "deep").mkdir(parents=True)
    path = folder / "deep" / "a"
    path.write_text("one")
    os.utime(path, ns=(0, 10**18))
    seen = [fingerprint([folder])]
    assert fingerprint([folder]) == seen[0]

    def changed() -> bool:
        seen.append(fingerprint([folder]))
        return seen.count(seen[-1]) == 1

    path.write_text("two!")
    os.utime(path, ns=(0, 10**18))
    assert changed()
    os.utime(path, ns=(0, 10**18 + 1))
    assert changed()
    path.rename(path.with_name("b"))
    assert changed()
    (folder / "c").write_text("")
    assert changed()
    assert fingerprint([tmp_path / "nowhere"]) != fingerprint([tmp_path / "nowhere2"])
    assert fingerprint([]) == fingerprint([])
