"""What series and looks still cost, against what they then make."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lhuc_asr.base.atomic import read_json_lines
from lhuc_asr.base.errors import ExperimentError
from lhuc_asr.base.runlog import Metrics
from lhuc_asr.base.stage_plan import about
from lhuc_asr.cli.benchmark import benchmark
from lhuc_asr.study.cost import Cost, costs
from lhuc_asr.study.run import KNOWN, run_benchmark
from lhuc_asr.study.series import GAMMAS

SPLITS = ("test", "control")


def stage_seconds(folder: Path) -> dict[str, float]:
    rows = read_json_lines(folder / "metrics.jsonl")
    return {row["stage"]: row["seconds"] for row in rows if row.keys() == {"stage", "time", "seconds"}}


def test_the_cost_is_what_a_series_then_makes(copied: Path, executed: Callable[[Path], list[str]]) -> None:
    files, took = sorted(copied.rglob("*")), stage_seconds(copied)
    before = costs(copied)
    assert sorted(copied.rglob("*")) == files
    assert list(before) == list(KNOWN)
    assert str(before["gains"]) == "all passes done, no table yet"
    done = len(executed(copied))
    run_benchmark(copied, ["silence", "gains"])
    made = [stage for stage in executed(copied)[done:] if " over " in stage]
    silence = before["silence"]
    assert silence.passes - silence.finished == len(made)
    # Half of them adapt, half are controls.
    expected = sum(took[f"lhuc{kind} over {split}"] for kind in ("", "__others_mean") for split in SPLITS)
    assert silence.seconds == pytest.approx(expected * len(made) / 4)
    assert str(silence) == f"{len(made)} of {silence.passes} passes, {about(silence.seconds)}"
    after = costs(copied)
    assert str(after["silence"]) == str(after["gains"]) == "done"
    assert after["silence"].finished == silence.passes
    assert after["one_shot"] == before["one_shot"]


def test_networks_to_train_are_counted_beside_the_passes(copied: Path) -> None:
    cost = costs(copied)["gamma"]
    assert cost.networks == len(GAMMAS)
    # Each network's search, and its row 0 alone, adapted and the control; the recipe's passes are finished.
    assert cost.passes - cost.finished == len(GAMMAS) * (1 + 3 * len(SPLITS))
    assert f" passes, {len(GAMMAS)} networks, " in str(cost)


def test_the_time_of_a_network_is_that_of_si_until_it_was_trained_once(copied: Path) -> None:
    metrics, first = Metrics(copied / "metrics.jsonl"), stage_seconds(copied)
    passes = sum(first[f"{name} over {split}"] for name in ("si", "lhuc", "lhuc__others_mean") for split in SPLITS)
    passes += first["si over heldout"]
    # Training was begun with three epochs, and once more with two: the latter count.
    for epoch, seconds in ((1, 900.0), (2, 900.0), (3, 900.0), (1, 10.0), (2, 30.0)):
        metrics.write("am/si", epoch=epoch, seconds=seconds)
    assert costs(copied)["gamma"].seconds == pytest.approx(len(GAMMAS) * (40.0 + passes))
    metrics.write("network sat__frame_0-3", seconds=100.0)
    networks = (len(GAMMAS) - 1) * 40.0 + 100.0
    assert costs(copied)["gamma"].seconds == pytest.approx(networks + len(GAMMAS) * passes)


def test_a_series_without_a_base_is_called_impossible(copied: Path, run: Callable[..., list[str]]) -> None:
    run(copied, "passes={moments: {method: {kind: moments}}}")
    cost = costs(copied)
    assert str(cost["layers"]) == "not possible"
    assert "no pass that a series can start from" in str(cost["layers"].obstacle)
    assert str(cost["gains"]) == "all passes done, no table yet"


def test_a_time_that_is_not_known_is_not_said() -> None:
    assert str(Cost(passes=3, finished=1)) == "2 of 3 passes"


def test_the_command_lists_them_in_100_columns(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    benchmark(copied)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    for name in KNOWN:
        assert any(f" {name} " in line for line in lines), name
    assert any("silence" in line and "passes, " in line for line in lines)


def test_no_table_is_wider_than_100_columns_and_no_number_is_cut(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["targets", "methods", "gains", "spread", "frames", "scale"]
    benchmark(copied, names)
    lines = capsys.readouterr().out.splitlines()
    assert not [line for line in lines if "…" in line]
    tables = [line for line in lines if not line.startswith(("The paper: ", "Tables and figures: "))]
    assert max(map(len, tables)) <= 100
    for name, figure in {"gains": "change", "spread": "least", "scale": "wer"}.items():
        for row in read_json_lines(copied / "benchmark" / name / "table.jsonl"):
            assert any(f"{row[figure]:.4f}" in line for line in tables), (name, row)
    for row in read_json_lines(copied / "benchmark" / "targets" / "table.jsonl"):
        assert any(f" {100 * row['wer']:.2f} " in line for line in tables), row
    # A pass under a search of its own has no control: blank, and not infinite.
    own = [line for line in tables if "search of its" in line]
    assert own
    assert all(line.count("[") == 1 for line in own)


def test_the_list_is_refused_where_there_is_no_experiment(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match="expected the folder of an experiment"):
        costs(tmp_path)
