"""Linear models against scikit-learn's own one-hot columns and counts by hand, from the recipe to the folder."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from typer.testing import CliRunner

from lhuc_asr.base.config import parse_config
from lhuc_asr.base.errors import CheckpointError, ConfigError, ScoreError
from lhuc_asr.cli.main import app
from lhuc_asr.ppnet.batch import Batch
from lhuc_asr.ppnet.inspection import inspect_gates
from lhuc_asr.ppnet.linear import LinearModel, LogisticConfig, LogOddsConfig
from lhuc_asr.ppnet.linear_fit import chosen, design_matrix, fit
from lhuc_asr.ppnet.metrics import TaskMetrics
from lhuc_asr.ppnet.ranker_folder import load_ranker
from lhuc_asr.ppnet.recommender import RecommenderConfig, run_recommender
from lhuc_asr.ppnet.schema import Schema

CPU = torch.device("cpu")
# Names in the schema and the batches of conftest.py.
ROWS = {"item": 12, "genres": 6, "prior.user": 9, "prior.item": 12, "place": 4}
MakeBatch = Callable[..., Batch]
CROSSES = (("prior.user", "genres"), ("age", "item"), ("history", "age"), ("place", "prior.user"), ("age", "age"))


def as_dicts(batch: Batch, fields: Iterable[tuple[str, ...]]) -> list[dict[str, float]]:
    """The examples as columns by name, for scikit-learn's DictVectorizer."""
    examples = []
    for place in range(len(batch)):
        one = batch.take(torch.tensor([place]))
        row: dict[str, float] = {}
        for names in fields:
            columns = {"": 1.0}
            for name in names:
                columns = {
                    f"{before} {name}={category}": share * value
                    for before, share in columns.items()
                    for category, value in cells(one, name).items()
                }
            row |= columns
        examples.append(row)
    return examples


def cells(one: Batch, name: str) -> dict[str, float]:
    if name in one.ids:
        return {str(int(one.ids[name])): 1.0}
    if name in one.numbers:
        return {"": float(one.numbers[name])}
    values = one.bags[name].values.tolist()
    share = 1.0 if name == "genres" else 1 / max(len(values), 1)  # genres are summed, the history's are averaged
    return {str(value): share * values.count(value) for value in values}


def fitted(config: Any, schema: Schema, batch: Batch, valid: Batch, monitor: str = "log_loss") -> Any:
    def figure(metrics: Any) -> float:
        (one,) = metrics.values()
        assert isinstance(one, TaskMetrics)
        return -one.log_loss if monitor == "log_loss" else float(one.auc or 0.0)

    return fit(config, schema, ROWS, lambda: [batch.take(part) for part in torch.arange(len(batch)).split(100)],
               lambda: [valid], figure)  # fmt: skip


def test_logistic_regression_is_scikit_learns_on_its_own_columns(schema: Schema, make_batch: MakeBatch) -> None:
    train, valid = make_batch(0, 250), make_batch(1, 90)
    names = ("item", "history", "genres", "age", "prior.user", "place")
    model, _ = fitted(LogisticConfig(crosses=CROSSES, c=(0.7,)), schema, train, valid)
    assert [term.name for term in model.terms[: len(names)]] == list(names)  # the user's other field is left out
    fields = [(name,) for name in names] + list(CROSSES)
    vectorizer = DictVectorizer()
    columns = vectorizer.fit_transform(as_dicts(train, fields))
    for task in range(2):
        oracle = LogisticRegression(C=0.7, tol=1e-8, max_iter=5000).fit(columns, train.labels[:, task].numpy())
        expected = oracle.decision_function(vectorizer.transform(as_dicts(valid, fields)))
        np.testing.assert_allclose(model(valid)[:, task].detach().numpy(), expected, atol=2e-3)


