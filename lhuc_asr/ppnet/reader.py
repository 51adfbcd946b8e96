"""Tables of examples from CSV and Parquet files, block by block: one block is in memory, not the file.

    files          a CSV file is one piece; each row group of a Parquet file is a piece
      -> pieces    in the files' order, or in a random order
      -> blocks    tables of a fixed number of rows: a column for each field and label, checked (cells.py)

Rows are shuffled within a block. A Parquet file of small row groups is therefore shuffled better than a CSV file, whose
rows always come in its order. Prefer Parquet for rows that are sorted, by time or by user.
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

# Number of rows that are decoded at once: some megabytes.
SLICE = 16_384


@dataclass(frozen=True)
class _Piece:
    """Rows that are read one after the other: a CSV file, or one row group of a Parquet file."""

    path: Path
    first_row: int = 0
    row_group: int | None = None


class Reader:
    """Reader of files of one schema.

    Args:
        paths: ``.csv`` and ``.parquet`` files; together they are one table.
        schema: Schema of the table.
        labelled: Whether the labels are read too; otherwise the files may lack them.

    Raises:
        ExamplesError: No file is given; a file is missing, empty or of another kind; a column is missing or of a type
            that does not fit. Values are checked as they are read.
    """

    def __init__(self, paths: Sequence[Path], schema: Schema, labelled: bool = True) -> None:
        if not paths:
            raise ExamplesError("no file of examples is given, expected at least one")
        self.schema = schema
        # Name in the tables, column of the file, and field: None for a label.
        self._columns: list[tuple[str, str, FieldConfig | None]] = [
            (feature.name, feature.source, feature) for feature in schema.features
        ]
        if labelled:
            self._columns += [(label, label, None) for label in schema.labels]
        self._sources = list(dict.fromkeys(source for _, source, _ in self._columns))
        self._metadata: dict[Path, pq.FileMetaData] = {}
        self._pieces = [piece for path in paths for piece in self._open(path)]

    def blocks(self, rows: int, generator: np.random.Generator | None = None) -> Iterator[pa.Table]:
        """Read all rows in blocks; the last block has the rows that are left.

        Args:
            rows: Number of rows in a block.
            generator: Draws the order of the pieces; None for the files' order.

        Yields:
            Tables with a column for each field and each label, by name.

        Raises:
            ExamplesError: A cell does not fit the schema; the message names file, row and column.
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
        """Check the columns of a file, and list its pieces."""
        if not path.is_file():
            raise ExamplesError(f"{path}: no such file; name files of examples")
        if path.suffix == ".csv":
            self._check_names(path, _names(path, _csv_stream(path).schema))
            return [_Piece(path)]
        if path.suffix != ".parquet":
            raise ExamplesError(f"{path}: cannot read examples from such a file; give .csv or .parquet files")
        try:
            with pq.ParquetFile(path) as file:
                metadata, types = file.metadata, file.schema_arrow
        except (pa.ArrowException, OSError) as error:
            raise ExamplesError(f"{path}: not a Parquet file ({error}); copy or make it again") from error
        self._check_names(path, _names(path, types))
        if metadata.num_rows == 0:
            raise ExamplesError(f"{path}: has no rows, expected at least one example")
        for _, source, feature in self._columns:
            check_type(Place(path, source), types.field(source).type, feature)
        self._metadata[path] = metadata
        counts = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        return [_Piece(path, sum(counts[:group]), group) for group in range(len(counts))]

    def _check_names(self, path: Path, names: list[str]) -> None:
        for source in self._sources:
            if names.count(source) != 1:
                problem = "appears twice" if source in names else f"is missing; the file has {', '.join(names)}"
                raise ExamplesError(f"{path}: column {source!r} {problem}")

    def _read(self, piece: _Piece) -> Iterator[pa.Table]:
        """Read the rows of a piece, some at a time."""
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
            raise ExamplesError(
                f"{piece.path}: cannot be read after row {row} ({error}); copy or make it again"
            ) from error
        if row == 0:
            raise ExamplesError(
                f"{piece.path}: has no rows below the names of the columns, expected at least one example"
            )

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
    """The rows of a CSV file as text; all columns where none are named."""
    options = pacsv.ConvertOptions(
        column_types={name: pa.string() for name in columns},
        include_columns=list(columns),
        strings_can_be_null=False,
    )
    try:
        # One thread: with more an error does not name its row.
        return pacsv.open_csv(path, pacsv.ReadOptions(use_threads=False), convert_options=options)
    except (pa.ArrowException, OSError) as error:
        raise ExamplesError(f"{path}: not a CSV file ({error}); copy or make it again") from error
