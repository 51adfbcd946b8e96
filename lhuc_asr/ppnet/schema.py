"""What a table of examples holds: its features, its labels, and the user by whom it is ranked.

A feature is read from one column. Its group says which part of a network sees it: the deep network reads the shared
features; a gate reads the prior features (ids with embeddings of their own) beside them (PPNet); the gate on the
embeddings reads the domain features (EPNet; Chang et al., "PEPNet", KDD 2023). A column that several parts see, as
the user's id that is shared and prior, is named by several features.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal, Self

from pydantic import Field, model_validator

from lhuc_asr.base.config import StrictModel

Kind = Literal["id", "category", "number", "sequence", "multi"]
Group = Literal["shared", "prior", "domain"]

# Kinds whose cell holds one category, and kinds whose cell holds any number of them.
SINGLE: tuple[Kind, ...] = ("id", "category")
BAGS: tuple[Kind, ...] = ("sequence", "multi")


class FieldConfig(StrictModel):
    """One feature.

    Attributes:
        name: What the feature is called; unique.
        kind: ``id`` and ``category``: one category a cell; ``number``; ``sequence``: categories in the order of time,
            the latest last; ``multi``: a set of categories, as the genres of a film.
        group: The part of the network that sees it.
        column: The column that it is read from; None: the one of its name.
        embedding: Numbers in the embedding of a category, or of a number (a learned vector times the number, which
            is standardised).
        buckets: Categories are hashed into so many rows, in place of a vocabulary.
        vocabulary_of: The feature whose vocabulary and table of embeddings this one uses, as a history of items the
            item's.
        min_count: A category seen less often in training counts as unseen.
        pooling: Of the embeddings of a cell's categories.
        max_length: Of a cell's categories the last so many are used.
        separator: Between the categories of a cell of text; a Parquet file may hold lists instead.
    """

    name: str = Field(min_length=1)
    kind: Kind
    group: Group = "shared"
    column: str | None = None
    embedding: int = Field(8, ge=1)
    buckets: int | None = Field(None, ge=1)
    vocabulary_of: str | None = None
    min_count: int = Field(1, ge=1)
    pooling: Literal["mean", "sum"] = "mean"
    max_length: int = Field(50, ge=1)
    separator: str = Field("|", min_length=1)

    @property
    def source(self) -> str:
        """Name of the column that it is read from."""
        return self.column or self.name

    @property
    def table(self) -> str | None:
        """Name of the feature whose vocabulary and embeddings it uses, its own or another's; None for a number."""
        return None if self.kind == "number" else self.vocabulary_of or self.name

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
            raise ValueError(f"feature {self.name!r}: {', '.join(useless)} would do nothing here; leave it out")
        return self


class Schema(StrictModel):
    """The columns of a table of examples.

    Attributes:
        features: In the order of the network's inputs.
        labels: Columns of 0 and 1, a task each.
        user: The ``id`` or ``category`` feature by which GAUC groups examples.
    """

    features: tuple[FieldConfig, ...] = Field(min_length=1)
    labels: tuple[str, ...] = Field(min_length=1)
    user: str

    def feature(self, name: str) -> FieldConfig:
        """The feature of a name, which must be one of the schema's."""
        return next(feature for feature in self.features if feature.name == name)

    def group(self, group: Group) -> tuple[FieldConfig, ...]:
        """The features that one part of the network sees, in order."""
        return tuple(feature for feature in self.features if feature.group == group)

    @property
    def tables(self) -> tuple[FieldConfig, ...]:
        """The features that have a vocabulary and a table of embeddings of their own, in order."""
        return tuple(feature for feature in self.features if feature.table == feature.name)

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        counts = Counter([*(feature.name for feature in self.features), *self.labels])
        twice = [name for name, count in counts.items() if count > 1]
        if twice:
            raise ValueError(f"two features or labels are called {', '.join(map(repr, twice))}")
        leaks = sorted({feature.source for feature in self.features} & set(self.labels))
        if leaks:
            raise ValueError(f"column {leaks[0]!r} is both a feature and a label: the model would read its answer")
        return self

    @model_validator(mode="after")
    def _references_lead_somewhere(self) -> Self:
        known = {feature.name: feature for feature in self.features}
        user = known.get(self.user)
        if user is None or user.kind not in SINGLE:
            raise ValueError(f"user: {self.user!r} is no feature of kind id or category")
        for feature in self.features:
            if feature.vocabulary_of is None:
                continue
            owner = known.get(feature.vocabulary_of)
            if owner is None or owner.table != owner.name:
                raise ValueError(
                    f"feature {feature.name!r}: vocabulary_of {feature.vocabulary_of!r} is no feature with a "
                    "vocabulary of its own"
                )
            if (owner.embedding, owner.group) != (feature.embedding, feature.group):
                raise ValueError(
                    f"feature {feature.name!r}: shares the table of {owner.name!r}, so both need the same embedding "
                    "and group"
                )
        return self
