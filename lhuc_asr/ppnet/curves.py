"""The curves of ranking networks, for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from lhuc_asr.base.event_files import Point, event_files
from lhuc_asr.base.experiment_folder import TENSORBOARD
from lhuc_asr.ppnet.model import RankingConfig
from lhuc_asr.ppnet.model_stage import METRICS_FILE, training_folder
from lhuc_asr.ppnet.recommender import RecommenderConfig

# Names of the validation figures (``metrics.py``) in TensorBoard, where those of all labels stand together.
NAMES = {"auc": "AUC", "gauc": "GAUC", "log_loss": "log loss", "calibration": "calibration"}


def training_curves(config: RecommenderConfig, folder: Path) -> AbstractContextManager[None]:
    """Keep the curves of every network and seed up to date in ``tensorboard/`` while the block runs.

    Linear models are fitted and not trained: they have no curves.

    Args:
        config: The comparison.
        folder: Folder of the experiment.

    Raises:
        OutputError: The folder cannot be written.
    """
    networks = [name for name, model in config.models.items() if isinstance(model, RankingConfig)]
    places = [folder / name / str(seed) for name in networks for seed in config.seeds]
    # A network is trained beside the one that it replaces.
    metrics = {
        f"{place.parent.name}/seed {place.name}": [training_folder(place) / METRICS_FILE, place / METRICS_FILE]
        for place in places
    }
    return event_files(folder / TENSORBOARD, metrics, epoch_of)


def epoch_of(row: Mapping[str, Any]) -> Point | None:
    """An epoch of a network as a point of its curves; None for a row of another kind."""
    if row["stage"] != "epoch":
        return None
    scalars = {"loss of training, all labels": row["train_loss"], "seconds of an epoch": row["seconds"]}
    for label, figures in row["validation"].items():
        shown = {f"{shown}/{label}": figures[name] for name, shown in NAMES.items()}
        scalars |= {name: value for name, value in shown.items() if value is not None}
    return Point("", row["epoch"], row["time"], scalars)
