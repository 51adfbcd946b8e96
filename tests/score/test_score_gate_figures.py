"""The heat map shows the groups of the file, and refuses what is not an inspection."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lhuc_asr.base.errors import ScoreError
from lhuc_asr.score.gate_figures import gate_heat_map


def inspection(path: Path, count: int) -> Path:
    groups = [
        {
            "name": f"u${place}",
            "examples": 3,
            "deviation": 1.0 - place / count,
            "amplitudes": {"a": [1.0, place], "b": [2]},
        }
        for place in range(count)
    ]
    path.write_text(json.dumps({"feature": "user", "overall": {"a": [1.0, 1.0], "b": [0.5]}, "groups": groups}))
    return path


def test_rows_are_amplitudes_less_those_of_all(tmp_path: Path) -> None:
    axes = gate_heat_map(inspection(tmp_path / "gates.json", 3)).axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array(), [[0, -1, 1.5], [0, 0, 1.5], [0, 1, 1.5]])
    assert axes.images[0].get_clim() == (-1.5, 1.5)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b"]
    assert axes.get_yticklabels()[0].get_text() == "u$0  1.000"


def test_of_many_groups_both_ends_are_shown(tmp_path: Path) -> None:
    axes = gate_heat_map(inspection(tmp_path / "gates.json", 9), most=5).axes[0]
    shown = [label.get_text().split()[0] for label in axes.get_yticklabels()]
    assert shown == ["u$0", "u$1", "u$2", "u$7", "u$8"]
    assert "the 5 at both ends of 9" in axes.get_title(loc="left")


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"feature": "u", "overall": {"a": [1]}, "groups": [{}]}'])
def test_what_is_not_an_inspection_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "gates.json"
    path.write_text(content)
    with pytest.raises(ScoreError, match="not an inspection of gates"):
        gate_heat_map(path)
