"""Commands killed or out of disk at moments drawn by chance: nothing whole is lost, and the next run ends the same."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from kills import Command, Trial, disturb
from worlds import commands

KILLS, FULL_DISKS, DEMO_KILLS = 200, 80, 20
DEMO = Path(__file__).parents[2] / "recipes" / "demo" / "config.yaml"


@pytest.fixture(scope="module")
def trials(finished: Path, tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Trial]:
    root = tmp_path_factory.mktemp("kills")
    made = [
        Trial(command, root / "work") for command in commands(root / "worlds", tiny_recipe / "config.yaml", finished)
    ]
    for trial in made:
        trial.prepare()
    return made


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_killed_commands(trials: list[Trial]) -> None:
    assert disturb(trials, KILLS, 15, Trial.killed) == []


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_full_disks(trials: list[Trial]) -> None:
    assert disturb(trials, FULL_DISKS, 15, Trial.full_disk) == []


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_killed_demo(tmp_path: Path) -> None:
    (tmp_path / "before").mkdir()
    trial = Trial(Command("demo", ("run", str(DEMO), "exp=exp"), tmp_path / "before"), tmp_path / "work")
    trial.prepare()
    assert trial.killed_often(random.Random(15), DEMO_KILLS) == []
