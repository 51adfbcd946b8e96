"""Figures are kept line by line, progress passes items through, the log goes to standard error."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from lhuc_asr.base import runlog
from lhuc_asr.base.atomic import read_json_lines
from lhuc_asr.base.runlog import Metrics, progress, setup_logging, stopwatch


def test_metrics_are_appended(tmp_path: Path) -> None:
    for epoch in range(3):
        Metrics(tmp_path / "metrics.jsonl").write("am/si", epoch=epoch, loss=1 / (epoch + 1))
    rows = list(read_json_lines(tmp_path / "metrics.jsonl"))
    assert [(row["stage"], row["epoch"]) for row in rows] == [("am/si", 0), ("am/si", 1), ("am/si", 2)]
    assert rows == sorted(rows, key=lambda row: row["time"])


def test_progress_passes_items_through_and_tells_now_and_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runlog, "SECONDS_BETWEEN_LINES", -1.0)
    with caplog.at_level(logging.INFO, "lhuc_asr"):
        assert list(progress(["a", "b"], "letters")) == ["a", "b"]
        assert list(progress(iter("c"), "more")) == ["c"]
    assert caplog.messages == ["letters: 1 of 2", "letters: 2 of 2", "more: 1 of ?"]


def test_progress_reads_no_further_than_asked() -> None:
    read: list[int] = []

    def items():
        for number in range(5):
            read.append(number)
            yield number

    assert next(progress(items(), "numbers", 5)) == 0
    assert read == [0]


def test_the_log_goes_to_standard_error_once(package_log, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        setup_logging()
    logging.getLogger("lhuc_asr.x").info("told")
    logging.getLogger("lhuc_asr.x").debug("not told")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("told") == 1
    assert "INFO told" in captured.err


def test_a_stopped_watch_stands() -> None:
    with stopwatch() as watch:
        assert watch.seconds >= 0
    assert watch.seconds == watch.seconds
