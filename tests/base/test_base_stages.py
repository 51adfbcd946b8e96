"""A stage is done once; it is done again when what it depends on changes, and after a failure."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from stage_bench import Bench, Options

from lhuc_asr.base.atomic import read_json_lines
from lhuc_asr.base.errors import ExperimentError
from lhuc_asr.base.runlog import Metrics
from lhuc_asr.base.stages import PlannedStages, RecordedStages, Stages
from lhuc_asr.base.watched_files import WatchedFiles


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


def test_the_work_is_given_the_options_that_the_key_is_made_of(tmp_path: Path) -> None:
    given: list[Options] = []
    options = Options(size=5)
    Stages(tmp_path, Metrics(tmp_path / "metrics.jsonl")).run("x", lambda these: given.append(these), options=options)
    assert given == [options]


def test_a_missing_output_runs_its_stage_alone(bench: Bench) -> None:
    bench.run()
    bench.output.unlink()
    assert bench.run() == ["first"]


def test_an_output_that_is_not_what_the_stage_wrote_runs_it_alone(bench: Bench) -> None:
    """As a file of another experiment, or half of one from a copy that was broken off, would be."""
    bench.run()
    bench.output.write_text("another")
    assert bench.run() == ["first"]
    assert bench.run() == []


def test_a_file_in_a_folder_that_a_stage_wrote_counts_too(tmp_path: Path) -> None:
    done: list[int] = []

    def work(_: None) -> None:
        done.append(len(done))
        (tmp_path / "speakers").mkdir(exist_ok=True)
        (tmp_path / "speakers" / "alice").write_text("alice")

    for expected in (1, 2, 2):
        stages = Stages(tmp_path, Metrics(tmp_path / "metrics.jsonl"))
        stages.run("pass", work, options=None, outputs=[tmp_path / "speakers"])
        assert len(done) == expected
        if expected == 1:
            (tmp_path / "speakers" / "alice").unlink()


def test_an_output_that_is_made_again_otherwise_runs_the_stages_after_it(bench: Bench) -> None:
    """Networks that are trained again on a GPU differ, and so do those of another version."""
    bench.run()
    bench.output.unlink()
    bench.content = "second training"
    assert bench.run() == ["first", "second"]


def test_a_stage_that_fails_is_run_again_and_no_other(bench: Bench) -> None:
    def fail(_: object) -> None:
        raise KeyError

    stages = Stages(bench.folder, Metrics(bench.folder / "metrics.jsonl"))
    stages.run("first", lambda _: bench.output.write_text("") and None, options=None, outputs=[bench.output])
    with pytest.raises(KeyError):
        stages.run("second", fail, options=None, after=["first"])
    assert bench.run() == ["second"]


def test_a_stage_that_failed_with_new_options_is_not_taken_for_done_with_the_old_ones(bench: Bench) -> None:
    """Its outputs may be half replaced."""

    def fail(_: object) -> None:
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
    kinds = Stages(tmp_path, Metrics(tmp_path / "m")), PlannedStages(tmp_path, {}), RecordedStages(tmp_path)
    for stages in kinds:
        stages.run("there", lambda _: None, options=None)
        with pytest.raises(ExperimentError, match="the stage 'x' reads the results of 'lost', expected before it"):
            stages.run("x", lambda _: None, options=None, after=["there", "lost"])


def test_a_change_of_a_file_that_a_stage_named_runs_it_and_those_after_it(bench: Bench, tmp_path: Path) -> None:
    files = [tmp_path / "elsewhere" / name for name in ("a", "b")]
    files[0].parent.mkdir()
    for file in files:
        file.write_text("one")
    assert bench.run(files=files) == ["first", "second"]
    assert bench.run(files=files) == []
    files[1].write_text("two")
    assert bench.run(files=files) == ["first", "second"]
    assert bench.run(files=files) == []
    files[0].unlink()
    assert bench.run(files=files) == ["first", "second"]
    assert bench.run(files=files) == []
    files[0].write_text("back")
    assert bench.run(files=files) == ["first", "second"]
    assert bench.run(files=files) == []


def test_a_file_that_is_touched_copied_or_linked_is_the_same(bench: Bench, tmp_path: Path) -> None:
    file, other = tmp_path / "elsewhere" / "a", tmp_path / "elsewhere" / "b"
    file.parent.mkdir()
    file.write_text("one")
    bench.run(files=[file])
    for change in (
        lambda: os.utime(file, ns=(0, 0)),
        lambda: file.touch(),
        lambda: (other.write_text("one"), other.replace(file)),
        lambda: (file.rename(other), file.symlink_to(other)),
        lambda: file.chmod(0o600),
    ):
        change()
        assert bench.run(files=[file]) == []
        assert bench.run(files=[file]) == []


def test_a_file_that_changes_under_its_old_size_and_time_is_noticed(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "elsewhere" / "a"
    file.parent.mkdir()
    file.write_text("one")
    os.utime(file, ns=(10**18, 10**18))
    bench.run(files=[file])
    file.write_text("two")
    os.utime(file, ns=(10**18, 10**18))
    assert bench.run(files=[file]) == ["first", "second"]
    other = tmp_path / "elsewhere" / "b"
    other.write_text("one")
    os.utime(other, ns=(10**18, 10**18))
    other.replace(file)
    assert bench.run(files=[file]) == ["first", "second"]


def test_the_content_of_a_file_whose_times_are_the_same_is_not_read_again(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "elsewhere" / "a"
    file.parent.mkdir()
    file.write_text("one")
    bench.run(files=[file])
    now = time.time_ns()
    monkeypatch.setattr("lhuc_asr.base.fingerprint.time.time_ns", lambda: now + 10**11)  # the file has settled
    assert bench.run(files=[file]) == []
    monkeypatch.setattr("lhuc_asr.base.watched_files.content_of", lambda path: pytest.fail("read again"))
    assert bench.run(files=[file]) == []


def test_a_file_that_was_just_written_is_read_again(bench: Bench, tmp_path: Path) -> None:
    """It could be written again within one tick of the file system's clock."""
    file = tmp_path / "elsewhere" / "a"
    file.parent.mkdir()
    file.write_text("one")
    bench.run(outputs=False, files=[file])
    (row,) = read_json_lines(bench.folder / "stages" / "first.files.jsonl")
    assert row["seen"] is None


