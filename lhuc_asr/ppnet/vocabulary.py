"""Vocabularies of a schema's fields: the rows of categories, and the mean and deviation of numbers.

Each table of embeddings has a row for each category, the most frequent first, from row 1. Row 0 stands for every
category that training has not seen, or has seen too seldom. A hashed field does not need a vocabulary: its categories
fall into rows 1 to its number of buckets, and two of them may share a row. What is kept of them is their form ("a0" for
"u17"), by which ids that are written in another way than in training can be told. Numbers are scaled to mean 0 and
standard deviation 1.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from pydantic import Field, ValidationError, model_validator

from lhuc_asr.base.atomic import DamagedFileError, read_json, write_json
from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.errors import CheckpointError, ExamplesError
from lhuc_asr.base.extras import extra
from lhuc_asr.ppnet.batch import NO_USER
from lhuc_asr.ppnet.schema import Schema

with extra("rank"):
    import pyarrow as pa
    import pyarrow.compute as pc

UNSEEN = 0
# Number of forms from which on another form tells nothing: the categories are free text.
MOST_FORMS = 1000

_Number = Annotated[float, Field(strict=True, ge=-1e300, le=1e300)]


@dataclass(frozen=True)
class Standard:
    """Mean and standard deviation of a number field in training."""

    mean: float
    deviation: float

    def of(self, numbers: np.ndarray) -> np.ndarray:
        """Standardise numbers; those of a field that never varied in training become their distance from its value."""
        return (numbers - self.mean) / (self.deviation or 1.0)


@dataclass(frozen=True)
class Vocabularies:
    """The vocabularies of all fields, fitted once on training data and saved with the model.

    Attributes:
        categories: Row of each category, by the name of the field that owns the table.
        buckets: Number of rows of each hashed table, without row 0.
        numbers: Mean and deviation of each number field, by name.
        forms: Forms of the categories of each hashed table in training; none where they are too many to tell anything.
    """

    categories: dict[str, dict[str, int]]
    buckets: dict[str, int]
    numbers: dict[str, Standard]
    forms: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def fit(cls, blocks: Iterable[pa.Table], schema: Schema) -> Vocabularies:
        """Count the categories and measure the numbers, in one pass over training data.

        Args:
            blocks: Tables of training data, from ``Reader.blocks``.
            schema: Schema of the tables.

        Raises:
            ExamplesError: All numbers of a field are missing.
        """
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        sums = {feature.name: _Sums() for feature in schema.features if feature.kind == "number"}
        fitted = [feature for feature in schema.features if feature.table]
        hashed = {feature.name: feature.buckets for feature in schema.tables if feature.buckets}
        forms: dict[str, set[str]] = {name: set() for name in hashed}
        for block in blocks:
            for feature in fitted:
                if feature.table not in hashed:
                    _count(block.column(feature.name), counts[str(feature.table)])
                elif len(forms[feature.table]) <= MOST_FORMS:
                    forms[feature.table] |= _forms(block.column(feature.name))
            for name, total in sums.items():
                total.add(block.column(name).drop_null().to_numpy())
        categories = {
            feature.name: _rows(counts[feature.name], feature.min_count)
            for feature in schema.tables
            if feature.name not in hashed
        }
        absent = sorted(name for name, total in sums.items() if not total.count)
        if absent:
            raise ExamplesError(f"feature {absent[0]!r}: every number of training is missing; leave the feature out")
        told = {name: tuple(sorted(some)) for name, some in forms.items() if len(some) <= MOST_FORMS}
        return cls(categories, hashed, {name: total.standard() for name, total in sums.items()}, told)

    @property
    def rows(self) -> dict[str, int]:
        """Number of rows of each table of embeddings, row 0 included, by the name of the field that owns it."""
        sizes = {name: len(rows) for name, rows in self.categories.items()}
        return {name: size + 1 for name, size in (sizes | self.buckets).items()}

    def encode(self, table: str, categories: pa.Array) -> np.ndarray:
        """The rows of categories in a table of embeddings.

        Args:
            table: Name of the field that owns the table.
            categories: Categories as text, null where missing, shape (N,).

        Returns:
            Rows, shape (N,), int64; 0 where missing.
        """
        buckets = self.buckets.get(table)
        if buckets is not None:
            return _by_category(categories, lambda category: 1 + category_hash(category) % buckets, UNSEEN)
        rows = self.categories[table]
        return _by_category(categories, lambda category: rows.get(category, UNSEEN), UNSEEN)

    def unknown(self, table: str, categories: pa.Array) -> np.ndarray | None:
        """Which categories training does not have, bool, shape (N,); a missing one is not unknown.

        Of a hashed table, those of a form that training does not have; None where the forms are not known.

        Args:
            table: Name of the field that owns the table.
            categories: Categories as text, null where missing, shape (N,).
        """
        if table in self.categories:
            rows = self.categories[table]
            return _by_category(categories, lambda category: category not in rows, False).astype(bool)
        if table not in self.forms:
            return None
        forms = set(self.forms[table])
        return _by_category(categories, lambda category: category_form(category) not in forms, False).astype(bool)

    def save(self, path: Path) -> None:
        """Write JSON, whole or not at all."""
        content = {
            "categories": {name: list(rows) for name, rows in self.categories.items()},
            "buckets": self.buckets,
            "numbers": {name: [standard.mean, standard.deviation] for name, standard in self.numbers.items()},
        } | ({"forms": self.forms} if self.forms else {})
        write_json(path, content)

    @classmethod
    def load(cls, path: Path, schema: Schema) -> Vocabularies:
        """Read vocabularies that ``save`` wrote.

        Raises:
            CheckpointError: The file is missing or damaged, or belongs to another schema.
        """
        try:
            vocabularies = _Content.model_validate(read_json(path)).vocabularies()
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            fault = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            raise CheckpointError(
                f"{path}: not the vocabularies of a schema ({fault}); copy the folder again"
            ) from error
        except (OSError, DamagedFileError) as error:
            raise CheckpointError(
                f"{path}: not the vocabularies of a schema ({error}); copy the folder again"
            ) from error
        hashed = {feature.name: feature.buckets for feature in schema.tables if feature.buckets}
        plain = {feature.name for feature in schema.tables} - set(hashed)
        numbers = {feature.name for feature in schema.features if feature.kind == "number"}
        wanted = (plain, hashed, numbers)
        if wanted != (set(vocabularies.categories), vocabularies.buckets, set(vocabularies.numbers)):
            raise CheckpointError(
                f"{path}: fitted to another schema: its features differ in name, kind or buckets; fit it again"
            )
        return vocabularies


class _Content(StrictModel):
    """Content of the file of vocabularies: plain values, checked by type."""

    categories: dict[str, list[Annotated[str, Field(strict=True)]]]
    buckets: dict[str, Annotated[int, Field(strict=True, ge=1, le=1_000_000_000)]]
    numbers: dict[str, tuple[_Number, Annotated[float, Field(strict=True, ge=0.0, le=1e300)]]]
    forms: dict[str, tuple[Annotated[str, Field(strict=True)], ...]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _a_category_has_one_row(self) -> Self:
        for name, categories in self.categories.items():
            if len(set(categories)) < len(categories):
                raise ValueError(f"a category of {name!r} appears twice")
        if strangers := self.forms.keys() - self.buckets.keys():
            raise ValueError(f"forms: {min(strangers)!r} is not a hashed table")
        return self

    def vocabularies(self) -> Vocabularies:
        """The vocabularies that the file describes."""
        return Vocabularies(
            {name: {category: row for row, category in enumerate(names, 1)} for name, names in self.categories.items()},
            self.buckets,
            {name: Standard(mean, deviation) for name, (mean, deviation) in self.numbers.items()},
            self.forms,
        )


def category_hash(category: str) -> int:
    """A number below 2^63 that is the same on every machine and in every run, unlike Python's own hash."""
    return int.from_bytes(hashlib.blake2b(category.encode(), digest_size=8).digest()) >> 1


