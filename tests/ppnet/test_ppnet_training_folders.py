"""What is finished stays whole until its successor stands: networks trained again, killed, or failed."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pytest
import torch
from typer.testing import CliRunner

from lhuc_asr.base.config import dump_config, parse_config, read_tree
from lhuc_asr.base.errors import ConfigError, ExamplesError, ExperimentError
from lhuc_asr.base.locks import locked
from lhuc_asr.cli.main import app
from lhuc_asr.ppnet import model_stage
from lhuc_asr.ppnet.examples import Examples
from lhuc_asr.ppnet.recommender import RecommenderConfig, run_recommender

# The command line sends the package's log to standard error.
pytestmark = pytest.mark.usefixtures("package_log")

CPU = torch.device("cpu")


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    for seed, split in enumerate(("train", "valid", "test")):
        generator = torch.Generator().manual_seed(seed)
        users, items, clicks = (torch.randint(most, (40,), generator=generator).tolist() for most in (5, 7, 2))
        pacsv.write_csv(pa.table({"user": users, "item": items, "click": clicks}), tmp_path / f"{split}.csv")
    return tmp_path


def recipe(tables: Path, **changed: Any) -> RecommenderConfig:
    tree: dict[str, Any] = {
        "name": "small",
        "exp": str(tables / "exp"),
        "data": {"kind": "files"} | {name: [str(tables / f"{name}.csv")] for name in ("train", "valid", "test")},
        "examples": {
            "features": [{"name": "user", "kind": "id", "group": "prior"}, {"name": "item", "kind": "id"}],
            "labels": ["click"],
            "user": "user",
        },
        "models": {"net": {"kind": "concat", "hidden_units": [4]}},
        "baseline": "net",
        "trainer": {"batch_size": 16, "epochs": 2, "monitor": "log_loss"},
        "seeds": [1],
    }
    return parse_config(RecommenderConfig, tree | changed, "test")


def run(tables: Path, **changed: Any) -> None:
    run_recommender(recipe(tables, **changed), tables / "exp", CPU)


def ranker(tables: Path) -> dict[str, str]:
    folder = tables / "exp" / "net" / "1" / "ranker"
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def edit(path: Path, old: str, new: str) -> None:
    """Change a file and keep its size and time."""
    status = path.stat()
    content = path.read_text()
    assert old in content
    assert len(old) == len(new)
    path.write_text(content.replace(old, new, 1))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def begun(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stages that are trained from now on."""
    trained: list[str] = []
    original = model_stage._train

    def spy(*args: Any) -> Any:
        trained.append("net")
        return original(*args)

    monkeypatch.setattr(model_stage, "_train", spy)
    return trained


def test_a_touched_table_is_the_same_and_a_changed_byte_is_not(tables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tables)
    before, trained = ranker(tables), begun(monkeypatch)
    for name in ("train", "valid", "test"):
        os.utime(tables / f"{name}.csv")
    run(tables)
    assert trained == []
    (tables / "train.csv").rename(tables / "moved.csv")
    data = recipe(tables).data.model_copy(update={"train": (tables / "moved.csv",)})  # type: ignore[union-attr]
    run_recommender(recipe(tables).model_copy(update={"data": data}), tables / "exp", CPU)
    assert trained == []
    (tables / "moved.csv").rename(tables / "train.csv")
    edit(tables / "train.csv", "4,", "3,")
    run(tables)
    assert trained == ["net"]
    assert ranker(tables) != before


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_a_bad_row_leaves_the_finished_ranker_whole(split: str, tables: Path) -> None:
    run(tables)
    before = ranker(tables)
    with (tables / f"{split}.csv").open("a") as file:
        file.write("1,2,7\n")
    with pytest.raises(ExamplesError, match=f"{split}.csv: row 41, column 'click': a label is 0 or 1, found 7.0"):
        run(tables)
    assert ranker(tables) == before


@pytest.mark.parametrize("fault", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_training_that_ends_early_leaves_the_finished_ranker_whole(
    fault: BaseException, tables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tables)
    before, original = ranker(tables), Examples.batches
    edit(tables / "train.csv", "4,", "3,")

    def failing(self: Examples, size: int, seed: Any = None, block: int = 0) -> Any:
        if seed == (1, 1):
            raise fault
        return original(self, size, seed)

    monkeypatch.setattr(Examples, "batches", failing)
    with pytest.raises(fault if isinstance(fault, type) else type(fault)):
        run(tables)
    assert ranker(tables) == before
    assert sorted(path.name for path in (tables / "exp" / "net").iterdir()) == ["1", "1.training"]
    monkeypatch.undo()
    run(tables)
    resumed = ranker(tables)
    assert resumed != before
    assert sorted(path.name for path in (tables / "exp" / "net").iterdir()) == ["1"]
    run_recommender(recipe(tables), tables / "other", CPU)
    whole = tables / "other" / "net" / "1" / "ranker"
    assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in whole.iterdir()} == resumed


@pytest.mark.parametrize("writer", ["save_ranker", "write_json"])
def test_a_successor_that_cannot_be_written_leaves_the_finished_ranker_whole(
    writer: str, tables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tables)
    before = ranker(tables)

    def full(path: Path, *args: Any, **options: Any) -> None:
        if "result" in path.name or writer == "save_ranker":
            raise OSError(28, "No space left on device")
        original(path, *args, **options)

    original = model_stage.write_json
    edit(tables / "train.csv", "4,", "3,")
    monkeypatch.setattr(f"lhuc_asr.ppnet.model_stage.{writer}", full)
    with pytest.raises(OSError, match="No space left"):
        run(tables)
    assert ranker(tables) == before
    monkeypatch.undo()
    run(tables)
    assert ranker(tables) != before


