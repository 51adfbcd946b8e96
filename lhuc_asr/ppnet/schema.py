"""The schema of a table of examples: its fields, its labels, and the user for whom items are ranked.

A field (a feature, in a recipe) is read from one column. Its group is the part of a network that sees it: the deep
network reads the shared fields; a gate reads the prior fields too (ids with embeddings of their own; PPNet); the gate
on the embeddings reads the domain fields (EPNet; Chang et al., "PEPNet", KDD 2023). Where several parts see a column,
such as the user's id, it has several fields.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from lhuc_asr.base.config import StrictModel

Kind = Literal["id", "category", "number", "sequence", "multi"]
Group = Literal["shared", "prior", "domain"]

# Kinds whose cell holds one category, and kinds whose cell holds any number of them.
SINGLE: tuple[Kind, ...] = ("id", "category")
BAGS: tuple[Kind, ...] = ("sequence", "multi")


# What stands for a missing value in the files of pandas, R, SQL and spreadsheets, besides an empty cell, null and NaN.
MISSING_WORDS = ("NA", "N/A", "<NA>", "NaN", "nan", "null", "NULL", "None")

# What a missing value may become, by the kind of its field.
MEANINGS: dict[Kind, tuple[str, ...]] = {
    "id": ("unseen",),
    "category": ("unseen",),
    "number": ("mean", "zero"),
    "sequence": ("empty",),
    "multi": ("empty",),
}


class MissingConfig(StrictModel):
    """What missing values of a field mean; in a recipe ``missing: mean`` is short for ``missing: {value: mean}``.

    An empty cell, a null and NaN are missing; so are the categories of a list that are empty or null.

    Attributes:
        value: What takes the place of a missing value: ``unseen``, row 0, as a category that training has not seen;
            ``mean``, the mean of training; ``zero``, the number 0; ``empty``, a cell without categories, or a list
            without the missing one.
        words: Words that mean a missing value too, as whole cells or as categories of a list. In a column of numbers,
            a word that is a number (-999) stands for every way of writing it.
    """

    value: Literal["unseen", "mean", "zero", "empty"]
    words: tuple[str, ...] = MISSING_WORDS

    @field_validator("words", mode="before")
    @classmethod
    def _numbers_are_words(cls, words: Any) -> Any:
        if not isinstance(words, list | tuple):
            return words
        plain = [str(word) if isinstance(word, int | float) and not isinstance(word, bool) else word for word in words]
        return tuple(plain)

    @property
    def numbers(self) -> tuple[float, ...]:
        """The words that are finite numbers."""
        return tuple(number for number in map(_number, self.words) if math.isfinite(number))


class FieldConfig(StrictModel):
    """One input of a network.

    Attributes:
        name: Name of the field, unique in the schema.
        kind: ``id`` and ``category``: one category in each cell; ``number``; ``sequence``: categories in the order of
            time, the latest last; ``multi``: a set of categories, such as the genres of a film.
        group: Part of the network that sees the field.
        column: Column that the field is read from; None for the column with the field's name.
        embedding: Length of the embedding of a category, or of a number (a learned vector times the standardised
            number).
        buckets: Number of rows into which categories are hashed; None for a vocabulary instead.
        vocabulary_of: Name of the field whose vocabulary and table of embeddings are used; a history of items uses
            those of the item. None if the field has its own.
        min_count: Number of times that training must have a category; a rarer one counts as unseen.
        pooling: How the embeddings of a cell's categories are combined.
        max_length: Maximum number of categories of a cell; the last ones are used.
        separator: Text between the categories of a cell; a Parquet file may hold lists instead.
        missing: What missing values mean; None if a missing value is an error. An empty cell of kind ``sequence`` or
            ``multi`` is not missing: it has no categories.
    """

    name: str = Field(min_length=1)
    kind: Kind
    group: Group = "shared"
    column: str | None = None
    embedding: int = Field(8, ge=1, le=65_536)
    buckets: int | None = Field(None, ge=1, le=1_000_000_000)
    vocabulary_of: str | None = None
    min_count: int = Field(1, ge=1, le=1_000_000_000)
    pooling: Literal["mean", "sum"] = "mean"
    max_length: int = Field(50, ge=1, le=1_000_000)
    separator: str = Field("|", min_length=1)
    missing: MissingConfig | None = None

    @property
    def source(self) -> str:
        """Name of the column that the field is read from."""
        return self.column or self.name

    @property
    def table(self) -> str | None:
        """Name of the field whose vocabulary and embeddings are used, this or another; None for a number."""
        return None if self.kind == "number" else self.vocabulary_of or self.name

    @field_validator("missing", mode="before")
    @classmethod
    def _a_word_is_the_value(cls, missing: Any) -> Any:
        return {"value": missing} if isinstance(missing, str) else missing

    @model_validator(mode="after")
    def _missing_fits_the_kind(self) -> Self:
        if self.missing is not None and self.missing.value not in MEANINGS[self.kind]:
            raise ValueError(
                f"feature {self.name!r}: missing: {self.missing.value} has no meaning for kind {self.kind}; "
                f"expected {' or '.join(MEANINGS[self.kind])}"
            )
        return self

    @model_validator(mode="after")
    def _options_fit_the_kind(self) -> Self:
        given = self.model_fields_set
        unused = set()
        if self.kind == "number":
            unused |= {"buckets", "vocabulary_of", "min_count"}
        if self.kind not in BAGS:
            unused |= {"pooling", "max_length", "separator"}
        if self.vocabulary_of is not None:
            unused |= {"buckets", "min_count"}  # the owner's
        if self.buckets is not None:
            unused |= {"min_count"}
        useless = sorted(
            name for name in given & unused if getattr(self, name) != type(self).model_fields[name].default
        )
        if useless:
            raise ValueError(f"feature {self.name!r}: {', '.join(useless)} would have no effect here; leave it out")
        return self


def _number(word: str) -> float:
    """The number that a word is; NaN for any other word."""
    try:
        return float(word)
    except ValueError:
        return math.nan


class Schema(StrictModel):
    """The columns of a table of examples.

    Attributes:
        features: Fields, in the order of the network's inputs.
        labels: Names of the columns of 0 and 1, one for each task.
        user: Name of the ``id`` or ``category`` field by which GAUC groups examples.
    """

    features: tuple[FieldConfig, ...] = Field(min_length=1)
    labels: tuple[str, ...] = Field(min_length=1)
    user: str

    def feature(self, name: str) -> FieldConfig:
        """The field of a name, which the schema must have."""
        return next(feature for feature in self.features if feature.name == name)

    def group(self, group: Group) -> tuple[FieldConfig, ...]:
        """The fields that one part of the network sees, in order."""
        return tuple(feature for feature in self.features if feature.group == group)

    @property
    def tables(self) -> tuple[FieldConfig, ...]:
        """The fields that have a vocabulary and a table of embeddings of their own, in order."""
        return tuple(feature for feature in self.features if feature.table == feature.name)

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        counts = Counter([*(feature.name for feature in self.features), *self.labels])
        twice = [name for name, count in counts.items() if count > 1]
        if twice:
            raise ValueError(f"two features or labels are called {', '.join(map(repr, twice))}; give each its own name")
        leaks = sorted({feature.source for feature in self.features} & set(self.labels))
        if leaks:
            raise ValueError(
                f"column {leaks[0]!r} is both a feature and a label: the model would read its answer; leave one out"
            )
        return self

    @model_validator(mode="after")
    def _references_lead_somewhere(self) -> Self:
        known = {feature.name: feature for feature in self.features}
        user = known.get(self.user)
        if user is None or user.kind not in SINGLE:
            raise ValueError(f"user: {self.user!r} is not a feature of kind id or category; name one that is")
        for feature in self.features:
            if feature.vocabulary_of is None:
                continue
            owner = known.get(feature.vocabulary_of)
            if owner is None or owner.table != owner.name:
                raise ValueError(
                    f"feature {feature.name!r}: vocabulary_of {feature.vocabulary_of!r} is not a feature with a "
                    "vocabulary of its own; name one that is"
                )
            if (owner.embedding, owner.group) != (feature.embedding, feature.group):
                raise ValueError(
                    f"feature {feature.name!r}: shares the table of {owner.name!r}, so both need the same embedding "
                    "and group"
                )
        return self
