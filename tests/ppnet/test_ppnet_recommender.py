"""A recipe from corpus to table: PPNet wins where users differ, finds who does, and changes nothing where none do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from lhuc_asr.base.atomic import DamagedFileError, read_json
from lhuc_asr.base.config import dump_config, load_config, parse_config
from lhuc_asr.base.errors import ConfigError, ExamplesError, ExperimentError, ScoreError
from lhuc_asr.cli.main import app
from lhuc_asr.ppnet.comparison import Results
from lhuc_asr.ppnet.examples import Examples
from lhuc_asr.ppnet.inspection import inspect_gates, rank_correlation, read_known
from lhuc_asr.ppnet.prediction import write_predictions
from lhuc_asr.ppnet.ranker_folder import Ranker, load_ranker
from lhuc_asr.ppnet.recommender import RecommenderConfig, run_recommender

CPU = torch.device("cpu")


def recipe(spread: float = 0.9, **changed: Any) -> RecommenderConfig:
    numbers = [{"name": f"x{place}", "kind": "number", "embedding": 2} for place in range(1, 4)]
    tree: dict[str, Any] = {
        "name": "small",
        "data": {
            "kind": "synthetic", "users": 40, "examples": 300, "heldout": 150, "numbers": 3, "factors": 4,
            "strength": 2.0, "spread": spread,
        },
        "examples": {
            "features": [{"name": "user", "kind": "id", "group": "prior"}, *numbers],
            "labels": ["click"],
            "user": "user",
        },
        "models": {
            "dnn": {"kind": "dnn", "hidden_units": [16]},
            "ppnet": {"kind": "ppnet", "hidden_units": [16], "gate": {"hidden": None}},
        },
        "baseline": "dnn",
        "trainer": {
            "batch_size": 256, "learning_rate": 0.01, "epochs": 10, "patience": 3, "monitor": "log_loss",
            "embedding_optimizer": "adamw", "embedding_l2": 0.3,
        },
        "seeds": [1],
    }  # fmt: skip
    return parse_config(RecommenderConfig, tree | changed, "test")


def gain(results: Results) -> float:
    return results.difference("ppnet", "click", "auc").mean


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    folder = tmp_path_factory.mktemp("recipe") / "small"
    return folder, run_recommender(recipe(), folder, CPU)


@pytest.fixture(scope="module")
def ranker(finished: tuple[Path, Results]) -> Ranker:
    return load_ranker(finished[0] / "ppnet" / "1" / "ranker")


def test_ppnet_wins_where_users_differ(finished: tuple[Path, Results]) -> None:
    assert gain(finished[1]) >= 0.02


def test_ppnet_changes_little_where_all_are_alike(tmp_path: Path) -> None:
    """So few examples leave chance this much; the recipe's own are held to 0.002 below."""
    assert abs(gain(run_recommender(recipe(spread=0.0), tmp_path / "control", CPU))) <= 0.006


@pytest.mark.slow
def test_the_recipe_wins_where_users_differ_and_changes_nothing_where_all_are_alike(tmp_path: Path) -> None:
    path = Path(__file__).parents[2] / "recipes" / "ppnet_synthetic" / "config.yaml"
    whole = load_config(RecommenderConfig, path, ["seeds=[1, 2]"])
    models = {name: whole.models[name] for name in ("dnn", "logistic", "ppnet")}
    config = whole.model_copy(update={"models": models})
    control = config.model_copy(update={"data": config.data.model_copy(update={"spread": 0.0})})
    differ = run_recommender(config, tmp_path / "differ", CPU)
    assert gain(differ) >= 0.02
    assert differ.difference("ppnet", "click", "auc", "logistic").mean >= 0.02
    assert abs(gain(run_recommender(control, tmp_path / "alike", CPU))) <= 0.002


