"""The curves of a recipe's networks, for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from lhuc_asr.base.event_files import Point, event_files
from lhuc_asr.base.experiment_folder import TENSORBOARD, ExperimentFolder
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.experiment import fold_configs, seed_configs

# Names of the figures of an epoch (``nnet/epochs.py``) in TensorBoard; losses are named after what is trained with.
LOSSES = {"train_loss": "training", "heldout_loss": "held out"}
NAMES = {"learning_rate": "learning rate", "seconds": "seconds of an epoch"}


def training_curves(config: ExperimentConfig) -> AbstractContextManager[None]:
    """Keep the curves of all networks, of every seed and fold, up to date in ``tensorboard/`` while the block runs.

    Args:
        config: The recipe; the folder of its experiment is there.

    Raises:
        OutputError: The folder cannot be written.
    """
    parts = [fold.folder for seed in seed_configs(config) for fold in fold_configs(seed)]
    metrics = {"/".join(part.relative_to(config.folder).parts): [ExperimentFolder(part).metrics.path] for part in parts}
    return event_files(config.folder / TENSORBOARD, metrics, epoch_of)


def epoch_of(row: Mapping[str, Any]) -> Point | None:
    """An epoch of a network as a point of its curves; None for a row of another kind."""
    if "epoch" not in row:
        return None
    objective = row.get("objective", "cross-entropy")  # the rows of sequence training name theirs
    scalars = {f"{objective}/{shown}": row[name] for name, shown in LOSSES.items()}
    scalars |= {shown: row[name] for name, shown in NAMES.items()}
    scalars["frame error/held out"] = 1.0 - row["heldout_accuracy"]
    return Point(row["stage"], row["epoch"], row["time"], scalars)