def test_the_logits_are_those_of_the_matrix_that_is_fitted(schema: Schema, make_batch: MakeBatch) -> None:
    batch, generator = make_batch(3, 40), torch.Generator().manual_seed(1)
    model = LinearModel(LogisticConfig(crosses=CROSSES), schema, ROWS)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn(parameter.shape, generator=generator)
    matrix, labels = design_matrix(model, lambda: [batch.take(part) for part in torch.arange(40).split(13)])
    weights = np.concatenate([weights.detach().numpy() for weights in model.weights])
    expected = matrix @ weights + model.bias.detach().numpy()
    np.testing.assert_allclose(model(batch).detach().numpy(), expected, atol=1e-5)
    np.testing.assert_array_equal(labels, batch.labels.numpy())


def test_log_odds_are_smoothed_counts_added_up(schema: Schema, make_batch: MakeBatch) -> None:
    train, valid = make_batch(0, 250), make_batch(1, 30)
    valid.ids["item"][0] = 0  # unseen
    model, figures = fitted(LogOddsConfig(features=("prior.user", "item"), prior_counts=(3.0,)), schema, train, valid)
    assert chosen(figures) == {"click": 3.0, "like": 3.0}
    logits = model(valid).detach()
    for task in range(2):
        labels = train.labels[:, task]
        share = float(labels.mean())
        for place in range(len(valid)):
            expected = math.log(share / (1 - share))
            for name in ("prior.user", "item"):
                own = labels[train.ids[name] == valid.ids[name][place]]
                ones, zeros = float(own.sum()) + 3 * share, float((1 - own).sum()) + 3 * (1 - share)
                expected += math.log(ones / zeros) - math.log(share / (1 - share))
            assert float(logits[place, task]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    "config", [LogisticConfig(c=(0.001, 0.1, 50.0)), LogOddsConfig(prior_counts=(0.1, 5.0, 900.0))]
)
def test_each_task_has_the_strength_that_is_best_in_validation(
    config: Any, schema: Schema, make_batch: MakeBatch, caplog: pytest.LogCaptureFixture
) -> None:
    train, valid = make_batch(0, 250), make_batch(1, 200)
    # The second task follows the user, the first is noise: the best strengths are at opposite ends.
    for batch in (train, valid):
        batch.labels[:, 1] = (batch.ids["prior.user"] % 2).float()
    model, figures = fitted(config, schema, train, valid)
    strengths = config.c if isinstance(config, LogisticConfig) else config.prior_counts
    best = chosen(figures)
    assert len(figures) == 6
    for task, label in enumerate(schema.labels):
        alone = []
        for strength in strengths:
            key = "c" if isinstance(config, LogisticConfig) else "prior_counts"
            one, _ = fitted(config.model_copy(update={key: (strength,)}), schema, train, valid)
            loss = torch.nn.functional.binary_cross_entropy_with_logits
            alone.append((float(loss(one(valid)[:, task].detach(), valid.labels[:, task])), strength, one))
        _, strength, one = min(alone, key=lambda row: row[0])
        assert best[label] == strength
        np.testing.assert_allclose(model(valid)[:, task].detach(), one(valid)[:, task].detach(), atol=0.02)
    assert best["click"] != best["like"]
    assert "is the last candidate on its side; give more" in caplog.text


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (LogisticConfig(features=("itm",)), "'itm' is not a feature; expected one of item, history"),
        (LogisticConfig(crosses=(("item", "x"),)), "'x' is not a feature"),
        (LogisticConfig(crosses=(("history", "genres"),)), "history x genres crosses two lists of categories"),
        (LogOddsConfig(features=("age",)), "'age' is a number, without categories; leave it out"),
    ],
)
def test_a_model_that_the_schema_does_not_fit_is_refused(config: Any, message: str, schema: Schema) -> None:
    with pytest.raises(ConfigError, match=message):
        LinearModel(config, schema, ROWS)


