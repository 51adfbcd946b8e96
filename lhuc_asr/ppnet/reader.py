"""Tables of examples from CSV, TSV and Parquet files, block by block: one block is in memory, not the file.

    files          those of ``table_files.py``; a CSV file is one piece; each row group of a Parquet file is a piece
      -> pieces    in the files' order, or in a random order
      -> blocks    tables of a fixed number of rows: a column for each field and label, checked (cells.py)

Rows are shuffled within a block. A Parquet file of small row groups is therefore shuffled better than a CSV file, whose
rows always come in its order. Prefer Parquet for rows that are sorted, by time or by user.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lhuc_asr.base.errors import ExamplesError
from lhuc_asr.base.extras import extra
from lhuc_asr.ppnet.cells import Place, check_type, read_cells
from lhuc_asr.ppnet.schema import FieldConfig, Schema
from lhuc_asr.ppnet.table_files import TableFile, listed, one_line, table_files

with extra("rank"):
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.csv as pacsv
    import pyarrow.parquet as pq

logger = logging.getLogger(__name__)

# What pyarrow raises for a damaged file; the last for names of columns.
READING_ERRORS = (pa.ArrowException, OSError, UnicodeDecodeError)

# Number of rows that are decoded at once: some megabytes.
SLICE = 16_384
# Number of bytes of a CSV file that are decoded at once: a row may not be longer.
CSV_BLOCK = 2**23

# The first bytes of files that a name says to be text.
OTHER_KINDS = {
    b"PAR1": "a Parquet file; call it .parquet",
    b"PK\3\4": "a ZIP archive or a spreadsheet; save the table as CSV",
    b"\x1f\x8b": "packed with gzip; call it .csv.gz or .tsv.gz",
    b"\xff\xfe": "text in UTF-16; save it as UTF-8",
    b"\xfe\xff": "text in UTF-16; save it as UTF-8",
}


@dataclass(frozen=True)
class _Piece:
    """Rows that are read one after the other: a CSV file, or one row group of a Parquet file."""

    file: TableFile
    first_row: int = 0
    row_group: int | None = None
    lone_column: bool = False


class Reader:
    """Reader of files of one schema.

    Args:
        paths: Files, folders and patterns, see ``table_files.py``; together they are one table.
        schema: Schema of the table.
        labelled: Whether the labels are read too; otherwise the files may lack them.

    Attributes:
        files: Files of the table.

    Raises:
        ExamplesError: No file is given; a file is missing, empty or of another kind; a column is missing or of a type
            that does not fit. Values are checked as they are read.
    """

    def __init__(self, paths: Sequence[Path], schema: Schema, labelled: bool = True) -> None:
        self.schema = schema
        # Name in the tables, column of the file, and field: None for a label.
        self._columns: list[tuple[str, str, FieldConfig | None]] = [
            (feature.name, feature.source, feature) for feature in schema.features
        ]
        if labelled:
            self._columns += [(label, label, None) for label in schema.labels]
        self._sources = list(dict.fromkeys(source for _, source, _ in self._columns))
        self._metadata: dict[Path, pq.FileMetaData] = {}
        self.files = table_files(paths)
        self._pieces = [piece for file in self.files for piece in self._open(file)]
        if not self._pieces:
            raise ExamplesError(f"{listed(paths)}: no file has rows, expected at least one example")

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

    def _open(self, file: TableFile) -> list[_Piece]:
        """Check the columns of a file, and list its pieces."""
        if file.delimiter is None:
            return self._open_parquet(file)
        names, has_rows = _csv_start(file)
        self._check_names(file, names)
        return [_Piece(file, lone_column=len(names) == 1)] if has_rows or self._may_be_empty(file) else []

    def _open_parquet(self, file: TableFile) -> list[_Piece]:
        path = file.path
        try:
            with pq.ParquetFile(path) as parquet:
                metadata, types = parquet.metadata, parquet.schema_arrow
        except READING_ERRORS as error:
            raise ExamplesError(f"{path}: not a Parquet file ({one_line(error)}); copy or make it again") from error
        self._check_names(file, _names(file, types))
        for _, source, feature in self._columns:
            check_type(Place(path, source), types.field(source).type, feature)
        self._metadata[path] = metadata
        counts = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        if not sum(counts) and not self._may_be_empty(file):
            return []
        # Row groups without rows too: the order that a seed draws depends on the number of pieces.
        return [_Piece(file, sum(counts[:group]), group) for group in range(len(counts))]

    def _may_be_empty(self, file: TableFile) -> bool:
        """Leave a file without rows out, if it is one of a folder or a pattern; False."""
        if file.named:
            raise ExamplesError(f"{file.path}: has no rows, expected at least one example")
        logger.info("%s: has no rows", file.path)
        return False

    def _check_names(self, file: TableFile, names: list[str]) -> None:
        for source in self._sources:
            if names.count(source) != 1:
                problem = "appears twice" if source in names else f"is missing; the file has {listed(names)}"
                raise ExamplesError(f"{file.path}: column {source!r} {problem}{_other_delimiter(file, names)}")

    def _read(self, piece: _Piece) -> Iterator[pa.Table]:
        """Read the rows of a piece, some at a time."""
        row, path = piece.first_row, piece.file.path
        try:
            for batch in self._batches(piece):
                yield pa.table(
                    {
                        name: read_cells(Place(path, source, row), batch.column(source), feature)
                        for name, source, feature in self._columns
                    }
                )
                row += batch.num_rows
        except READING_ERRORS as error:
            raise ExamplesError(
                f"{path}: cannot be read after row {row} ({_fault(error)}); copy or make it again"
            ) from error

    def _batches(self, piece: _Piece) -> Iterator[pa.RecordBatch]:
        if piece.row_group is None:
            categories = {source for _, source, feature in self._columns if feature and feature.kind != "number"}
            row = 0
            with _csv_stream(piece.file, self._sources, piece.lone_column) as reader:
                for batch in reader:
                    for source in categories:
                        _refuse_line_breaks(Place(piece.file.path, source, row), batch.column(source))
                    yield batch
                    row += batch.num_rows
            return
        with pq.ParquetFile(piece.file.path, metadata=self._metadata[piece.file.path]) as file:
            # One thread: the trainer's threads have the cores, and nothing is decoded ahead of its use.
            yield from file.iter_batches(SLICE, [piece.row_group], self._sources, use_threads=False)


def _names(file: TableFile, schema: pa.Schema) -> list[str]:
    try:
        return list(schema.names)
    except UnicodeDecodeError as error:
        raise ExamplesError(
            f"{file.path}: the names of the columns are not UTF-8 ({error}); save it as UTF-8"
        ) from error


def _csv_start(file: TableFile) -> tuple[list[str], bool]:
    """The names of a CSV file's columns, and whether it has rows."""
    try:
        with pa.input_stream(file.path, compression=file.compression) as stream:
            start = stream.read(4)
        for magic, kind in OTHER_KINDS.items():
            if start.startswith(magic):
                raise ExamplesError(f"{file.path}: is {kind}")
        if not start:
            raise ExamplesError(f"{file.path}: is empty; expected a line with the names of the columns, then examples")
        with _csv_stream(file) as reader:
            return _names(file, reader.schema), next(iter(reader), None) is not None
    except READING_ERRORS as error:
        raise ExamplesError(f"{file.path}: not a CSV file ({_fault(error)}); copy or make it again") from error


