"""Running the tiny recipe again, and what a run has done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lhuc_asr.base.atomic import read_json_lines
from lhuc_asr.base.config import load_config
from lhuc_asr.pipeline.recipe import ExperimentConfig
from lhuc_asr.pipeline.run import run_recipe

Run = Callable[..., list[str]]


def executed_stages(folder: Path) -> list[str]:
    """The stages that ended in all runs so far, in order; epochs and other figures are left out."""
    path = folder / "metrics.jsonl"
    rows = list(read_json_lines(path)) if path.exists() else []
    return [row["stage"] for row in rows if set(row) == {"stage", "time", "seconds"}]


@pytest.fixture(scope="session")
def run(tiny_recipe: Path) -> Run:
    """Run the tiny recipe in a folder, ``run(folder, "lhuc.sweeps=3")``; returns the stages that were not skipped."""

    def run_in(folder: Path, *overrides: str) -> list[str]:
        before = len(executed_stages(folder))
        run_recipe(load_config(ExperimentConfig, tiny_recipe / "config.yaml", [f"exp={folder}", *overrides]))
        return executed_stages(folder)[before:]

    return run_in


@pytest.fixture(scope="session")
def executed() -> Callable[[Path], list[str]]:
    """``executed_stages``, for tests that run something else than a recipe."""
    return executed_stages
