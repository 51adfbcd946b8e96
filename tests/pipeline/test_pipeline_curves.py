"""``run --tensorboard``: the curves of every network are the epochs of metrics.jsonl."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lhuc_asr.base.atomic import read_json_lines
from lhuc_asr.base.config import load_config
from lhuc_asr.base.experiment_folder import ExperimentFolder
from lhuc_asr.pipeline import curves
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.curves import training_curves
from lhuc_asr.pipeline.run import run_recipe


@pytest.fixture
def config(tiny_recipe: Path, copied: Path) -> ExperimentConfig:
    return load_config(ExperimentConfig, tiny_recipe / "config.yaml", [f"exp={copied}"])


def scalars(folder: Path) -> dict[str, list[float]]:
    events = EventAccumulator(str(folder)).Reload()
    return {name: [each.value for each in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_the_curves_are_the_epochs_of_the_networks(config: ExperimentConfig, monkeypatch) -> None:
    monkeypatch.setattr("lhuc_asr.score.figures.save_figure", lambda figure, path, formats: None)
    folder = config.folder / "tensorboard"
    run_recipe(config)
    assert not folder.exists()
    run_recipe(config, tensorboard=True)
    rows = [
        row for row in read_json_lines(config.folder / "metrics.jsonl") if row["stage"] == "am/si" and "epoch" in row
    ]
    assert len(rows) == 2
    assert scalars(folder / "am" / "si") == {
        "cross-entropy/training": pytest.approx([row["train_loss"] for row in rows]),
        "cross-entropy/held out": pytest.approx([row["heldout_loss"] for row in rows]),
        "frame error/held out": pytest.approx([1 - row["heldout_accuracy"] for row in rows]),
        "learning rate": pytest.approx([row["learning_rate"] for row in rows]),
        "seconds of an epoch": pytest.approx([row["seconds"] for row in rows]),
    }


def test_each_seed_and_fold_has_curves_under_its_name(config: ExperimentConfig, monkeypatch) -> None:
    seen = {}
    monkeypatch.setattr(curves, "event_files", lambda folder, metrics, point: seen.update(metrics))
    training_curves(config)
    assert seen == {"": [ExperimentFolder(config.folder).metrics.path]}
    seen.clear()
    # The synthetic corpus takes no folds; a corpus of one's own does.
    training_curves(config.model_copy(update={"seeds": (4, 5), "folds": 2}))
    assert list(seen) == ["seed4/fold1", "seed4/fold2", "seed5/fold1", "seed5/fold2"]
    assert seen["seed5/fold1"] == [config.folder / "seed5" / "fold1" / "metrics.jsonl"]
