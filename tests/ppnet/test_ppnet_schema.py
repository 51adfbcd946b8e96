"""A schema refuses what a network could not be built from, and says which feature it is."""

from __future__ import annotations

from typing import Any

import pytest

from lhuc_asr.base.config import parse_config
from lhuc_asr.base.errors import ConfigError
from lhuc_asr.ppnet.schema import Schema

USER = {"name": "user", "kind": "id"}
ITEM = {"name": "item", "kind": "id", "embedding": 4}


def schema(*features: dict[str, Any], **rest: Any) -> Schema:
    return parse_config(Schema, {"features": [USER, *features], "labels": ["click"], "user": "user", **rest}, "s.yaml")


def test_tables_belong_to_the_features_that_share_no_other_ones() -> None:
    history = {"name": "history", "kind": "sequence", "vocabulary_of": "item", "embedding": 4}
    made = schema(ITEM, history, {"name": "age", "kind": "number"})
    assert [feature.name for feature in made.tables] == ["user", "item"]
    assert [feature.table for feature in made.features] == ["user", "item", "item", None]


def test_one_column_may_be_shared_and_prior() -> None:
    made = schema({"name": "user_prior", "kind": "id", "group": "prior", "column": "user"})
    assert [feature.name for feature in made.group("prior")] == ["user_prior"]
    assert made.feature("user_prior").source == made.feature("user").source == "user"


@pytest.mark.parametrize(
    ("features", "rest", "message"),
    [
        ([{"name": "user", "kind": "number"}], {}, "are called 'user'"),
        ([{"name": "click", "kind": "number"}], {}, "are called 'click'"),
        ([{"name": "age", "kind": "number", "column": "click"}], {}, "'click' is both a feature and a label"),
        ([{"name": "age", "kind": "number"}], {"user": "age"}, "'age' is not a feature of kind id or category"),
        ([], {"user": "reader"}, "'reader' is not a feature"),
        ([{"name": "h", "kind": "sequence", "vocabulary_of": "film"}], {}, "'film' is not a feature with a vocabulary"),
        ([ITEM, {"name": "h", "kind": "multi", "vocabulary_of": "item"}], {}, "the same embedding and group"),
        ([{"name": "age", "kind": "number", "buckets": 9}], {}, "'age': buckets would have no effect"),
        ([{"name": "i", "kind": "id", "pooling": "sum"}], {}, "'i': pooling would have no effect"),
        ([{"name": "i", "kind": "id", "buckets": 9, "min_count": 2}], {}, "min_count would have no effect"),
        ([{"name": "i", "kind": "identity"}], {}, "kind"),
        ([{"name": "i", "kind": "id", "embeding": 3}], {}, "did you mean 'embedding'"),
        ([], {"labels": []}, "labels"),
    ],
)
def test_a_schema_that_cannot_be_is_refused(features: list[dict[str, Any]], rest: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        schema(*features, **rest)
    assert str(caught.value).startswith("s.yaml: ")
