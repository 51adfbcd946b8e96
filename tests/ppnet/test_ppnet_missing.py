"""Missing values: an error, or what the schema says; the same in CSV and Parquet, in training and in serving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError

from lhuc_asr.base.errors import ExamplesError
from lhuc_asr.ppnet.batch import NO_USER, Batch
from lhuc_asr.ppnet.examples import Examples
from lhuc_asr.ppnet.metrics import task_metrics
from lhuc_asr.ppnet.model import RankingConfig, build
from lhuc_asr.ppnet.prediction import write_predictions
from lhuc_asr.ppnet.ranker_folder import Ranker, load_ranker, save_ranker
from lhuc_asr.ppnet.reader import Reader
from lhuc_asr.ppnet.schema import MISSING_WORDS, FieldConfig, MissingConfig, Schema
from lhuc_asr.ppnet.vocabulary import Standard, Vocabularies

NAN = float("nan")


def schema(user: Any = None, age: Any = None, tags: Any = None, **options: Any) -> Schema:
    features = [
        {"name": "user", "kind": "id", "group": "prior", "missing": user, **options},
        {"name": "age", "kind": "number", "missing": age},
        {"name": "tags", "kind": "multi", "missing": tags},
    ]
    return Schema.model_validate({"features": features, "labels": ["click"], "user": "user"})


FILLED = schema("unseen", "mean", "empty")


def csv(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(["user,age,tags,click", *rows]) + "\n")
    return path


def parquet(path: Path, **changed: Any) -> Path:
    columns = {"user": ["1", "2", "3"], "age": [1.0, 2.0, 6.0], "tags": [["a"], [], ["b"]], "click": [1, 0, 1]}
    pq.write_table(pa.table(columns | changed), path)
    return path


def read(path: Path, schema: Schema) -> dict[str, list[Any]]:
    return pa.concat_tables(Reader([path], schema).blocks(100)).to_pydict()


def batch(path: Path, schema: Schema, vocabularies: Vocabularies) -> Batch:
    (whole,) = Examples([path], schema, vocabularies).batches(100)
    return whole


@pytest.mark.parametrize("cell", ["", " ", '""', *MISSING_WORDS, "NA "])
def test_every_way_to_say_missing_is_the_same_in_a_csv_file(cell: str, tmp_path: Path) -> None:
    path = csv(tmp_path / "a.csv", "1,1,a,1", f"{cell},2,a,0", f"3,{cell},b,1", f"3,4,{cell},1")
    columns = read(path, FILLED)
    assert columns["user"] == ["1", None, "3", "3"]
    assert columns["age"] == [1.0, 2.0, None, 4.0]
    assert columns["tags"] == [["a"], ["a"], ["b"], []]


@pytest.mark.parametrize(
    "cells",
    [
        pa.array([1, None, 3]),
        pa.array([1, None, 3], pa.uint8()),
        pa.array([1.0, None, 3.0]),
        pa.array([1.0, NAN, 3.0]),
        pa.array([1.0, NAN, 3.0], pa.float32()),
        pa.array(["1", None, "3"]),
        pa.array(["1", "", "3"], pa.large_string()),
        pa.array(["1", "NA", "3"]).dictionary_encode(),
        pa.array([1, None, 3]).dictionary_encode(),
        pa.array([b"1", None, b"3"]),
    ],
)
def test_every_way_to_say_missing_is_the_same_in_a_parquet_file(cells: pa.Array, tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", user=cells)
    assert read(path, FILLED)["user"] == ["1", None, "3"]


@pytest.mark.parametrize("cells", [pa.array([1, None, 3]), pa.array([1.0, NAN, 3.0]), pa.array(["1", " ", "3"])])
def test_without_a_meaning_a_missing_cell_is_named(cells: pa.Array, tmp_path: Path) -> None:
    with pytest.raises(ExamplesError, match=r"a\.parquet: row 2, column 'user': the cell is empty; .*missing: unseen"):
        read(parquet(tmp_path / "a.parquet", user=cells), schema())


def test_a_column_of_nothing_but_nulls_is_missing(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", user=pa.nulls(3), tags=pa.nulls(3))
    columns = read(path, FILLED)
    assert (columns["user"], columns["tags"]) == ([None] * 3, [[]] * 3)
    with pytest.raises(ExamplesError, match="row 1, column 'tags': the cell is empty"):
        read(path, schema("unseen"))
    with pytest.raises(
        ExamplesError, match="feature 'age': every number of training is missing; leave the feature out"
    ):
        Vocabularies.fit(Reader([parquet(path, age=pa.nulls(3))], FILLED).blocks(10), FILLED)


def test_a_missing_category_is_row_0_and_no_category_of_the_vocabulary(tmp_path: Path) -> None:
    path = csv(tmp_path / "a.csv", "NA,1,a,1", "NA,2,a,0", "3,3,b,1")
    for options in ({}, {"buckets": 7}):
        whole = schema("unseen", "mean", "empty", **options)
        vocabularies = Vocabularies.fit(Reader([path], whole).blocks(10), whole)
        rows = batch(path, whole, vocabularies).ids["user"].tolist()
        assert rows[:2] == [0, 0]
        assert rows[2] > 0
    vocabularies = Vocabularies.fit(Reader([path], FILLED).blocks(10), FILLED)
    assert vocabularies.categories["user"] == {"3": 1}


def test_a_missing_number_is_the_mean_or_zero(tmp_path: Path) -> None:
    """The mean of 1, 2 and 6 is 3, their deviation the root of 14/3; with a zero the mean is 9/4."""
    path = csv(tmp_path / "a.csv", "1,1,a,1", "1,2,a,0", "3,6,b,1", "3,,b,1")
    mean, zero = FILLED, schema("unseen", "zero", "empty")
    fitted = Vocabularies.fit(Reader([path], mean).blocks(2), mean)
    assert fitted.numbers["age"] == Standard(3.0, pytest.approx((14 / 3) ** 0.5))
    assert batch(path, mean, fitted).numbers["age"][3] == 0.0
    assert read(path, zero)["age"] == [1.0, 2.0, 6.0, 0.0]
    zeros = Vocabularies.fit(Reader([path], zero).blocks(2), zero).numbers["age"]
    assert zeros.mean == pytest.approx(9 / 4)
    assert batch(path, zero, fitted).numbers["age"][3] == pytest.approx(-3 / (14 / 3) ** 0.5)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_words_of_ones_own_mean_missing_and_the_usual_ones_no_longer(ending: str, tmp_path: Path) -> None:
    own = schema(
        {"value": "unseen", "words": ["(none)", -1]},
        {"value": "zero", "words": [-999]},
        {"value": "empty", "words": ["no tags"]},
    )
    if ending == "csv":
        path = csv(tmp_path / "a.csv", "(none),-999,no tags,1", "-1,-999.0,no tags|a,0", "NA,5,NA,1")
    else:
        path = parquet(
            tmp_path / "a.parquet",
            user=["(none)", "-1", "NA"],
            age=pa.array([-999, -999, 5]),
            tags=[["no tags"], ["no tags", "a"], ["NA"]],
        )
    columns = read(path, own)
    assert columns["user"] == [None, None, "NA"]
    assert columns["age"] == [0.0, 0.0, 5.0]
    assert columns["tags"] == [[], ["a"], ["NA"]]


def test_missing_categories_of_a_list_are_left_out(tmp_path: Path) -> None:
    lists = pa.array([["a", None, "", "b", "NA"], None, [None]])
    assert read(parquet(tmp_path / "a.parquet", tags=lists), FILLED)["tags"] == [["a", "b"], [], []]
    assert read(csv(tmp_path / "a.csv", "1,1,a||b|NA,1"), FILLED)["tags"] == [["a", "b"]]
    for kind in (pa.list_(pa.float64()), pa.large_list(pa.int8())):
        numbers = pa.array([[7, None], None, [8]], kind)
        assert read(parquet(tmp_path / "a.parquet", tags=numbers), FILLED)["tags"] == [["7"], [], ["8"]]
    fixed = pa.array([["a", None], None, ["b", "c"]], pa.list_(pa.string(), 2))
    assert read(parquet(tmp_path / "a.parquet", tags=fixed), FILLED)["tags"] == [["a"], [], ["b", "c"]]


def test_a_label_is_never_missing(tmp_path: Path) -> None:
    with pytest.raises(ExamplesError, match="row 2, column 'click': the cell is empty; give a label"):
        read(csv(tmp_path / "a.csv", "1,1,a,1", "1,1,a,"), FILLED)
    with pytest.raises(ExamplesError, match="row 1, column 'click': 'NA' is not a label; a label is 0 or 1"):
        read(csv(tmp_path / "a.csv", "1,1,a,NA"), FILLED)


def test_other_faults_stay_faults(tmp_path: Path) -> None:
    for rows, message in {
        "1,old,a,1": "row 1, column 'age': 'old' is not a number",
        "1,inf,a,1": "row 1, column 'age': inf is not a finite number",
        "1,1e39,a,1": "row 1, column 'age': 1e\\+39 is larger than",
    }.items():
        with pytest.raises(ExamplesError, match=message):
            read(csv(tmp_path / "a.csv", rows), FILLED)


@pytest.mark.parametrize(
    ("kind", "missing", "message"),
    [
        ("id", "mean", "missing: mean has no meaning for kind id; expected unseen"),
        ("number", "unseen", "missing: unseen has no meaning for kind number; expected mean or zero"),
        ("multi", "zero", "missing: zero has no meaning for kind multi; expected empty"),
        ("number", "median", "Input should be 'unseen', 'mean', 'zero' or 'empty'"),
        ("number", True, "missing"),
        ("number", {"words": ["NA"]}, "missing.value"),
        ("number", {"value": "mean", "words": "NA"}, "missing.words"),
        ("number", {"value": "mean", "words": [None]}, "missing.words"),
    ],
)
def test_a_meaning_that_does_not_fit_is_refused(kind: str, missing: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        FieldConfig.model_validate({"name": "x", "kind": kind, "missing": missing})


def test_a_ranker_keeps_what_missing_means(tmp_path: Path) -> None:
    """Predictions of a saved ranker, of an example with everything missing and of one that says the same by hand."""
    vocabularies = Vocabularies({"user": {"7": 1}, "tags": {"a": 1}}, {}, {"age": Standard(30.0, 9.0)})
    generator = torch.Generator().manual_seed(0)
    network = build(RankingConfig(kind="simple", hidden_units=(4,)), FILLED, vocabularies.rows, generator)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
        network.network.user_embedding.weight[0] = 0.0  # type: ignore[union-attr, index]
    save_ranker(tmp_path / "ranker", Ranker(network.eval(), vocabularies))
    ranker = load_ranker(tmp_path / "ranker")
    assert ranker.schema == FILLED
    assert ranker.schema.feature("age").missing == MissingConfig(value="mean")
    path = csv(tmp_path / "a.csv", "NA,,,1", "stranger,30,,1", "7,30,a,1")
    assert write_predictions(ranker, [path], tmp_path / "out.parquet", torch.device("cpu")) == 3
    missing, by_hand, other = pq.read_table(tmp_path / "out.parquet")["click"].to_pylist()
    assert missing == by_hand != other


def test_examples_without_a_user_are_nobodys_in_gauc(tmp_path: Path) -> None:
    path = csv(tmp_path / "a.csv", "1,1,a,1", "NA,2,a,0", "1,3,b,0", "NA,3,b,1")
    vocabularies = Vocabularies.fit(Reader([path], FILLED).blocks(10), FILLED)
    users = batch(path, FILLED, vocabularies).users.numpy()
    assert (users == NO_USER).tolist() == [False, True, False, True]
    labels, probabilities = np.array([1.0, 0.0, 0.0, 1.0]), np.array([0.9, 0.8, 0.1, 0.2])
    assert task_metrics(labels, probabilities, users).gauc == 1.0
    assert task_metrics(labels, probabilities, np.full(4, NO_USER)).gauc is None