def test_a_file_of_the_experiment_that_is_made_again_the_same_leaves_later_stages_finished(bench: Bench) -> None:
    made = bench.folder / "made"
    made.write_text("one")
    bench.run(files=[made])
    made.write_text("two")
    os.utime(made, ns=(0, 0))

    def mended() -> Iterator[Path]:
        made.write_text("one")
        yield made

    assert bench.run(files=mended()) == ["first"]
    assert bench.run(files=[made]) == []


def test_a_file_that_changes_while_its_stage_runs_is_read_again(tmp_path: Path) -> None:
    recording, made = tmp_path / "recording", tmp_path / "exp" / "made"
    recording.write_text("old")
    read: list[str] = []

    def work(_: None) -> list[Path]:
        read.append(recording.read_text())
        made.write_text(read[-1])
        if read == ["old"]:
            time.sleep(0.02)  # the times of files are a few milliseconds coarse
            recording.write_text("new")
        return [recording, made]

    for _ in range(3):
        made.parent.mkdir(exist_ok=True)
        Stages(made.parent, Metrics(made.parent / "metrics.jsonl")).run("corpus", work, options=None)
    assert read == ["old", "new"]


def test_a_file_from_the_future_does_not_run_its_stage_for_ever(bench: Bench, tmp_path_factory) -> None:
    recording = tmp_path_factory.mktemp("elsewhere") / "recording"
    recording.touch()
    os.utime(recording, (4e9, 4e9))
    assert bench.run(files=[recording]) == ["first", "second"]
    assert bench.run(files=[recording]) == []


def test_the_order_of_the_files_that_a_stage_names_does_not_matter(bench: Bench, tmp_path: Path) -> None:
    files = [tmp_path / "a", tmp_path / "b", tmp_path / "a"]
    bench.run(1, outputs=False, files=files)
    assert bench.run(2, outputs=False, files=reversed(files)) == ["first", "second"]
    assert bench.run(1, outputs=False, files=files) == ["first", "second"]
    assert (bench.folder / "stages" / "first.files.jsonl").read_text().count("\n") == 2


