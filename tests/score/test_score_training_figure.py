"""The figure of a training: the last attempt's epochs, undone ones, the average, and nothing of other stages."""

from pathlib import Path

import pytest

from lhuc_asr.base.atomic import append_json_line
from lhuc_asr.score.training_figure import TrainingCurve, read_curves, training_figure


def epoch(stage: str, number: int, heldout: float, kept: bool = True) -> dict[str, object]:
    return {"stage": stage, "time": 0.0, "epoch": number, "train_loss": 2 * heldout, "heldout_loss": heldout,
            "kept": kept}  # fmt: skip


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    """``si`` was begun, and begun again after its average was made; ``sat`` has one epoch."""
    rows = [
        {"stage": "features", "time": 0.0, "seconds": 1.0},
        epoch("am/si", 1, 8.0),
        epoch("am/si", 2, 7.0),
        {"stage": "am/si", "time": 0.0, "averaged_epochs": 2, "heldout_loss": 6.5},
        epoch("am/si", 1, 3.0),
        epoch("am/sat", 1, 5.0),
        epoch("am/si", 2, 3.5, kept=False),
        epoch("am/si", 3, 2.0),
    ]
    for row in rows:
        append_json_line(tmp_path / "metrics.jsonl", row)
    return tmp_path / "metrics.jsonl"


def test_the_last_attempt_counts_and_networks_without_an_epoch_are_left_out(metrics: Path) -> None:
    si = TrainingCurve((6.0, 7.0, 4.0), (3.0, 3.5, 2.0), (True, False, True), None)
    assert read_curves(metrics, ["si", "other"]) == {"si": si}
    append_json_line(metrics, {"stage": "am/si", "time": 0.0, "averaged_epochs": 2, "heldout_loss": 1.9})
    curves = read_curves(metrics, ["sat", "si"])
    assert list(curves) == ["sat", "si"]
    assert curves["si"].average == 1.9


def test_the_lines_are_the_losses(metrics: Path) -> None:
    append_json_line(metrics, {"stage": "am/si", "time": 0.0, "averaged_epochs": 2, "heldout_loss": 1.9})
    figure = training_figure(metrics, ["si"])
    assert figure is not None
    (axes,) = figure.axes
    training, heldout = axes.lines
    assert list(zip(*heldout.get_data(), strict=True)) == [(1, 3.0), (2, 3.5), (3, 2.0)]
    assert list(training.get_ydata()) == [6.0, 7.0, 4.0]
    undone, average = (points.get_offsets().tolist() for points in axes.collections)
    assert undone == [[2, 3.5]]
    assert average == [[3, 1.9]]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[0] == "si"


def test_nothing_is_drawn_of_nothing(metrics: Path) -> None:
    assert training_figure(metrics, ["other"]) is None
    assert training_figure(metrics.with_name("missing.jsonl"), ["si"]) is None
    metrics.write_text("no JSON\n", encoding="utf-8")
    assert training_figure(metrics, ["si"]) is None