def test_the_gates_tell_which_users_differ(finished: tuple[Path, Results], ranker: Ranker) -> None:
    folder, _ = finished
    examples = Examples([folder / "data" / "test.parquet"], ranker.schema, ranker.vocabularies)
    report = inspect_gates(ranker, examples.batches(1000), "user", CPU)
    known = read_known(folder / "data" / "scales.json")
    assert rank_correlation(report, known)[0] > 0.7
    with pytest.raises(ScoreError, match="no order to recover"):
        rank_correlation(report, dict.fromkeys(known, 1.0))
    with pytest.raises(ScoreError, match="such as 'user"):
        rank_correlation(report, {})


@pytest.mark.parametrize("scales", [[], ["nan"], ["inf"], [1e308], [None], {}, "x"])
def test_scales_that_are_not_numbers_are_refused(scales: object, tmp_path: Path) -> None:
    """Their mean was NaN, and so was the correlation, without a word."""
    path = tmp_path / "scales.json"
    path.write_text(json.dumps({"user1": scales}))
    with pytest.raises(DamagedFileError, match=r"scales\.json: expected a list of scales for each group .*; give the"):
        read_known(path)


def test_a_groups_amplitudes_are_the_mean_of_its_examples(finished: tuple[Path, Results], ranker: Ranker) -> None:
    """Against all examples in one batch, a user at a time."""
    examples = Examples([finished[0] / "data" / "test.parquet"], ranker.schema, ranker.vocabularies)
    report = inspect_gates(ranker, examples.batches(77), "user", CPU)
    (whole,) = examples.batches(100_000)
    (name, amplitudes), = ranker.network.gates(whole).items()  # fmt: skip
    for place, user in enumerate(report.groups):
        own = whole.ids["user"] == ranker.vocabularies.categories["user"][user]
        assert report.examples[place] == int(own.sum())
        np.testing.assert_allclose(report.means[name][place], amplitudes[own].mean(0).detach().numpy(), rtol=1e-5)


def test_what_is_finished_is_not_done_again_and_what_changed_is(
    finished: tuple[Path, Results], caplog: pytest.LogCaptureFixture
) -> None:
    folder, results = finished
    files = [folder / name / "1" / "result.json" for name in ("dnn", "ppnet")]
    before = [file.stat().st_mtime_ns for file in files]
    again = run_recommender(recipe(), folder, CPU)
    assert [file.stat().st_mtime_ns for file in files] == before
    assert again.runs == results.runs
    assert again.comparisons() == results.comparisons()
    stage = folder / "stages" / "dnn, seed 1.json"
    stage.write_text(json.dumps(json.loads(stage.read_text()) | {"key": "of other options"}))
    assert run_recommender(recipe(), folder, CPU).runs["dnn"][1]["test"] == results.runs["dnn"][1]["test"]
    assert files[0].stat().st_mtime_ns > before[0]
    assert files[1].stat().st_mtime_ns == before[1]


def test_a_result_that_was_damaged_is_made_again(finished: tuple[Path, Results], tmp_path: Path) -> None:
    folder, results = Path(shutil.copytree(finished[0], tmp_path / "copy")), finished[1]
    (folder / "dnn" / "1" / "result.json").write_text("{")
    assert run_recommender(recipe(), folder, CPU).runs["dnn"][1]["test"] == results.runs["dnn"][1]["test"]


def test_ratings_that_change_are_noticed(tmp_path: Path) -> None:
    ratings = [f"{user},{time % 3},{5 if time % 2 else 1},{time}" for user in range(4) for time in range(10)]
    for name, lines in {
        "movies.csv": ["movieId,title,genres", *(f"{film},Film (1994),Drama" for film in range(3))],
        "ratings.csv": ["userId,movieId,rating,timestamp", *ratings],
    }.items():
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    features = [{"name": "user", "kind": "id", "group": "prior"}, {"name": "movie", "kind": "id"}]
    films = recipe(
        data={"kind": "movielens", "dir": str(tmp_path), "valid": 0.2, "test": 0.2},
        examples={"features": features, "labels": ["click"], "user": "user"},
        models={"dnn": {"kind": "dnn", "hidden_units": [4]}},
        trainer={"batch_size": 8, "epochs": 1},
    )
    before = run_recommender(films, tmp_path / "exp", CPU)
    assert run_recommender(films, tmp_path / "exp", CPU).runs == before.runs
    with (tmp_path / "ratings.csv").open("a") as file:
        file.write("9,1,5,9\n9,2,1,10\n")
    run_recommender(films, tmp_path / "exp", CPU)
    train = pq.read_table(tmp_path / "exp" / "data" / "train.parquet")
    assert 9 in train["user"].to_pylist()


