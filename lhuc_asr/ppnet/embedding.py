"""Embeddings of a batch's fields, side by side in the schema's order.

Row 0 of every table stands for categories that training has not seen. It starts at zero. In the tables of shared fields
it learns like any other row where training meets it (rare categories count as unseen). In the tables of a gate it stays
zero: an unknown id carries no information.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from lhuc_asr.lhuc.gate import check_sizes
from lhuc_asr.ppnet.batch import Batch
from lhuc_asr.ppnet.schema import FieldConfig

# Standard deviation of the initial values: small beside what is learned, so that a rare category stays near zero.
DEVIATION = 0.05


class Embeddings(nn.Module):
    """The embeddings of one group of fields.

    Args:
        features: Fields of the group, at least one.
        rows: Number of rows of each table, row 0 included, by the name of the field that owns it.
        generator: Draws the initial values.

    Attributes:
        width: Length of all embeddings of an example together, E.
        tables: Tables of the fields that own one, in order, shape (rows, embedding).
        vectors: Vectors of the number fields, in order, shape (embedding,).
        sparse: Whether the gradient of a table is sparse, over the rows that took part, as row-wise optimizers need it.

    Raises:
        ConfigError: There is no field.
    """

    def __init__(self, features: Sequence[FieldConfig], rows: Mapping[str, int], generator: torch.Generator) -> None:
        super().__init__()
        self.features = tuple(features)
        check_sizes("a module of embeddings", features=len(self.features))
        self.width = sum(feature.embedding for feature in features)
        self.sparse = False
        # Lists, not dictionaries: a field may have any name, a module's parameter may not.
        owners = [feature for feature in features if feature.table == feature.name]
        self.tables = nn.ParameterList(_table(rows[owner.name], owner.embedding, generator) for owner in owners)
        self._number_of = {owner.name: number for number, owner in enumerate(owners)}
        numbers = [feature for feature in features if feature.kind == "number"]
        self.vectors = nn.ParameterList(
            nn.Parameter(DEVIATION * torch.randn(feature.embedding, generator=generator)) for feature in numbers
        )
        self._vector_of = {feature.name: number for number, feature in enumerate(numbers)}

    def forward(self, batch: Batch) -> Tensor:
        """The embeddings of all fields, shape (B, E)."""
        return torch.cat([self._embed(feature, batch) for feature in self.features], 1)

    def table(self, feature: FieldConfig) -> Tensor:
        """The table that a field uses, its own or another field's."""
        table: Tensor = self.tables[self._number_of[str(feature.table)]]
        return table

    def _embed(self, feature: FieldConfig, batch: Batch) -> Tensor:
        """The embeddings of one field, shape (B, embedding)."""
        if feature.kind == "number":
            vector: Tensor = self.vectors[self._vector_of[feature.name]]
            return batch.numbers[feature.name][:, None] * vector
        table = self.table(feature)
        untrained = None if feature.group == "shared" else 0
        if feature.name in batch.ids:
            return functional.embedding(batch.ids[feature.name], table, untrained, sparse=self.sparse)
        bag = batch.bags[feature.name]
        return functional.embedding_bag(
            bag.values, table, bag.offsets, mode=feature.pooling, sparse=self.sparse, padding_idx=untrained
        )


def _table(rows: int, width: int, generator: torch.Generator) -> nn.Parameter:
    values = DEVIATION * torch.randn(rows, width, generator=generator)
    values[0] = 0.0
    return nn.Parameter(values)