def category_form(category: str) -> str:
    """How a category is written: letters as a, digits as 0, and as 00 where they begin with a zero.

    Example:
        >>> category_form("user17"), category_form("007"), category_form("7.0"), category_form(" 5")
        ('a0', '00', '0.0', ' 0')
    """
    digits = re.sub(r"\d+", lambda run: "00" if run[0][0] == "0" and len(run[0]) > 1 else "0", category)
    return re.sub(r"[^\W\d_]+", "a", digits)


def hashes(categories: pa.Array) -> np.ndarray:
    """``category_hash`` of each category, shape (N,), int64; ``NO_USER`` where it is missing."""
    return _by_category(categories, category_hash, NO_USER)


def flat(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column in one piece, with its lists joined."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return whole.flatten() if pa.types.is_list(whole.type) else whole


def _by_category(categories: pa.Array, row: Callable[[str], int], missing: int) -> np.ndarray:
    # Once for each category, not for each cell.
    encoded = categories.dictionary_encode()
    rows = np.array([*map(row, encoded.dictionary.to_pylist()), missing], dtype=np.int64)
    result: np.ndarray = rows[encoded.indices.fill_null(len(rows) - 1).to_numpy(zero_copy_only=False)]
    return result


def _count(column: pa.ChunkedArray, counts: Counter[str]) -> None:
    pairs = pc.value_counts(flat(column).drop_null())
    counts.update(dict(zip(pairs.field("values").to_pylist(), pairs.field("counts").to_pylist(), strict=True)))


def _forms(column: pa.ChunkedArray) -> set[str]:
    return {category_form(category) for category in flat(column).unique().drop_null().to_pylist()}


def _rows(counts: Counter[str], min_count: int) -> dict[str, int]:
    # The name breaks ties, so that the order of the training rows does not matter.
    kept = sorted((-count, category) for category, count in counts.items() if count >= min_count)
    return {category: row for row, (_, category) in enumerate(kept, start=1)}


class _Sums:
    """Mean and squared deviations of a stream of numbers (Chan, Golub and LeVeque 1979): exact at any offset."""

    def __init__(self) -> None:
        self.count, self._mean, self._squares = 0, 0.0, 0.0

    def add(self, numbers: np.ndarray) -> None:
        if not len(numbers):
            return
        count = self.count + len(numbers)
        mean = float(numbers.mean())
        step = mean - self._mean
        self._squares += float(((numbers - mean) ** 2).sum()) + step**2 * self.count * len(numbers) / count
        self._mean += step * len(numbers) / count
        self.count = count

    def standard(self) -> Standard:
        return Standard(self._mean, math.sqrt(self._squares / self.count))