def test_a_killed_run_goes_on_and_ends_with_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = {"batch_size": 1024, "epochs": 4, "embedding_optimizer": "adamw"}
    small = recipe(trainer=trainer, models={"dnn": {"kind": "dnn", "hidden_units": [4]}})
    whole = run_recommender(small, tmp_path / "whole", CPU)

    def killed(self: Examples, size: int, seed: Any = None, block: int = 0) -> Any:
        if seed == (1, 2):
            raise KeyboardInterrupt
        return original(self, size, seed)

    original = Examples.batches
    monkeypatch.setattr(Examples, "batches", killed)
    with pytest.raises(KeyboardInterrupt):
        run_recommender(small, tmp_path / "killed", CPU)
    monkeypatch.setattr(Examples, "batches", original)
    assert (tmp_path / "killed" / "dnn" / "1.training" / "state.safetensors").exists()
    assert not (tmp_path / "killed" / "dnn" / "1").exists()
    goes_on = run_recommender(small, tmp_path / "killed", CPU)
    assert goes_on.runs["dnn"][1]["test"] == whole.runs["dnn"][1]["test"]
    assert sorted(path.name for path in (tmp_path / "killed" / "dnn").iterdir()) == ["1"]
    epochs = [json.loads(line)["epoch"] for line in (tmp_path / "killed/dnn/1/metrics.jsonl").read_text().splitlines()]
    assert epochs == list(range(1, len(epochs) + 1))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"baseline": "dnnn"}, "baseline: 'dnnn' is not one of the models: dnn, ppnet"),
        ({"seeds": [1, 1]}, "would count twice"),
        ({"data": {"kind": "movie"}}, "data"),
        ({"name": "../../elsewhere"}, "name"),
        ({"name": ".."}, "name"),
        ({"seeds": [-1]}, "seeds"),
        ({"seeds": [2**64]}, "seeds"),
        ({"data": {"kind": "synthetic", "seed": -1}}, "data.seed"),
        ({"data": {"kind": "files", "train": [], "valid": ["a.csv"], "test": ["a.csv"]}}, "data.train"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe(**changed)


def test_files_of_ones_own_are_checked_before_training(finished: tuple[Path, Results], tmp_path: Path) -> None:
    data = finished[0] / "data"
    bad = tmp_path / "bad.csv"
    bad.write_text("user,x1,x2,click\n1,2,3,0\n")
    files = {"kind": "files", "train": [data / "train.parquet"], "valid": [data / "valid.parquet"], "test": [bad]}
    with pytest.raises(ExamplesError, match=r"bad\.csv: column 'x3' is missing"):
        run_recommender(recipe(data=files), tmp_path / "out", CPU)
    files["test"] = [tmp_path / "gone.csv"]
    with pytest.raises(ExamplesError, match=r"gone\.csv"):
        run_recommender(recipe(data=files), tmp_path / "out", CPU)


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["ppnet", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_command_line_measures_what_the_recipe_did(finished: tuple[Path, Results]) -> None:
    folder, results = finished
    said = invoke("evaluate", folder / "ppnet/1/ranker", folder / "data/test.parquet")
    auc = results.values("ppnet", "click", "auc")[0]
    assert said.startswith(f"click: AUC {auc:.4f}, GAUC ")
    assert said.endswith("; 6000 examples\n")


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_predictions_are_written_in_the_examples_order(
    ending: str, finished: tuple[Path, Results], ranker: Ranker, tmp_path: Path
) -> None:
    """Two files without labels, one of them a CSV file with an unseen user."""
    folder, _ = finished
    table = pq.read_table(folder / "data" / "test.parquet", columns=["user", "x1", "x2", "x3"])
    pq.write_table(table.slice(0, 9000 // 2), tmp_path / "a.parquet")
    pacsv.write_csv(table.slice(9000 // 2, 10), tmp_path / "b.csv")
    (tmp_path / "c.csv").write_text("user,x1,x2,x3\nstranger,0.5,0.5,0.5\n")
    files = [tmp_path / name for name in ("a.parquet", "b.csv", "c.csv")]
    out = tmp_path / f"out{ending}"
    said = invoke("predict", folder / "ppnet/1/ranker", *files, "-o", out)
    assert said == f"{out}: 4511 examples\n"
    predictions = (pacsv.read_csv if ending == ".csv" else pq.read_table)(out)
    (whole,) = Examples(files, ranker.schema, ranker.vocabularies, labelled=False).batches(5000)
    with torch.no_grad():
        wanted = torch.sigmoid(ranker.network(whole))[:, 0]
    np.testing.assert_allclose(predictions["click"].to_numpy(), wanted.numpy(), atol=1e-6)


def test_predictions_never_take_the_place_of_their_examples(finished: tuple[Path, Results], tmp_path: Path) -> None:
    folder, _ = finished
    examples = tmp_path / "a.parquet"
    shutil.copy(folder / "data" / "test.parquet", examples)
    before = examples.read_bytes()
    (tmp_path / "link.parquet").symlink_to(examples)
    for out in (examples, tmp_path / "link.parquet"):
        with pytest.raises(ExamplesError, match=r"parquet: is one of the files of examples"):
            write_predictions(load_ranker(folder / "ppnet" / "1" / "ranker"), [examples], out, CPU)
    assert examples.read_bytes() == before


@pytest.mark.parametrize("name", ["mine.csv", "mine.parquet"])
def test_predictions_replace_predictions_and_nothing_else(
    name: str, finished: tuple[Path, Results], tmp_path: Path
) -> None:
    folder, _ = finished
    ranker, out = folder / "ppnet" / "1" / "ranker", tmp_path / name
    examples = tmp_path / "a.csv"
    examples.write_text("user,x1,x2,x3\nuser1,1,1,1\n")
    for content in (b"click,precious\n1,2\n", b"\xff\n", (folder / "data" / "train.parquet").read_bytes()):
        out.write_bytes(content)
        with pytest.raises(ExamplesError, match="exists and is not a table of such predictions; choose another name"):
            write_predictions(load_ranker(ranker), [examples], out, CPU)
        assert out.read_bytes() == content
    out.unlink()
    for _ in range(2):
        assert write_predictions(load_ranker(ranker), [examples], out, CPU) == 1
    inside = CliRunner().invoke(app, ["ppnet", "predict", str(ranker), str(examples), "-o", str(ranker / name)])
    assert "is inside the model" in str(inside.exception)
    assert not (ranker / name).exists()


def test_predictions_are_not_written_among_their_examples(finished: tuple[Path, Results], tmp_path: Path) -> None:
    """The next time they would be read as examples."""
    trained = load_ranker(finished[0] / "ppnet" / "1" / "ranker")
    (tmp_path / "days").mkdir()
    shutil.copy(finished[0] / "data" / "test.parquet", tmp_path / "days" / "1.parquet")
    with pytest.raises(ExamplesError, match=r"out\.csv: is in a folder of examples, and would be read as one"):
        write_predictions(trained, [tmp_path / "days"], tmp_path / "days" / "out.csv", CPU)
    assert write_predictions(trained, [tmp_path / "days"], tmp_path / "out.csv", CPU) == 6000


def test_a_prediction_that_is_not_a_number_is_refused(finished: tuple[Path, Results], tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user,x1,x2,x3\nuser1,1,1,1\nuser1,1e38,-1e38,1e38\n")
    broken = load_ranker(finished[0] / "ppnet" / "1" / "ranker")
    with torch.no_grad():
        broken.network.get_parameter("tower.layers.0.weight").mul_(1e30)
    with pytest.raises(ScoreError, match="example 2: the probability is not a number"):
        write_predictions(broken, [tmp_path / "a.csv"], tmp_path / "out.csv", CPU)
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("place", ["data", "dnn/1"])
def test_files_that_a_run_did_not_make_are_left_alone(place: str, tmp_path: Path) -> None:
    """As with exp=. in a folder that has a folder of data already."""
    mine = tmp_path / place / "ratings.csv"
    mine.parent.mkdir(parents=True)
    mine.write_text("of years")
    small = recipe(trainer={"epochs": 1}, models={"dnn": {"kind": "dnn", "hidden_units": [4]}})
    with pytest.raises(ExperimentError, match="holds files that no run made; choose another folder with exp=DIR"):
        run_recommender(small, tmp_path, CPU)
    assert mine.read_text() == "of years"


def test_a_recipe_is_not_overwritten_by_its_own_run(tmp_path: Path) -> None:
    config = recipe(models={"dnn": {"kind": "dnn", "hidden_units": [4]}}, trainer={"epochs": 1})
    path = tmp_path / "config.yaml"
    path.write_text(f"# chosen with care\n{dump_config(config)}")
    result = CliRunner().invoke(app, ["ppnet", "train", str(tmp_path), f"exp={tmp_path}"])
    assert isinstance(result.exception, ExperimentError)
    assert "choose another folder with exp=DIR" in str(result.exception)
    assert path.read_text().startswith("# chosen with care")


def test_inspect_draws_the_gates_and_says_who_differs(finished: tuple[Path, Results], tmp_path: Path) -> None:
    folder, _ = finished
    said = invoke(
        "inspect", folder / "ppnet/1/ranker", folder / "data/test.parquet", "-o", tmp_path, "--most", 10,
        "--known", folder / "data/scales.json",
    )  # fmt: skip
    assert "rank correlation of the deviations" in said
    assert said.endswith("gates.png: 40 groups\n")
    assert (tmp_path / "gates.png").read_bytes().startswith(b"\x89PNG")
    groups = read_json(tmp_path / "gates.json")["groups"]
    assert [group["deviation"] for group in groups] == sorted((group["deviation"] for group in groups), reverse=True)
    assert said.startswith(groups[0]["name"])


def test_a_network_without_gates_has_nothing_to_inspect(finished: tuple[Path, Results]) -> None:
    plain = load_ranker(finished[0] / "dnn" / "1" / "ranker")
    examples = Examples([finished[0] / "data" / "test.parquet"], plain.schema, plain.vocabularies)
    with pytest.raises(ScoreError, match="'dnn' has no gates"):
        inspect_gates(plain, examples.batches(1000), "user", CPU)
    with pytest.raises(ScoreError, match="'x1' is not a feature of kind id or category, expected one of user"):
        inspect_gates(plain, examples.batches(1000), "x1", CPU)


def test_train_shows_the_table_and_keeps_it(tmp_path: Path) -> None:
    config = recipe(models={"dnn": {"kind": "dnn", "hidden_units": [4]}})
    (tmp_path / "config.yaml").write_text(dump_config(config))
    exp = tmp_path / "exp"
    said = invoke("train", tmp_path, f"exp={exp}", "trainer.epochs=1", "data.examples=50")
    table = (exp / "results.txt").read_text()
    assert table in said
    assert "small: click, test, seeds 1" in table
    assert read_json(exp / "run.json")["seed"] == [1]


@pytest.mark.parametrize("device", ["gpu", "meta", "mps", "cuda:99", "cuda:x"])
def test_a_device_that_is_not_there_is_refused(device: str, finished: tuple[Path, Results]) -> None:
    folder, _ = finished
    files = [str(folder / "ppnet/1/ranker"), str(folder / "data/test.parquet")]
    result = CliRunner().invoke(app, ["ppnet", "evaluate", *files, "--device", device])
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception).startswith(f"--device {device}: ")


def test_a_network_that_the_schema_does_not_fit_is_refused_before_another_is_trained(tmp_path: Path) -> None:
    config = recipe(models={"dnn": {"kind": "dnn"}, "domains": {"kind": "pepnet"}})
    with pytest.raises(ConfigError, match="needs features of group 'domain'"):
        run_recommender(config, tmp_path / "out", CPU)
    assert not (tmp_path / "out" / "dnn").exists()