def test_a_stage_that_names_other_files_runs_those_after_it(bench: Bench, tmp_path: Path) -> None:
    bench.run(files=[tmp_path / "a"])
    bench.output.unlink()
    assert bench.run(files=[tmp_path / "b"]) == ["first", "second"]
    bench.output.unlink()
    assert bench.run() == ["first", "second"]
    assert bench.run(2, outputs=False) == ["first", "second"]
    assert not (bench.folder / "stages" / "first.files.jsonl").exists()


def test_a_stage_that_names_the_same_files_again_runs_alone(bench: Bench, tmp_path: Path) -> None:
    bench.run(files=[tmp_path / "a"])
    bench.output.unlink()
    assert bench.run(files=[tmp_path / "a"]) == ["first"]


def test_a_named_link_stands_for_the_file_that_it_points_to(bench: Bench, tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("one")
    link.symlink_to(file)
    bench.run(files=[link])
    file.write_text("other")
    assert bench.run(files=[link]) == ["first", "second"]


def test_the_log_says_which_files_changed(bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = [tmp_path / "elsewhere" / str(number) for number in range(5)]
    bench.run(files=files)
    files[0].parent.mkdir()
    for file in files:
        file.touch()
    with caplog.at_level(logging.INFO, "lhuc_asr"):
        bench.run(files=files)
    shown = "elsewhere/0, elsewhere/1, elsewhere/2 and 2 more"
    assert f"first: changed or missing since the last run: {shown}" in caplog.messages


@pytest.mark.parametrize(
    "content", ["", "{", '{"path": "a"}\n', '{"path": 1, "bytes": 2, "changed": 3}\n', '{"path": "a", "x": 1}\n']
)
def test_a_damaged_list_of_files_runs_its_stage(content: str, bench: Bench, tmp_path: Path) -> None:
    bench.run(files=[tmp_path / "a"])
    (bench.folder / "stages" / "first.files.jsonl").write_text(content)
    assert bench.run(files=[tmp_path / "a"]) == ["first"]


@pytest.mark.parametrize(
    "change",
    [
        {"key": []},
        {"seconds": "x"},
        {"files": {}},
        {"inputs": []},
        {"inputs_in_key": 3},
        {"inputs_in_key": {}},
        {"y": 1},
    ],
)
def test_a_record_with_other_values_runs_its_stage(change: dict[str, object], bench: Bench) -> None:
    """``inputs_in_key`` of another type failed where a stage was looked at whose options have no names."""
    bench.run(first=0.5)
    path = bench.folder / "stages" / "first.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    stages = RecordedStages(bench.folder)
    stages.run("first", lambda _: None, options=0.5, outputs=[bench.output])
    assert stages.first_stale(["first"]) == "first"
    assert bench.run(first=0.5) == ["first"]


def test_inputs_in_the_record_of_a_stage_that_reads_none_are_not_used(bench: Bench) -> None:
    bench.run(first=0.5)
    path = bench.folder / "stages" / "first.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"inputs_in_key": "x"}))
    stages = RecordedStages(bench.folder)
    stages.run("first", lambda _: None, options=0.5, outputs=[bench.output])
    assert stages.first_stale(["first"]) is None


def test_a_list_of_files_with_a_name_that_no_file_can_have_is_damaged(tmp_path: Path) -> None:
    """The record can have the right hash of such a list: whoever wrote one wrote the other."""
    path = tmp_path / "first.files.jsonl"
    path.write_text('{"path": "a\\u0000b", "bytes": 1, "changed": 1}\n')
    assert WatchedFiles.read(path, tmp_path).changed() == []


def test_an_experiment_that_is_moved_stays_finished(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    made = before / "voices" / "a"
    made.parent.mkdir(parents=True)
    made.touch()
    Bench(before).run(files=[made])
    before.rename(after)
    assert Bench(after).run() == []
    (after / "voices" / "a").unlink()
    assert Bench(after).run() == ["first", "second"]