def test_a_cross_that_is_too_large_to_fit_is_refused(schema: Schema) -> None:
    rows = ROWS | {"item": 200_000, "prior.user": 10_000}
    with pytest.raises(ConfigError, match=r"item x prior\.user has 2,000,000,000 weights, at most 100,000,000"):
        LinearModel(LogisticConfig(crosses=(("item", "prior.user"),)), schema, rows)


RECIPE: dict[str, Any] = {
    "name": "rivals",
    "data": {
        "kind": "synthetic", "users": 30, "examples": 100, "heldout": 60, "numbers": 2, "factors": 2, "spread": 0.9,
    },
    "examples": {
        "features": [
            {"name": "user", "kind": "id", "group": "prior"},
            {"name": "x1", "kind": "number", "embedding": 2},
            {"name": "x2", "kind": "number", "embedding": 2},
        ],
        "labels": ["click"],
        "user": "user",
    },
    "models": {
        "dnn": {"kind": "dnn", "hidden_units": [4]},
        "odds": {"kind": "log_odds"},
        "logistic": {"kind": "logistic", "crosses": [["user", "x1"], ["user", "x2"]]},
    },
    "baseline": "dnn",
    "rival": "logistic",
    "primary": {"model": "logistic", "task": "click"},
    "trainer": {"batch_size": 256, "epochs": 2},
    "seeds": [1, 2],
}  # fmt: skip


def recipe(**changed: Any) -> RecommenderConfig:
    return parse_config(RecommenderConfig, RECIPE | changed, "test")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe") / "rivals"
    run_recommender(recipe(), folder, CPU)
    return folder


def test_rivals_are_fitted_once_and_measured_with_the_networks(finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    assert {name: list(runs) for name, runs in results["models"].items()} == {
        "dnn": ["1", "2"], "odds": ["fitted"], "logistic": ["fitted"],
    }  # fmt: skip
    assert results["models"]["odds"]["fitted"]["strengths"].keys() == {"click"}
    # Users differ in how they respond to the numbers, not in how often they click.
    logistic, odds = (results["models"][name]["fitted"]["test"]["click"]["auc"] for name in ("logistic", "odds"))
    assert logistic > odds + 0.1
    primary = [row for row in results["comparisons"] if row["primary"]]
    assert [(row["model"], row["against"], row["figure"]) for row in primary] == [("logistic", "dnn", "gauc")]
    assert primary[0]["users"]["users"] == 30
    epochs = [json.loads(line) for line in (finished / "logistic/fitted/metrics.jsonl").read_text().splitlines()]
    assert {row["strength"] for row in epochs} == set(LogisticConfig().c)


def test_a_rival_is_not_fitted_again_for_other_seeds_but_for_another_candidate(finished: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "copy"))
    before = (folder / "logistic/fitted/result.json").stat().st_mtime_ns
    run_recommender(recipe(seeds=[1]), folder, CPU)
    assert (folder / "logistic/fitted/result.json").stat().st_mtime_ns == before
    models = RECIPE["models"] | {"logistic": {"kind": "logistic", "c": [0.5]}}
    run_recommender(recipe(seeds=[1], models=models), folder, CPU)
    assert json.loads((folder / "logistic/fitted/result.json").read_text())["strengths"] == {"click": 0.5}


def test_a_rival_is_evaluated_and_predicts_like_any_ranker(finished: Path, tmp_path: Path) -> None:
    result = json.loads((finished / "logistic/fitted/result.json").read_text())["test"]["click"]
    files = [str(finished / "logistic/fitted/ranker"), str(finished / "data/test.parquet")]
    said = CliRunner().invoke(app, ["ppnet", "evaluate", *files])
    assert said.stdout.startswith(f"click: AUC {result['auc']:.4f}, GAUC {result['gauc']:.4f}")
    out = tmp_path / "clicks.csv"
    assert CliRunner().invoke(app, ["ppnet", "predict", *files, "-o", str(out)]).exit_code == 0
    assert len(out.read_text().splitlines()) == 1 + 30 * 60


