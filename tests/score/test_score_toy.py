"""The toy report: errors by hand, the table, the figures, files that are none."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from lhuc_asr.base.errors import ScoreError
from lhuc_asr.score.figures import save_figure
from lhuc_asr.score.tables import table_text
from lhuc_asr.score.toy import ToyRegression, ToyReport, read_toy, toy_table, write_toy
from lhuc_asr.score.toy_figures import save_toy_figures, toy_figure


@pytest.fixture
def regression() -> ToyRegression:
    """Two units, two points; the units end at the same height after adaptation: 1 x 1 and 0.5 x 2."""
    return ToyRegression(
        name="bumps",
        x=[-1.0, 1.0],
        training={"f1": [0.0, 3.0]},
        trained={"": [0.0, 3.0]},
        target=[0.0, 2.0],
        unadapted=[0.0, 3.0],
        adapted=[0.3, 1.6],
        retrained=[0.0, 2.0],
        basis=[[0.0, 1.0], [0.0, 2.0]],
        amplitudes={"": [1.0, 1.0], "new": [1.0, 0.5]},
        weights=7,
    )


@pytest.fixture
def report(regression: ToyRegression) -> ToyReport:
    return ToyReport(5, (regression,))


def test_errors_by_hand(regression: ToyRegression) -> None:
    """Roots of (0 + 1) / 2, of (0.09 + 0.16) / 2, of 0."""
    assert regression.errors == pytest.approx({"unadapted": 0.5**0.5, "adapted": 0.125**0.5, "retrained": 0.0})
    assert regression.changes == [1.0, 0.5]


def test_a_report_is_read_as_it_was_written(report: ToyReport, tmp_path: Path) -> None:
    write_toy(tmp_path / "toy.json", report)
    assert read_toy(tmp_path / "toy.json") == report
    (row,) = json.loads((tmp_path / "toy.json").read_text())["regressions"]
    assert row["errors"]["adapted"] == pytest.approx(0.125**0.5)


@pytest.mark.parametrize("text", ["[]", "{}", '{"seed": 1, "regressions": [{"name": "si"}]}'])
def test_another_file_is_refused_by_name(text: str, tmp_path: Path) -> None:
    path = tmp_path / "toy.json"
    path.write_text(text)
    with pytest.raises(ScoreError, match=r"toy\.json: not a report of toy regressions .*`lhuc-asr toy` writes one"):
        read_toy(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScoreError, match=r"none\.json: no such file; `lhuc-asr toy` writes it"):
        read_toy(tmp_path / "none.json")


def test_the_table_has_a_line_a_regression(report: ToyReport) -> None:
    shown = table_text(toy_table(report))
    (line,) = [line for line in shown.splitlines() if "0.7071" in line]
    assert [cell.strip() for cell in line.split("│")[2:-1]] == ["0.7071", "0.3536", "0.0000", "1.00 0.50"]
    assert "2 amplitudes" in shown
    assert "all 7 weights" in shown


def test_the_legend_gives_the_errors_of_the_curves(regression: ToyRegression) -> None:
    axes = toy_figure(regression).axes[2]
    shown = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    assert shown["unadapted: 0.707"] == regression.unadapted
    assert shown["2 amplitudes: 0.354"] == regression.adapted
    assert shown["all 7 weights: 0.000"] == regression.retrained


def test_units_that_end_together_are_labelled_apart(regression: ToyRegression) -> None:
    figure = toy_figure(regression)
    figure.draw_without_rendering()
    boxes = sorted((text.get_window_extent() for text in figure.axes[1].texts), key=lambda box: box.y0)
    assert [text.get_text() for text in figure.axes[1].texts] == ["× 1.00", "× 0.50"]
    assert all(low.y1 <= high.y0 for low, high in itertools.pairwise(boxes))


def test_figures_are_numbered_and_the_same_each_time(report: ToyReport, tmp_path: Path) -> None:
    write_toy(tmp_path / "toy.json", report)
    (file,) = save_toy_figures(tmp_path / "toy.json", tmp_path / "figures")
    assert file.name == "toy1_bumps.png"
    save_figure(toy_figure(report.regressions[0]), tmp_path / "again.png")
    assert file.read_bytes() == (tmp_path / "again.png").read_bytes()
