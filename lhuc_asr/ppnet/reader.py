"""Tables of examples from CSV and Parquet files, block by block: what is in memory is a block, not the file.

    a,b,label          the files, a CSV file one piece, a Parquet file a piece a row group
      -> pieces        in order, or in an order drawn anew
      -> blocks        tables of so many rows, a column a feature and a label, checked and in the types of cells.py

Rows that are to be mixed are mixed within a block. A Parquet file of small row groups is therefore mixed better than
a CSV file, whose rows always come in its order; where these are sorted, by time or by user, prefer Parquet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from lhuc_asr.base.errors import ExamplesError
from lhuc_asr.ppnet.cells import Place, check_type, read_cells
from lhuc_asr.ppnet.schema import FieldConfig, Schema

# Rows that are decoded at once: some megabytes.
SLICE = 16_384


@dataclass(frozen=True)
class _Piece:
    """Rows that are read in their order: a CSV file, or one row group of a Parquet file."""

    path: Path
    first_row: int = 0
    row_group: int | None = None


class Reader:
    """Files of one schema.

    Args:
        paths: ``.csv`` and ``.parquet`` files; together they are one table.
        schema: What they hold.
        labelled: Whether the labels are read too; without them the files need not have any.

    Raises:
        ExamplesError: No file, one that is missing, empty or of no known kind, a column that is not there or is of
            a type that does not fit. Values are checked as they are read.
    """

    def __init__(self, paths: Sequence[Path], schema: Schema, labelled: bool = True) -> None:
        if not paths:
            raise ExamplesError("no file of examples is given")
        self.schema = schema
        # Name in the tables, column of the file, and what it is: None for a label.
        self._columns: list[tuple[str, str, FieldConfig | None]] = [
            (feature.name, feature.source, feature) for feature in schema.features
        ]
        if labelled:
            self._columns += [(label, label, None) for label in schema.labels]
        self._sources = list(dict.fromkeys(source for _, source, _ in self._columns))
        self._metadata: dict[Path, pq.FileMetaData] = {}
        self._pieces = [piece for path in paths for piece in self._open(path)]

    def blocks(self, rows: int, generator: np.random.Generator | None = None) -> Iterator[pa.Table]:
        """All rows, so many at a time, the last block with what is left.

        Args:
            rows: In a block.
            generator: Draws the order of the pieces; None: as in the files.

        Yields:
            Tables with a column a feature and a label, by their names.

        Raises:
            ExamplesError: A cell is not what the schema says: file, row and column are named.
        """
        order = range(len(self._pieces)) if generator is None else generator.permutation(len(self._pieces))
        waiting: list[pa.Table] = []
        missing = rows
        for table in (table for index in order for table in self._read(self._pieces[index])):
            while table.num_rows >= missing:
                yield pa.concat_tables([*waiting, table.slice(0, missing)])
                table, waiting, missing = table.slice(missing), [], rows
            if table.num_rows:
                waiting.append(table)
                missing -= table.num_rows
        if waiting:
            yield pa.concat_tables(waiting)

    def _open(self, path: Path) -> list[_Piece]:
        """Check the file's columns; list its pieces."""
        if not path.is_file():
            raise ExamplesError(f"{path}: no such file")
        if path.suffix == ".csv":
            self._check_names(path, _names(path, _csv_stream(path).schema))
            return [_Piece(path)]
        if path.suffix != ".parquet":
            raise ExamplesError(f"{path}: examples are read from .csv and .parquet files")
        try:
            with pq.ParquetFile(path) as file:
                metadata, types = file.metadata, file.schema_arrow
        except (pa.ArrowException, OSError) as error:
            raise ExamplesError(f"{path}: not a Parquet file: {error}") from error
        self._check_names(path, _names(path, types))
        if metadata.num_rows == 0:
            raise ExamplesError(f"{path}: there is no row in it")
        for _, source, feature in self._columns:
            check_type(Place(path, source), types.field(source).type, feature)
        self._metadata[path] = metadata
        counts = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        return [_Piece(path, sum(counts[:group]), group) for group in range(len(counts))]

    def _check_names(self, path: Path, names: list[str]) -> None:
        for source in self._sources:
            if names.count(source) != 1:
                found = "is there twice" if source in names else f"is not there; found {', '.join(names)}"
                raise ExamplesError(f"{path}: column {source!r} {found}")

    def _read(self, piece: _Piece) -> Iterator[pa.Table]:
        """The rows of a piece, some at a time."""
        row = piece.first_row
        try:
            for batch in (
                self._parquet(piece) if piece.row_group is not None else _csv_stream(piece.path, self._sources)
            ):
                yield pa.table(
                    {
                        name: read_cells(Place(piece.path, source, row), batch.column(source), feature)
                        for name, source, feature in self._columns
                    }
                )
                row += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise ExamplesError(f"{piece.path}: cannot be read after row {row}: {error}") from error
        if row == 0:
            raise ExamplesError(f"{piece.path}: there is no row below the names of the columns")

    def _parquet(self, piece: _Piece) -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(piece.path, metadata=self._metadata[piece.path]) as file:
            # One thread: the trainer's threads have the cores, and nothing is decoded ahead of its use.
            yield from file.iter_batches(SLICE, [piece.row_group], self._sources, use_threads=False)


def _names(path: Path, schema: pa.Schema) -> list[str]:
    try:
        return list(schema.names)
    except UnicodeDecodeError as error:
        raise ExamplesError(f"{path}: the names of the columns are not UTF-8 ({error}); save it as UTF-8") from error


def _csv_stream(path: Path, columns: Sequence[str] = ()) -> pacsv.CSVStreamingReader:
    """The rows of a CSV file as text; all columns unless some are named."""
    options = pacsv.ConvertOptions(
        column_types={name: pa.string() for name in columns},
        include_columns=list(columns),
        strings_can_be_null=False,
    )
    try:
        # One thread: with more an error does not name its row.
        return pacsv.open_csv(path, pacsv.ReadOptions(use_threads=False), convert_options=options)
    except (pa.ArrowException, OSError) as error:
        raise ExamplesError(f"{path}: not a CSV file: {error}") from error