def _csv_stream(file: TableFile, columns: Sequence[str] = (), lone: bool = False) -> pacsv.CSVStreamingReader:
    """The rows of a CSV file as bytes.

    Args:
        file: The file.
        columns: Names of the columns to read; all columns, of any type, where none are named.
        lone: Whether the file has one column only, so that an empty line is an empty cell.
    """
    stream = pa.input_stream(file.path, compression=file.compression)
    return pacsv.open_csv(
        stream,
        # One thread: with more an error does not name its row.
        pacsv.ReadOptions(use_threads=False, block_size=CSV_BLOCK),
        pacsv.ParseOptions(delimiter=file.delimiter, newlines_in_values=True, ignore_empty_lines=not lone),
        pacsv.ConvertOptions(
            column_types={name: pa.binary() for name in columns},
            include_columns=list(columns),
            strings_can_be_null=False,
        ),
    )


def _refuse_line_breaks(place: Place, cells: pa.Array) -> None:
    """Refuse a cell with a line break: a quote that is never closed makes one cell of all the rows after it."""
    row = pc.index(pc.match_substring_regex(cells, "[\r\n]"), True).as_py()
    if row >= 0:
        raise place.wrong(row, "a line break within the cell: is a quote not closed? write it without")


def _other_delimiter(file: TableFile, names: list[str]) -> str:
    """A guess for the message about a file whose line is one column."""
    others = [mark for mark in ",;\t|" if mark != file.delimiter and len(names) == 1 and mark in names[0]]
    return f"; are its cells separated by {others[0]!r}? save them with commas, or with tabs as .tsv" if others else ""


def _fault(error: Exception) -> str:
    if "straddling object" in str(error):
        return f"a row is longer than {CSV_BLOCK >> 20} MB, or a quote is not closed"
    return one_line(error)