def test_what_a_killed_run_wrote_half_does_not_stay(tables: Path) -> None:
    run(tables)
    training = tables / "exp" / "net" / "1.training"
    training.mkdir()
    for name in ("begun.json", ".state.safetensors.17.partial", "state.safetensors"):
        (training / name).write_text('"of other options"')
    edit(tables / "train.csv", "4,", "3,")
    run(tables)
    assert sorted(path.name for path in (tables / "exp" / "net").iterdir()) == ["1"]


def test_a_table_that_changes_while_it_is_read_is_told(tables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Examples.batches

    def changing(self: Examples, size: int, seed: Any = None, block: int = 0) -> Any:
        if seed == (1, 1):
            with (tables / "train.csv").open("a") as file:
                file.write("1,2,1\n")
        return original(self, size, seed)

    monkeypatch.setattr(Examples, "batches", changing)
    with pytest.raises(ExamplesError, match=r"train\.csv: changed while it was in use; give the same command again"):
        run(tables)
    assert not (tables / "exp" / "net" / "1").exists()


def test_a_split_may_be_a_folder_or_a_pattern(tables: Path) -> None:
    (tables / "parts").mkdir()
    (tables / "train.csv").rename(tables / "parts" / "0.csv")
    data = {"kind": "files", "train": [str(tables / "parts")], "valid": [str(tables / "val*.csv")]}
    run(tables, data=data | {"test": [str(tables / "test.csv")]})
    assert (tables / "exp" / "unseen.json").exists()


def test_users_of_no_training_example_are_warned_about_before_training(
    tables: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = (tables / "valid.csv").read_text().splitlines()
    changed = [lines[0], *(line.replace(",", ".0,", 1) for line in lines[1:])]
    (tables / "valid.csv").write_text("\n".join(changed) + "\n")
    caplog.set_level(logging.INFO)
    run(tables)
    messages = [record.message for record in caplog.records]
    (warning,) = (record.message for record in caplog.records if record.levelname == "WARNING")
    assert warning.startswith("valid: feature 'user': 40 of 40 categories of column 'user' are not in the vocabulary")
    training = next(place for place, message in enumerate(messages) if message.startswith("net, seed 1"))
    assert messages.index(warning) < training
    caplog.clear()
    run(tables)  # every stage is done, and the warning still stands
    assert warning in [record.message for record in caplog.records]


def test_two_trainings_of_one_folder_at_once_are_refused(tables: Path) -> None:
    (tables / "config.yaml").write_text(dump_config(recipe(tables)))
    with locked(tables / "exp"):
        result = CliRunner().invoke(app, ["ppnet", "train", str(tables / "config.yaml")])
    assert isinstance(result.exception, ExperimentError)
    assert "another run is using this folder" in str(result.exception)
    assert not (tables / "exp" / "net").exists()


@pytest.mark.parametrize(
    ("name", "removed", "message"),
    [
        ("another", (), "holds the experiment 'another', and the recipe is 'small'"),
        ("small", ("data", "models"), "holds an experiment of another kind"),
    ],
)
def test_another_experiments_folder_is_refused_and_left_as_it_is(
    name: str, removed: tuple[str, ...], message: str, tables: Path
) -> None:
    """That of another ranker, whose networks would be replaced, or of a speech recognizer."""
    config = tables / "config.yaml"
    config.write_text(dump_config(recipe(tables, trainer={"epochs": 1}, name=name)))
    assert not CliRunner().invoke(app, ["ppnet", "train", str(config)]).exception
    written = tables / "exp" / "config.yaml"
    tree = {key: value for key, value in read_tree(written).items() if key not in removed}
    written.write_text(json.dumps(tree))
    before = ranker(tables), written.read_bytes()
    config.write_text(dump_config(recipe(tables)))
    result = CliRunner().invoke(app, ["ppnet", "train", str(config)])
    assert isinstance(result.exception, ExperimentError)
    assert message in str(result.exception)
    assert (ranker(tables), written.read_bytes()) == before


def test_files_that_no_run_made_are_not_lost_with_a_ranker(tables: Path) -> None:
    run(tables)
    before = ranker(tables)
    own = tables / "exp" / "net" / "1" / "predictions.csv"
    own.write_text("click\n")
    with pytest.raises(ExperimentError, match=r"1/predictions\.csv: no run made this file, and it would be lost; move"):
        run(tables, trainer={"epochs": 1})
    assert ranker(tables) == before
    own.unlink()
    run(tables, trainer={"epochs": 1})
    assert ranker(tables) != before


@pytest.mark.parametrize("name", ["data", "stages"])
def test_a_network_cannot_have_the_name_of_a_folder_of_the_experiment(name: str, tables: Path) -> None:
    with pytest.raises(ConfigError, match=f"models: '{name}' is the name of a folder of the experiment"):
        recipe(tables, models={name: {"kind": "dnn"}}, baseline=name)


def test_labels_that_are_all_equal_are_refused_before_anything_is_trained(tables: Path) -> None:
    train = pacsv.read_csv(tables / "train.csv")
    pacsv.write_csv(train.set_column(2, "click", pa.array([0] * len(train))), tables / "train.csv")
    with pytest.raises(ExamplesError, match=r"label 'click': it is 0 in every example of training.*right column"):
        run(tables)
    assert not (tables / "exp" / "net").exists()


def test_a_file_of_training_in_another_split_is_a_warning(tables: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(tables)
    assert "is trained on these files too" not in caplog.text
    (tables / "test.csv").write_bytes((tables / "train.csv").read_bytes())
    run(tables)
    assert (
        f"test: the network is trained on these files too, and its figures would be too good: '{tables}" in caplog.text
    )
