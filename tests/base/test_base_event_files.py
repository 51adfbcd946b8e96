"""Event files: the curves are what the metrics say, once, however often a run was killed, and while it goes on."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lhuc_asr.base import event_files as module
from lhuc_asr.base.atomic import append_json_line, write_json_lines
from lhuc_asr.base.errors import OutputError
from lhuc_asr.base.event_files import EventFiles, Point, event_files


def curves(folder: Path) -> dict[str, dict[str, list[tuple[int, float, float]]]]:
    """The points that TensorBoard reads in each folder below: step, value and time of each, by name."""
    read = {}
    for place in sorted({path.parent for path in folder.rglob("events.out.tfevents.*")}):
        events = EventAccumulator(str(place)).Reload()
        read[place.relative_to(folder).as_posix()] = {
            name: [(each.step, each.value, each.wall_time) for each in events.Scalars(name)]
            for name in events.Tags()["scalars"]
        }
    return read


def epoch(number: int, loss: float, stage: str = "net") -> dict[str, Any]:
    return {"stage": stage, "time": 1000.0 + number, "epoch": number, "loss": loss}


def point(row: Mapping[str, Any]) -> Point | None:
    return Point(row["stage"], row["epoch"], row["time"], {"loss": row["loss"]}) if "epoch" in row else None


def written(folder: Path, *paths: Path, prefix: str = "") -> dict[str, Any]:
    """The curves after one run that only writes what the metrics have, in a second of its own: its file is named so."""
    time.sleep(1.01 - time.time() % 1 if folder.exists() else 0)
    files = EventFiles(folder, {prefix: paths}, point)
    files.update()
    files.close()
    return curves(folder)


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    """Two epochs of a training, in eighths, which event files hold exactly, and another stage."""
    path = tmp_path / "metrics.jsonl"
    write_json_lines(path, [epoch(1, 2.5), {"stage": "net", "time": 3.0, "seconds": 9.0}, epoch(2, 1.125)])
    return path


def test_the_curves_are_the_metrics(tmp_path: Path, metrics: Path) -> None:
    append_json_line(metrics, epoch(1, 4.0, "other"))
    assert written(tmp_path / "tb", metrics) == {
        "net": {"loss": [(1, 2.5, 1001.0), (2, 1.125, 1002.0)]},
        "other": {"loss": [(1, 4.0, 1001.0)]},
    }


def test_a_part_has_its_name_before_its_trainings(tmp_path: Path, metrics: Path) -> None:
    assert list(written(tmp_path / "tb", metrics, prefix="fold1")) == ["fold1/net"]


def test_no_point_is_doubled_when_a_run_is_resumed(tmp_path: Path, metrics: Path) -> None:
    before = written(tmp_path / "tb", metrics)
    assert written(tmp_path / "tb", metrics) == before
    append_json_line(metrics, epoch(3, 1.0))
    assert written(tmp_path / "tb", metrics)["net"]["loss"] == [*before["net"]["loss"], (3, 1.0, 1003.0)]


def test_a_training_that_begins_again_replaces_its_first_attempt(tmp_path: Path, metrics: Path) -> None:
    files = EventFiles(tmp_path / "tb", {"": [metrics]}, point)
    files.update()
    append_json_line(metrics, epoch(1, 8.0))
    files.update()
    assert curves(tmp_path / "tb")["net"]["loss"] == [(1, 8.0, 1001.0)]
    append_json_line(metrics, epoch(2, 7.0))
    files.update()
    files.close()
    assert curves(tmp_path / "tb")["net"]["loss"] == [(1, 8.0, 1001.0), (2, 7.0, 1002.0)]


def test_a_tensorboard_that_is_open_forgets_the_first_attempt_too(tmp_path: Path, metrics: Path) -> None:
    files = EventFiles(tmp_path / "tb", {"": [metrics]}, point)
    files.update()
    shown = EventAccumulator(str(tmp_path / "tb" / "net")).Reload()
    assert [each.value for each in shown.Scalars("loss")] == [2.5, 1.125]
    append_json_line(metrics, epoch(1, 8.0))
    files.update()
    files.close()
    assert [each.value for each in shown.Reload().Scalars("loss")] == [8.0]


def test_of_several_files_the_first_that_is_there_counts(tmp_path: Path, metrics: Path) -> None:
    training = tmp_path / "training.jsonl"
    assert written(tmp_path / "tb", training, metrics)["net"]["loss"][0][1] == 2.5
    write_json_lines(training, [epoch(1, 6.0)])
    assert written(tmp_path / "tb", training, metrics)["net"]["loss"] == [(1, 6.0, 1001.0)]


@pytest.mark.parametrize("content", [None, "not JSON\n"])
def test_metrics_that_are_missing_or_damaged_say_nothing(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "metrics.jsonl"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    assert written(tmp_path / "tb", path) == {}


def test_points_appear_while_the_run_goes_on(tmp_path: Path, metrics: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.02)
    with event_files(tmp_path / "tb", {"": [metrics]}, point):
        append_json_line(metrics, epoch(3, 0.5))
        end = time.monotonic() + 30
        while (3, 0.5, 1003.0) not in curves(tmp_path / "tb").get("net", {}).get("loss", []):
            assert time.monotonic() < end, "the third epoch is not in the event files"
            time.sleep(0.02)


def test_all_points_are_there_at_the_end_also_of_a_run_that_fails(tmp_path: Path, metrics: Path) -> None:
    def run() -> None:
        with event_files(tmp_path / "tb", {"": [metrics]}, point):
            append_json_line(metrics, epoch(3, 0.5))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert len(curves(tmp_path / "tb")["net"]["loss"]) == 3


def test_a_folder_that_cannot_be_made_is_refused_at_once(tmp_path: Path, metrics: Path) -> None:
    (tmp_path / "tb").write_text("", encoding="utf-8")
    with (
        pytest.raises(OutputError, match=r"tb: cannot be written"),
        event_files(tmp_path / "tb", {"": [metrics]}, point),
    ):
        pytest.fail("the run has begun")


def test_the_run_goes_on_without_curves_and_the_log_says_so(
    tmp_path: Path, metrics: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, package_log
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    package_log.propagate = True
    monkeypatch.setattr(module, "SummaryWriter", full)
    with caplog.at_level(logging.WARNING), event_files(tmp_path / "tb", {"": [metrics]}, point):
        pass
    assert [record.message for record in caplog.records] == [
        f"{tmp_path / 'tb'}: the curves end here ([Errno 28] No space left on device); run again when this is mended"
    ]
