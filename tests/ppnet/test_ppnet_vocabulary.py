"""Rows of categories, their hashes, and the numbers' standard."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lhuc_asr.base.errors import CheckpointError
from lhuc_asr.ppnet.schema import FieldConfig, Schema
from lhuc_asr.ppnet.vocabulary import Vocabularies, hashes

FEATURES = (
    FieldConfig(name="user", kind="id", buckets=5),
    FieldConfig(name="item", kind="id", min_count=2),
    FieldConfig(name="history", kind="sequence", vocabulary_of="item"),
    FieldConfig(name="age", kind="number"),
    FieldConfig(name="constant", kind="number"),
)
SCHEMA = Schema(features=FEATURES, labels=("click",), user="user")


def block(items: list[str], histories: list[list[str]], ages: list[float]) -> pa.Table:
    constant = [4.0] * len(items)
    return pa.table({"user": items, "item": items, "history": histories, "age": ages, "constant": constant})


BLOCKS = [
    block(["b", "c", "a"], [[], ["a", "a"], ["rare"]], [1e6, 1e6 + 1, 1e6 + 2]),
    block(["c", "a"], [["c"], []], [1e6 + 5, 1e6 - 1]),
]


def test_rows_follow_the_counts_of_all_features_of_a_table() -> None:
    """a: 4 times, c: 3 times; b and rare once, which is less than min_count."""
    vocabularies = Vocabularies.fit(BLOCKS, SCHEMA)
    assert vocabularies.categories == {"item": {"a": 1, "c": 2}}
    assert vocabularies.rows == {"user": 6, "item": 3}
    assert vocabularies.encode("item", pa.array(["c", "new", "a", "b"])).tolist() == [2, 0, 1, 0]


def test_the_order_of_the_rows_does_not_matter() -> None:
    tied = [block([name], [[name]], [0.0]) for name in "dbca"]
    assert Vocabularies.fit(tied, SCHEMA) == Vocabularies.fit(tied[::-1], SCHEMA)
    assert list(Vocabularies.fit(tied, SCHEMA).categories["item"]) == ["a", "b", "c", "d"]


def test_numbers_are_standardised() -> None:
    """Against numpy over all rows at once, at an offset where sums of squares would cancel."""
    ages = np.concatenate([block["age"].to_numpy() for block in BLOCKS])
    standard = Vocabularies.fit(BLOCKS, SCHEMA).numbers["age"]
    np.testing.assert_allclose(standard.of(ages), (ages - ages.mean()) / ages.std(), rtol=1e-9)


def test_a_number_that_never_varied_stays_finite() -> None:
    standard = Vocabularies.fit(BLOCKS, SCHEMA).numbers["constant"]
    assert standard.of(np.array([4.0, 6.0])).tolist() == [0.0, 2.0]


def test_hashed_rows_are_the_hash_of_the_text() -> None:
    """By the definition of BLAKE2, read as a big-endian number without its last bit."""
    names = ["a", "ü", "a"]
    numbers = [int(hashlib.blake2b(name.encode(), digest_size=8).hexdigest(), 16) // 2 for name in names]
    assert hashes(pa.array(names)).tolist() == numbers
    rows = Vocabularies.fit(BLOCKS, SCHEMA).encode("user", pa.array(names))
    assert rows.tolist() == [1 + number % 5 for number in numbers]


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    vocabularies = Vocabularies.fit(BLOCKS, SCHEMA)
    vocabularies.save(tmp_path / "vocabularies.json")
    assert Vocabularies.load(tmp_path / "vocabularies.json", SCHEMA) == vocabularies


def test_another_schemas_vocabularies_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "vocabularies.json"
    Vocabularies.fit(BLOCKS, SCHEMA).save(path)
    fewer = Schema(features=FEATURES[:-1], labels=("click",), user="user")
    more_buckets = Schema(
        features=(FEATURES[0].model_copy(update={"buckets": 6}), *FEATURES[1:]), labels=("click",), user="user"
    )
    for schema in (fewer, more_buckets):
        with pytest.raises(CheckpointError, match="fitted to another schema"):
            Vocabularies.load(path, schema)
    path.write_text("[]")
    with pytest.raises(CheckpointError, match="not the vocabularies"):
        Vocabularies.load(path, SCHEMA)


@pytest.mark.parametrize(
    ("part", "changed"),
    [
        ("categories", {"item": ["a", "b", "a"]}),
        ("categories", {"item": [1, 2]}),
        ("categories", {"item": "ab"}),
        ("numbers", {"age": [float("nan"), 1.0]}),
        ("numbers", {"age": [0.0, float("inf")]}),
        ("numbers", {"age": [0.0, -1.0]}),
    ],
)
def test_vocabularies_that_no_training_data_has_are_refused(part: str, changed: Any, tmp_path: Path) -> None:
    """A category that comes twice would lead to a row that no table has."""
    path = tmp_path / "vocabularies.json"
    Vocabularies.fit(BLOCKS, SCHEMA).save(path)
    content = json.loads(path.read_text())
    assert set(changed) <= set(content[part])
    content[part] |= changed
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"vocabularies\.json: not the vocabularies"):
        Vocabularies.load(path, SCHEMA)
