"""``ppnet train --tensorboard``: the curves of every network are its epochs, also while it is being trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

from lhuc_asr.base.atomic import read_json_lines
from lhuc_asr.base.config import dump_config, parse_config
from lhuc_asr.base.errors import ConfigError
from lhuc_asr.cli.main import app
from lhuc_asr.ppnet.curves import training_curves
from lhuc_asr.ppnet.examples import Examples
from lhuc_asr.ppnet.recommender import RecommenderConfig, run_recommender

pytestmark = pytest.mark.usefixtures("package_log")  # the command line sends the package's log to standard error


@pytest.fixture
def config(tmp_path: Path) -> RecommenderConfig:
    """A network with two seeds, and a linear model, on random examples."""
    for seed, split in enumerate(("train", "valid", "test")):
        generator = torch.Generator().manual_seed(seed)
        users, items, clicks = (torch.randint(most, (40,), generator=generator).tolist() for most in (5, 7, 2))
        pacsv.write_csv(pa.table({"user": users, "item": items, "click": clicks}), tmp_path / f"{split}.csv")
    tree: dict[str, Any] = {
        "name": "small",
        "exp": str(tmp_path / "exp"),
        "data": {"kind": "files"} | {name: [str(tmp_path / f"{name}.csv")] for name in ("train", "valid", "test")},
        "examples": {
            "features": [{"name": "user", "kind": "id"}, {"name": "item", "kind": "id"}],
            "labels": ["click"],
            "user": "user",
        },
        "models": {"net": {"kind": "dnn", "hidden_units": [4]}, "odds": {"kind": "log_odds"}},
        "baseline": "net",
        "trainer": {"batch_size": 16, "epochs": 3, "patience": 3, "monitor": "log_loss"},
        "seeds": [1, 2],
    }
    return parse_config(RecommenderConfig, tree, "test")


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder)).Reload()
    return {name: [(each.step, each.value) for each in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_the_curves_are_the_epochs_of_each_seed(config: RecommenderConfig, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    ran = CliRunner().invoke(app, ["ppnet", "train", str(tmp_path), "--tensorboard"], catch_exceptions=False)
    assert ran.exit_code == 0
    folder = config.folder / "tensorboard"
    assert sorted(path.name for path in folder.iterdir()) == ["net"]
    for seed in config.seeds:
        rows = list(read_json_lines(config.folder / "net" / str(seed) / "metrics.jsonl"))
        assert len(rows) == 3
        shown = scalars(folder / "net" / f"seed {seed}")
        assert shown["loss of training, all labels"] == [
            (n, pytest.approx(rows[n - 1]["train_loss"])) for n in (1, 2, 3)
        ]
        figures = [row["validation"]["click"] for row in rows]
        for name, tag in {"auc": "AUC", "gauc": "GAUC", "log_loss": "log loss", "calibration": "calibration"}.items():
            assert shown[f"{tag}/click"] == [(n, pytest.approx(figures[n - 1][name])) for n in (1, 2, 3)]


def test_a_training_that_is_under_way_has_curves(config: RecommenderConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    real, epochs = Examples.batches, []

    def killed(self: Examples, *arguments: Any) -> Any:
        if len(arguments) == 2:  # of an epoch
            epochs.append(arguments)
        if len(epochs) == 3:
            raise KeyboardInterrupt
        return real(self, *arguments)

    config.folder.mkdir()

    def run() -> None:
        with training_curves(config, config.folder):
            run_recommender(config, config.folder, torch.device("cpu"))

    monkeypatch.setattr(Examples, "batches", killed)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert not (config.folder / "net" / "1").exists()
    first = scalars(config.folder / "tensorboard" / "net" / "seed 1")["AUC/click"]
    assert [step for step, _ in first] == [1, 2]


def test_a_model_may_not_be_called_as_the_folder_of_the_curves(config: RecommenderConfig) -> None:
    models = {"tensorboard": config.models["odds"]}
    tree = config.model_dump(mode="json") | {"models": models, "baseline": "tensorboard"}
    with pytest.raises(ConfigError, match=r"models: 'tensorboard' is the name of a folder of the experiment"):
        parse_config(RecommenderConfig, tree, "test")
