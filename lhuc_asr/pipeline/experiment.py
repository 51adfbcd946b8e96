"""An experiment's folder: its lock, its record, and where everything in it lies."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lhuc_asr.base.atomic import read_json
from lhuc_asr.base.config import load_config
from lhuc_asr.base.errors import ExperimentError
from lhuc_asr.base.experiment_folder import CONFIG_FILE, ExperimentFolder, record_run
from lhuc_asr.base.locks import locked
from lhuc_asr.pipeline.config import ExperimentConfig

logger = logging.getLogger(__name__)

# ``hmm/<name>`` of the Gaussians' alignment.
MONOPHONES = "mono"


def realigned(number: int) -> str:
    """``hmm/<name>`` of the alignment by the network of a realignment, from 1."""
    return f"dnn{number}"


def last_alignment(config: ExperimentConfig) -> str:
    """``hmm/<name>`` of the alignment that the networks of the passes are trained on; the graph has its topology."""
    return realigned(config.realignments) if config.realignments else MONOPHONES


def at_corpus_rate(config: ExperimentConfig, layout: ExperimentFolder) -> ExperimentConfig:
    """The configuration with features at the recordings' sample rate, where that is lower."""
    rate = int(read_json(layout.sample_rate))
    if rate >= config.features.sample_rate:
        return config
    logger.info("recordings at %d Hz: features at that rate", rate)
    return config.model_copy(
        update={
            "features": config.features.model_copy(update={"sample_rate": rate}),
            "alignment_features": config.alignment_features.model_copy(update={"sample_rate": rate}),
        }
    )


def read_experiment(folder: Path) -> tuple[ExperimentConfig, ExperimentFolder]:
    """The configuration and the folder of a finished experiment, or of one fold of a cross-validation.

    Raises:
        ExperimentError: It is no experiment's folder, a cross-validation's that has one for each fold, or unfinished.
        ConfigError: It was made by another version, with settings that this one does not know.
    """
    layout = ExperimentFolder(folder)
    found = [path for path in (folder / CONFIG_FILE, folder.parent / CONFIG_FILE) if path.is_file()]
    if not found or (found[0].parent != folder and not layout.manifest("train").is_file()):
        raise ExperimentError(
            f"{folder}: not an experiment's folder, it has no {CONFIG_FILE}; give one such as exp/an4"
        )
    config = load_config(ExperimentConfig, found[0])
    if config.folds > 1 and found[0].parent == folder:
        raise ExperimentError(
            f"{folder}: a cross-validation has a network for each fold; give one of them, such as {folder / 'fold1'}"
        )
    if not layout.sample_rate.is_file():
        raise ExperimentError(f"{folder}: the experiment is not finished; lhuc-asr run goes on with it")
    return at_corpus_rate(config, layout), layout


@contextmanager
def opened(config: ExperimentConfig, record: bool = True) -> Iterator[ExperimentFolder]:
    """Take an experiment's folder for one run.

    Args:
        config: The recipe.
        record: Whether it becomes the experiment's own: its ``config.yaml`` and ``run.json``.

    Raises:
        ExperimentError: Another run is in the folder, it cannot be written to, or it is a recipe's.
    """
    with locked(config.folder) as folder:
        if record:
            record_run(folder, config, config.seed)
        yield ExperimentFolder(folder)
