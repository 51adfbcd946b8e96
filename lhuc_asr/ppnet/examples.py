"""Mini-batches of examples, streamed from files and shuffled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from lhuc_asr.base.extras import extra
from lhuc_asr.ppnet.batch import Bag, Batch
from lhuc_asr.ppnet.reader import Reader
from lhuc_asr.ppnet.schema import BAGS, FieldConfig, Schema
from lhuc_asr.ppnet.unseen import report_unseen, uncounted
from lhuc_asr.ppnet.vocabulary import Vocabularies, flat, hashes

with extra("rank"):
    import pyarrow as pa

# Rows that are shuffled together; about 30 MB with ten fields.
BLOCK = 131_072


class Examples:
    """The examples of some files, encoded by a schema and its vocabularies.

    Args:
        paths: Files, folders and patterns, see ``table_files.py``; together they are one table.
        schema: Schema of the table.
        vocabularies: Vocabularies fitted on training data.
        labelled: Whether the labels are read too.

    Attributes:
        coverage: Coverage of each field by the vocabularies, in what the last pass over the examples has read so far.

    Raises:
        ExamplesError: A file cannot be read or does not fit the schema, see ``Reader``.
    """

    def __init__(
        self, paths: Sequence[Path], schema: Schema, vocabularies: Vocabularies, labelled: bool = True
    ) -> None:
        self._reader = Reader(paths, schema, labelled)
        self._schema = schema
        self._vocabularies = vocabularies
        self._labels = schema.labels if labelled else ()
        self.coverage = uncounted(schema, vocabularies)

    @property
    def files(self) -> list[Path]:
        """The files that the paths name."""
        return [file.path for file in self._reader.files]

    def report_unseen(self, where: str) -> None:
        """Log the share of unseen categories in the last pass, and warn where it is suspicious.

        Args:
            where: What was read, for the message.
        """
        report_unseen(self.coverage, self._schema, self._vocabularies, where)

    def batches(self, size: int, seed: int | Sequence[int] | None = None, block: int = BLOCK) -> Iterator[Batch]:
        """All examples once, in mini-batches; the last one may be smaller.

        Args:
            size: Number of examples in a mini-batch, B.
            seed: Seed of the order, such as (seed, epoch); the same seed gives the same batches. None for the
                files' order.
            block: Number of examples that are in memory and shuffled together, rounded down to whole mini-batches.

        Raises:
            ExamplesError: A cell does not fit the schema.
        """
        self.coverage = uncounted(self._schema, self._vocabularies)
        generator = None if seed is None else np.random.default_rng(seed)
        for table in self._reader.blocks(max(size, block - block % size), generator):
            whole = self._encode(table)
            order = np.arange(len(whole)) if generator is None else generator.permutation(len(whole))
            for rows in torch.from_numpy(order).split(size):
                yield whole.take(rows)

    def _encode(self, table: pa.Table) -> Batch:
        """A block of rows as one batch."""
        ids, bags, numbers = {}, {}, {}
        for feature in self._schema.features:
            column = table.column(feature.name).combine_chunks()
            if feature.kind == "number":
                standard = self._vocabularies.numbers[feature.name]
                known = column.fill_null(standard.mean).to_numpy()
                numbers[feature.name] = torch.from_numpy(standard.of(known).astype(np.float32))
            elif feature.kind in BAGS:
                bags[feature.name] = self._bag(feature, column)
            else:
                ids[feature.name] = torch.from_numpy(self._rows(feature, column))
        labels = [torch.from_numpy(table.column(name).to_numpy().astype(np.float32)) for name in self._labels]
        return Batch(
            ids,
            bags,
            numbers,
            torch.stack(labels, dim=1) if labels else torch.empty(table.num_rows, 0),
            torch.from_numpy(hashes(table.column(self._schema.user).combine_chunks())),
        )

    def _rows(self, feature: FieldConfig, categories: pa.Array) -> np.ndarray:
        rows = self._vocabularies.encode(str(feature.table), categories)
        unknown = self._vocabularies.unknown(str(feature.table), categories)
        self.coverage[feature.name] = self.coverage[feature.name].counted(categories, unknown)
        return rows

    def _bag(self, feature: FieldConfig, lists: pa.ListArray) -> Bag:
        rows = torch.from_numpy(self._rows(feature, flat(lists)))
        lengths = torch.from_numpy(lists.value_lengths().to_numpy().astype(np.int64))
        kept = lengths.clamp(max=feature.max_length)
        return Bag.of_parts(rows, lengths.cumsum(0) - kept, kept)  # the latest come last