def test_a_rival_has_no_gates_to_inspect(finished: Path) -> None:
    with pytest.raises(ScoreError, match="a model of kind 'log_odds' has no gates to inspect"):
        inspect_gates(ranker := load_ranker(finished / "odds/fitted/ranker"), batches(ranker), "user", CPU)


def batches(ranker: Any) -> Iterable[Batch]:
    from lhuc_asr.ppnet.scoring import trial_batch

    return [trial_batch(ranker.schema, ranker.vocabularies.rows, 5)]


@pytest.mark.parametrize("name", ["network.safetensors", "vocabularies.json", "scoring.pt2"])
def test_a_rival_whose_files_are_damaged_is_refused(name: str, finished: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished / "logistic/fitted/ranker", tmp_path / "ranker"))
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{name}: not the file that was saved; copy the folder again"):
        load_ranker(folder)


def test_a_rival_of_another_description_is_refused(finished: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished / "logistic/fitted/ranker", tmp_path / "ranker"))
    tree = json.loads((folder / "ranker.json").read_text())
    (folder / "ranker.json").write_text(json.dumps(tree | {"network": {"kind": "logistic"}}))
    with pytest.raises(CheckpointError, match="the weights are not of this network and schema"):
        load_ranker(folder)
    (folder / "ranker.json").write_text(json.dumps(tree | {"network": {"kind": "logistic", "features": ["age"]}}))
    with pytest.raises(CheckpointError, match=r"ranker\.json: 'age' is not a feature.*; copy the folder again"):
        load_ranker(folder)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rival": "svm"}, "rival: 'svm' is not one of the models: dnn, odds, logistic"),
        ({"rival": "dnn"}, "rival: 'dnn' is the baseline"),
        ({"primary": {"model": "svm", "task": "click"}}, "primary.model: 'svm' is not one of the models"),
        ({"primary": {"model": "dnn", "task": "click"}}, "primary.model: 'dnn' is the baseline"),
        ({"primary": {"model": "odds", "task": "buy"}}, "primary.task: 'buy' is not one of the labels: click"),
        ({"models": {"dnn": {"kind": "log_odds", "c": [1]}}}, "unknown key 'models.dnn.c'; did you mean|known keys"),
        ({"models": {"dnn": {"kind": "logistic", "c": []}}}, "models.dnn.c: "),
        ({"models": {"dnn": {"kind": "logistic", "c": [0]}}}, "models.dnn.c.0: "),
        ({"models": {"by_user": {"kind": "dnn"}}, "baseline": "by_user"}, "'by_user' is the name of a folder"),
    ],
)  # fmt: skip
def test_a_recipe_that_cannot_be_is_refused(changed: dict[str, Any], message: str) -> None:
    plain = {"rival": None, "primary": None} if "models" in changed else {}
    with pytest.raises(ConfigError, match=message):
        recipe(**plain, **changed)


def test_an_experiment_of_an_earlier_version_gets_its_influences_without_training(
    finished: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "copy"))
    shutil.rmtree(folder / "by_user")
    for record in (folder / "stages").glob("*by user*"):
        record.unlink()
    before = (folder / "dnn/1/result.json").stat().st_mtime_ns
    results = run_recommender(recipe(), folder, CPU)
    assert (folder / "dnn/1/result.json").stat().st_mtime_ns == before
    again = [comparison.content() for comparison in results.comparisons()]
    assert json.loads(json.dumps(again)) == json.loads((finished / "results.json").read_text())["comparisons"]


def test_a_damaged_file_of_influences_is_made_again(finished: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "copy"))
    path = folder / "by_user/dnn/1.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    run_recommender(recipe(), folder, CPU)
    assert path.read_bytes() == whole


def test_a_model_without_a_kind_is_refused_in_words() -> None:
    with pytest.raises(ConfigError, match=r"models\.dnn: .*'kind'"):
        recipe(models={"dnn": {"hidden_units": [4]}}, rival=None, primary=None)
