"""Figures are kept line by line, progress passes items through, the log goes to standard error."""

from __future__ import annotations

import io
import logging
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lhuc_asr.base import runlog
from lhuc_asr.base.atomic import read_json_lines
from lhuc_asr.base.errors import OutputError
from lhuc_asr.base.runlog import Metrics, logged_to, progress, setup_logging, stopwatch


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


class Terminal(io.StringIO):
    """Standard error on a terminal."""

    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal as standard error. Not a fixture: pytest has its own standard error after those."""
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(runlog, "SECONDS_BETWEEN_LINES", -1.0)
    return shown


def test_a_terminal_shows_one_bar_and_work_inside_it_is_told_in_lines(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    terminal = on_terminal(monkeypatch)
    with caplog.at_level(logging.INFO, "lhuc_asr"):
        assert [list(progress("ab", "inner")) for _ in progress([1, 2], "outer")] == [["a", "b"]] * 2
    assert "outer" in terminal.getvalue()
    assert "inner" not in terminal.getvalue()
    assert caplog.messages == ["inner: 1 of 2", "inner: 2 of 2"] * 2


def test_threads_that_show_progress_at_once_have_one_bar(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    terminal = on_terminal(monkeypatch)
    barrier = threading.Barrier(3)

    def work(title: str) -> list[int]:
        numbers = []
        for number in progress(range(3), title):
            barrier.wait(timeout=30)
            numbers.append(number)
        return numbers

    with caplog.at_level(logging.INFO, "lhuc_asr"), ThreadPoolExecutor(3) as threads:
        assert list(threads.map(work, ("one", "two", "three"))) == [[0, 1, 2]] * 3
    bars = {title for title in ("one", "two", "three") if title in terminal.getvalue()}
    lines = {message.split(":")[0] for message in caplog.messages}
    assert len(bars) == 1
    assert lines == {"one", "two", "three"} - bars


def test_work_that_fails_or_is_left_gives_the_bar_back(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    with pytest.raises(ZeroDivisionError):
        list(progress((1 / number for number in [0]), "failing"))
    left = progress([1, 2], "left")
    next(left)
    left.close()
    assert list(progress([1], "later")) == [1]
    for title in ("failing", "left", "later"):
        assert title in terminal.getvalue()


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


def test_the_log_of_a_run_is_kept_with_the_error_that_ended_it(tmp_path: Path, package_log) -> None:
    setup_logging()
    log, path = logging.getLogger("lhuc_asr.x"), tmp_path / "run.log"
    with logged_to(path):
        log.info("one")
    log.info("between")

    def fail() -> None:
        with logged_to(path):
            log.warning("two")
            raise OSError("no disk")

    with pytest.raises(OSError, match="no disk"):
        fail()
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [line.split(" ", 2)[2] for line in lines[:3]] == ["INFO one", "WARNING two", "ERROR ended by an error"]
    assert lines[-1] == "OSError: no disk"
    assert "between" not in path.read_text(encoding="utf-8")


def test_a_log_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "run.log").mkdir()
    with pytest.raises(OutputError, match=r"run\.log"), logged_to(tmp_path / "run.log"):
        pass
