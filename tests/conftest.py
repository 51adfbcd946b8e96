"""One tiny experiment on synthetic voices, run once a session, for all tests that need a finished one."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

TINY = """
name: tiny
seed: 3
workers: 1
corpus:
  kind: synthetic
  voices:
    training_speakers: 6
    test_speakers: 2
    control_speakers: 2
    training_utterances: 6
    test_utterances: 3
    control_utterances: 2
heldout_speakers: 1
monophone: {iterations: 4, growing_iterations: 2, gaussians: 120}
dnn: {hidden_layers: 1, hidden_units: 48, activation: relu, context: 2}
trainer:
  schedule: {learning_rate: 0.05, max_epochs: 2}
realignments: 0
tuning: {acoustic_scales: [0.1, 0.2], insertion_penalties: [0.0]}
lhuc: {optimizer: adam, learning_rate: 0.1, sweeps: 2}
"""


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a recipe that takes seconds."""
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "config.yaml").write_text(TINY, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def finished(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny recipe's finished experiment; tests read it, and change copies of it."""
    from lhuc_asr.base.config import load_config
    from lhuc_asr.pipeline.recipe import ExperimentConfig
    from lhuc_asr.pipeline.run import run_recipe

    folder = tmp_path_factory.mktemp("finished") / "exp"
    run_recipe(load_config(ExperimentConfig, tiny_recipe / "config.yaml", [f"exp={folder}"]))
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished experiment, to be changed."""
    return Path(shutil.copytree(finished, tmp_path / "exp"))


@pytest.fixture
def package_log() -> Iterator[logging.Logger]:
    """The package's logger, put back as it was: a command line sends it to standard error."""
    logger = logging.getLogger("lhuc_asr")
    before = logger.level, logger.propagate, list(logger.handlers)
    yield logger
    logger.setLevel(before[0])
    logger.propagate = before[1]
    logger.handlers[:] = before[2]
