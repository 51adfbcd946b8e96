"""Linear models of the fields: the rivals that a ranking network has to beat.

    logit = b + sum over terms of w_term . x_term

A term is a field, or the cross of two fields. x_term is sparse. Of a field with one category it is 1 in the category's
row; of a bag, 1 / n (pooling: mean) or 1 (sum) in each of its n rows; of a number, the standardised number. The cross
of two fields is the product of every entry of one with every entry of the other, so that user x genre has a weight for
each user's taste in each genre.

    log_odds    w of a category is the distance of its log odds in training, with prior counts, from those of all
                examples; weights of several fields are added as if the fields were independent (naive Bayes)
    logistic    w and b by logistic regression with an L2 penalty

``linear_fit.py`` finds the weights. Row 0, a category that training has not seen, has weight 0 as long as training has
no rare categories that count as unseen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.errors import ConfigError
from lhuc_asr.ppnet.batch import Batch
from lhuc_asr.ppnet.ranking_model import RankingModel
from lhuc_asr.ppnet.schema import BAGS, SINGLE, FieldConfig, Schema

# Number of weights of a term from which on it is refused: fitting needs some twenty numbers of 8 bytes for each.
MOST_WEIGHTS = 100_000_000

_Strength = Annotated[float, Field(gt=0.0, le=1e12)]


class LogOddsConfig(StrictModel):
    """Smoothed log odds of categories, added up.

    Attributes:
        kind: Name of this kind of model in a recipe.
        features: Names of the fields; None for all fields of kind ``id`` and ``category``, a column once. Fields of
            kind ``number`` have no categories and cannot be among them.
        prior_counts: Candidates for the number of imagined examples, labelled as the corpus is on average, that are
            added to those of each category. The best on the validation split is taken.
    """

    kind: Literal["log_odds"] = "log_odds"
    features: tuple[str, ...] | None = Field(None, min_length=1)
    prior_counts: tuple[_Strength, ...] = Field((1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0), min_length=1)

    def terms(self, schema: Schema) -> list[Term]:
        """The terms of a schema.

        Raises:
            ConfigError: A field is not in the schema, or is a number.
        """
        default = [feature.name for feature in _once(schema) if feature.kind in SINGLE]
        terms = [Term((_field(schema, name),)) for name in self.features or default]
        for term in terms:
            if term.fields[0].kind == "number":
                raise ConfigError(f"log_odds: feature {term.name!r} is a number, without categories; leave it out")
        return terms


class LogisticConfig(StrictModel):
    """Logistic regression with an L2 penalty, fitted by scikit-learn.

    Attributes:
        kind: Name of this kind of model in a recipe.
        features: Names of the fields; None for all fields, a column once.
        crosses: Pairs of fields that are crossed as well, at most one of them of kind ``sequence`` or ``multi``.
        c: Candidates for C, the inverse strength of the penalty. The best on the validation split is taken.
    """

    kind: Literal["logistic"] = "logistic"
    features: tuple[str, ...] | None = Field(None, min_length=1)
    crosses: tuple[tuple[str, str], ...] = ()
    c: tuple[_Strength, ...] = Field((0.01, 0.03, 0.1, 0.3, 1.0, 3.0), min_length=1)

    def terms(self, schema: Schema) -> list[Term]:
        """The terms of a schema.

        Raises:
            ConfigError: A field is not in the schema, or two bags are crossed.
        """
        names = self.features or [feature.name for feature in _once(schema)]
        terms = [Term((_field(schema, name),)) for name in names]
        terms += [Term((_field(schema, first), _field(schema, second))) for first, second in self.crosses]
        for term in terms:
            if sum(feature.kind in BAGS for feature in term.fields) > 1:
                raise ConfigError(f"logistic: {term.name} crosses two lists of categories; cross one with another kind")
        return terms


LinearConfig = LogOddsConfig | LogisticConfig


@dataclass(frozen=True)
class Entries:
    """The entries of a term that are not zero, N of them.

    Attributes:
        examples: Number of each entry's example, shape (N,), int64.
        rows: Row of each entry's weight, shape (N,), int64.
        values: Values, shape (N,), float32.
    """

    examples: Tensor
    rows: Tensor
    values: Tensor


@dataclass(frozen=True)
class Term:
    """A field, or the cross of two.

    Attributes:
        fields: The fields.
    """

    fields: tuple[FieldConfig, ...]

    @property
    def name(self) -> str:
        """Name for messages and figures."""
        return " x ".join(feature.name for feature in self.fields)

    def weights(self, rows: Mapping[str, int]) -> int:
        """Number of weights of each task, from the number of rows of each table of categories."""
        product = 1
        for feature in self.fields:
            product *= 1 if feature.kind == "number" else rows[str(feature.table)]
        return product

    def entries(self, batch: Batch, rows: Mapping[str, int]) -> Entries:
        """The entries of a batch's examples."""
        examples, values = self._examples(batch)
        position = torch.zeros_like(examples)
        for feature in self.fields:
            if feature.kind == "number":
                values = values * batch.numbers[feature.name][examples]
            elif feature.kind in BAGS:
                position = position * rows[str(feature.table)] + batch.bags[feature.name].values
            else:
                position = position * rows[str(feature.table)] + batch.ids[feature.name][examples]
        return Entries(examples, position, values)

    def _examples(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The example of each entry, and the share of the example that the entry is, shape (N,) each."""
        for feature in self.fields:
            if feature.kind in BAGS:
                bag = batch.bags[feature.name]
                places = torch.arange(bag.values.shape[0], device=bag.values.device)
                # Several examples may begin at one place; only the last of them is not empty.
                examples = torch.searchsorted(bag.offsets, places, right=True) - 1
                if feature.pooling == "sum":
                    return examples, torch.ones_like(examples, dtype=torch.float32)
                count = torch.zeros_like(bag.offsets).index_add(0, examples, torch.ones_like(examples))
                return examples, 1.0 / count[examples]
        first = self.fields[0]
        column = batch.numbers[first.name] if first.kind == "number" else batch.ids[first.name]
        # The shape, not len: an exported function must take any number of examples.
        examples = torch.arange(column.shape[0], device=column.device)
        return examples, torch.ones_like(examples, dtype=torch.float32)


class LinearModel(RankingModel):
    """A linear model; its weights are 0 until ``linear_fit.fit`` sets them.

    Args:
        config: Configuration of the model.
        schema: Schema of the examples.
        rows: Number of rows of each table of categories, row 0 included, by the name of the field that owns it.

    Attributes:
        bias: Logits without any field, b, shape (tasks,).
        terms: Terms of the model, in order.
        weights: Weights of each term, shape (rows of the term, tasks).

    Raises:
        ConfigError: A field is not in the schema or not of a kind that the model can use, or a term has too many
            weights.
    """

    def __init__(self, config: LinearConfig, schema: Schema, rows: Mapping[str, int]) -> None:
        super().__init__(config, schema, rows)
        self.terms = config.terms(schema)
        for term in self.terms:
            if term.weights(rows) > MOST_WEIGHTS:
                raise ConfigError(
                    f"{config.kind}: {term.name} has {term.weights(rows):,} weights, at most {MOST_WEIGHTS:,} can be "
                    "fitted; leave it out, or hash a feature into fewer buckets"
                )
        tasks = len(schema.labels)
        self.bias = nn.Parameter(torch.zeros(tasks))
        self.weights = nn.ParameterList(torch.zeros(term.weights(rows), tasks) for term in self.terms)

    def forward(self, batch: Batch) -> Tensor:
        """Logits, shape (B, tasks)."""
        logits = self.bias.expand(examples_of(batch), -1)
        for term, weights in zip(self.terms, self.weights, strict=True):
            entries = term.entries(batch, self.rows)
            logits = logits.index_add(0, entries.examples, weights[entries.rows] * entries.values[:, None])
        return logits


def examples_of(batch: Batch) -> int:
    """Number of examples of a batch, from its fields: a scoring function has neither labels nor users."""
    columns = [*batch.ids.values(), *batch.numbers.values(), *(bag.offsets for bag in batch.bags.values())]
    return columns[0].shape[0]


def _once(schema: Schema) -> Sequence[FieldConfig]:
    """The first field of each column: parts of a network have fields of their own, a linear model has one."""
    first: dict[str, FieldConfig] = {}
    for feature in schema.features:
        first.setdefault(feature.source, feature)
    return list(first.values())


def _field(schema: Schema, name: str) -> FieldConfig:
    names = [feature.name for feature in schema.features]
    if name not in names:
        raise ConfigError(f"{name!r} is not a feature; expected one of {', '.join(names)}")
    return schema.feature(name)
