"""From files to mini-batches: nothing is lost, the order is drawn and can be had again."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from lhuc_asr.ppnet.batch import Batch
from lhuc_asr.ppnet.examples import Examples
from lhuc_asr.ppnet.reader import Reader
from lhuc_asr.ppnet.schema import FieldConfig, Schema
from lhuc_asr.ppnet.vocabulary import Vocabularies

SCHEMA = Schema(
    features=(
        FieldConfig(name="user", kind="id", min_count=2),
        FieldConfig(name="item", kind="id"),
        FieldConfig(name="history", kind="sequence", vocabulary_of="item", max_length=3),
        FieldConfig(name="age", kind="number"),
    ),
    labels=("click", "like"),
    user="user",
)
COUNT = 103


@pytest.fixture(scope="module")
def rows() -> list[dict[str, object]]:
    rng = np.random.default_rng(0)
    return [
        {
            "user": f"u{min(index // 10, 9) if index < 101 else index}",  # the last two come once each
            "item": f"i{rng.integers(20)}",
            "history": [f"i{item}" for item in rng.integers(20, size=rng.integers(6))],
            "age": float(index),
            "click": int(rng.integers(2)),
            "like": int(rng.integers(2)),
        }
        for index in range(COUNT)
    ]


@pytest.fixture(scope="module")
def path(rows: list[dict[str, object]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("examples") / "a.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=8)
    return path


@pytest.fixture(scope="module")
def vocabularies(path: Path) -> Vocabularies:
    return Vocabularies.fit(Reader([path], SCHEMA).blocks(50), SCHEMA)


@pytest.fixture(scope="module")
def examples(path: Path, vocabularies: Vocabularies) -> Examples:
    return Examples([path], SCHEMA, vocabularies)


def row_of(batch: Batch, place: int, vocabularies: Vocabularies) -> dict[str, object]:
    """What an example of a batch says, read back through the vocabularies."""
    items = {row: name for name, row in vocabularies.categories["item"].items()}
    bag = batch.bags["history"]
    ends = [*bag.offsets.tolist()[1:], len(bag.values)]
    history = bag.values.tolist()[bag.offsets[place] : ends[place]]
    standard = vocabularies.numbers["age"]
    return {
        "user": int(batch.ids["user"][place]),
        "item": items[int(batch.ids["item"][place])],
        "history": [items[row] for row in history],
        "age": round(float(batch.numbers["age"][place]) * standard.deviation + standard.mean),
        "click": int(batch.labels[place, 0]),
        "like": int(batch.labels[place, 1]),
    }


def expected(row: dict[str, object], vocabularies: Vocabularies) -> dict[str, object]:
    history = row["history"]
    user = vocabularies.categories["user"].get(str(row["user"]), 0)
    return row | {"user": user, "history": history[-3:]}  # type: ignore[index]


def ages(batches: list[Batch], vocabularies: Vocabularies) -> list[int]:
    standard = vocabularies.numbers["age"]
    standardised = torch.cat([batch.numbers["age"] for batch in batches]).double()
    return (standardised * standard.deviation + standard.mean).round().int().tolist()


@pytest.mark.parametrize("seed", [None, 1])
@pytest.mark.parametrize("block", [1, 16, 40, 1000])
def test_every_example_comes_once_and_whole(
    seed: int | None, block: int, examples: Examples, vocabularies: Vocabularies, rows: list[dict[str, object]]
) -> None:
    batches = list(examples.batches(10, seed, block))
    assert [len(batch) for batch in batches] == [10] * 10 + [3]
    made = [row_of(batch, place, vocabularies) for batch in batches for place in range(len(batch))]
    if seed is not None:
        made.sort(key=lambda row: row["age"])  # type: ignore[arg-type, return-value]
    assert made == [expected(row, vocabularies) for row in rows]


def test_the_order_is_the_seeds(examples: Examples, vocabularies: Vocabularies) -> None:
    def order(*seed: int) -> list[int]:
        return ages(list(examples.batches(10, seed, 30)), vocabularies)

    assert order(1, 1) == order(1, 1)
    assert len({tuple(order(*seed)) for seed in [(1, 1), (1, 2), (2, 1)]}) == 3


def test_a_block_mixes_what_is_far_apart(examples: Examples, vocabularies: Vocabularies) -> None:
    """Row groups of 8 rows in blocks of 40: a mini-batch of 10 has rows of several of them."""
    order = ages(list(examples.batches(10, 5, 40)), vocabularies)
    groups = [{age // 8 for age in order[start : start + 10]} for start in range(0, 40, 10)]
    assert all(len(group) >= 3 for group in groups)
    assert len(set().union(*groups)) >= 5


def test_users_are_told_apart_though_the_vocabulary_knows_neither(examples: Examples) -> None:
    *_, last = examples.batches(10)
    assert last.ids["user"].tolist()[1:] == [0, 0]
    assert len(set(last.users.tolist())) == 3


def test_a_csv_file_gives_the_same_batches(
    path: Path, rows: list[dict[str, object]], vocabularies: Vocabularies, tmp_path: Path
) -> None:
    text = tmp_path / "a.csv"
    with text.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows([row | {"history": "|".join(row["history"])} for row in rows])  # type: ignore[arg-type]
    pair = (list(Examples([source], SCHEMA, vocabularies).batches(64)) for source in (path, text))
    for first, second in zip(*pair, strict=True):
        torch.testing.assert_close(
            (first.ids, first.numbers, first.labels, first.users),
            (second.ids, second.numbers, second.labels, second.users),
        )
        assert first.bags["history"].values.equal(second.bags["history"].values)
        assert first.bags["history"].offsets.equal(second.bags["history"].offsets)


def test_without_labels_there_are_none(path: Path, vocabularies: Vocabularies) -> None:
    batch = next(Examples([path], SCHEMA, vocabularies, labelled=False).batches(10))
    assert batch.labels.shape == (10, 0)


def test_bags_pool_as_the_cells_do(
    examples: Examples, vocabularies: Vocabularies, rows: list[dict[str, object]]
) -> None:
    """torch's EmbeddingBag over a taken batch, against the mean of each cell's embeddings."""
    table = nn.EmbeddingBag(vocabularies.rows["item"], 4, mode="mean")
    bag = next(examples.batches(64)).bags["history"].take(torch.tensor([5, 2, 2, 40]))
    pooled = table(bag.values, bag.offsets)
    for place, index in enumerate([5, 2, 2, 40]):
        cell = [vocabularies.categories["item"][item] for item in rows[index]["history"][-3:]]  # type: ignore[index]
        wanted = table.weight[cell].mean(0) if cell else torch.zeros(4)
        torch.testing.assert_close(pooled[place], wanted)
