"""Files are read whole, in blocks, or refused with file, row and column."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lhuc_asr.base.errors import ExamplesError
from lhuc_asr.ppnet.cells import LABELS
from lhuc_asr.ppnet.reader import Reader
from lhuc_asr.ppnet.schema import FieldConfig, Schema

SCHEMA = Schema(
    features=(
        FieldConfig(name="user", kind="id"),
        FieldConfig(name="age", kind="number"),
        FieldConfig(name="genres", kind="multi"),
    ),
    labels=("click",),
    user="user",
)
COLUMNS: dict[str, list[Any]] = {
    "user": ["7", "8", "7"],
    "age": [20.5, -3.0, 1e3],
    "genres": [["Drama", "War"], [], ["War"]],
    "click": [1, 0, 1],
}
CSV = "click,ignored,genres,user,age\n1,x,Drama|War,7,20.5\n0,,,8, -3\n1,z,War,7,1e3\n"


def parquet(path: Path, row_group_size: int = 2, **changed: Any) -> Path:
    pq.write_table(pa.table(COLUMNS | changed), path, row_group_size=row_group_size)
    return path


def text(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def read(*paths: Path, rows: int = 100, labelled: bool = True) -> dict[str, list[Any]]:
    return pa.concat_tables(Reader(paths, SCHEMA, labelled).blocks(rows)).to_pydict()


def test_csv_and_parquet_say_the_same(tmp_path: Path) -> None:
    assert read(text(tmp_path / "a.csv", CSV)) == COLUMNS
    assert read(parquet(tmp_path / "a.parquet")) == COLUMNS


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        ("user", pa.array([7, 8, 7])),
        ("user", pa.array(["7", "8", "7"]).dictionary_encode()),
        ("user", pa.array(["7", "8", "7"], pa.large_string())),
        ("genres", pa.array(["Drama|War", "", "War"])),
        ("genres", pa.array([["Drama", "War"], [], ["War"]], pa.large_list(pa.large_string()))),
        ("click", pa.array([True, False, True])),
        ("user", pa.array([7, 8, 7], pa.int8())),
        ("user", pa.array([7, 8, 7], pa.uint64())),
        ("user", pa.array([7.0, 8.0, 7.0])),
        ("user", pa.array([7.0, 8.0, 7.0], pa.float16())),
        ("user", pa.array([Decimal("7.00"), Decimal("8.00"), Decimal("7.00")])),
        ("user", pa.array([7.0, 8.0, 7.0]).dictionary_encode()),
        ("user", pa.array([b"7", b"8", b"7"])),
        ("user", pa.array([b"7", b"8", b"7"], pa.binary(1))),
        ("genres", pa.array([["Drama", "War"], [], ["War"]], pa.list_(pa.dictionary(pa.int32(), pa.string())))),
        ("genres", pa.array([b"Drama|War", b"", b"War"])),
        ("age", pa.array([Decimal("20.5"), Decimal(-3), Decimal(1000)])),
        ("age", pa.array([20.5, -3.0, 1e3]).dictionary_encode()),
        ("age", pa.array([20.5, -3.0, 1000.0], pa.float16())),
        ("click", pa.array([1.0, 0.0, 1.0])),
        ("click", pa.array([True, False, True]).dictionary_encode()),
        ("click", pa.array([Decimal(1), Decimal(0), Decimal(1)])),
    ],
)
def test_a_parquet_file_may_hold_the_same_in_other_types(column: str, cells: pa.Array, tmp_path: Path) -> None:
    assert read(parquet(tmp_path / "a.parquet", **{column: cells})) == COLUMNS


def test_without_labels_the_files_need_not_have_any(tmp_path: Path) -> None:
    columns = read(text(tmp_path / "a.csv", "user,age,genres\n7,1,War\n"), labelled=False)
    assert columns == {"user": ["7"], "age": [1.0], "genres": [["War"]]}


@pytest.mark.parametrize("rows", [1, 3, 4, 7, 100])
def test_blocks_are_of_the_size_that_is_asked_for(rows: int, tmp_path: Path) -> None:
    """Whatever the sizes of the files and of their row groups."""
    paths = []
    for index, count in enumerate([5, 1, 12]):
        columns = {name: (cells * count)[:count] for name, cells in COLUMNS.items()}
        columns["age"] = [100.0 * index + row for row in range(count)]
        paths.append(parquet(tmp_path / f"{index}.parquet", row_group_size=5, **columns))
    blocks = list(Reader(paths, SCHEMA).blocks(rows))
    assert [block.num_rows for block in blocks] == [rows] * (18 // rows) + [18 % rows] * (18 % rows > 0)
    ages = pa.concat_tables(blocks)["age"].to_pylist()
    assert ages == [0, 1, 2, 3, 4, 100, *range(200, 212)]
    drawn = list(Reader(paths, SCHEMA).blocks(rows, np.random.default_rng(3)))
    shuffled = pa.concat_tables(drawn)["age"].to_pylist()
    assert shuffled != ages
    assert sorted(shuffled) == ages


WRONG_TYPES = [
    ("user", pa.array([0, 1, 2], pa.timestamp("s")), r"'user' holds timestamp.*; feature 'user' of kind id needs text"),
    ("age", ["1", "2", "3"], "'age' holds string; feature 'age' of kind number needs numbers"),
    ("genres", [1, 2, 3], "'genres' holds int64; feature 'genres' of kind multi needs lists"),
    ("click", ["1", "0", "1"], "'click' holds string; the label needs 0 and 1"),
]


@pytest.mark.parametrize(("column", "cells", "message"), WRONG_TYPES)
def test_a_parquet_column_of_another_type_is_refused_unread(
    column: str, cells: list[Any], message: str, tmp_path: Path
) -> None:
    path = parquet(tmp_path / "a.parquet", **{column: cells})
    with pytest.raises(ExamplesError, match=message) as caught:
        Reader([path], SCHEMA)
    assert str(caught.value).startswith(f"{path}: column ")


EMPTY = "the cell is empty; give a value, leave the row out, or let feature {!r} say what it means (missing: {})"
NO_USER, NO_AGE, NO_GENRES = (
    EMPTY.format("user", "unseen"),
    EMPTY.format("age", "mean or zero"),
    EMPTY.format("genres", "empty"),
)
WRONG_CELLS = [
    ("user", ["7", "8", None], NO_USER),
    ("user", ["7", "8", ""], NO_USER),
    ("user", ["7", "8", "  "], NO_USER),
    ("user", [7.0, 8.0, float("nan")], NO_USER),
    ("user", [7.0, 8.0, 8.5], "8.5 is not a whole number; a category is text or an integer"),
    ("user", [7.0, 8.0, 2.0**60], "1.152921504606847e+18 is not a whole number; a category is text or an integer"),
    (
        "user",
        pa.array([7.0, 8.0, 2.0**25], pa.float32()),
        "33554432.0 is not a whole number; a category is text or an integer",
    ),
    (
        "user",
        [Decimal("7.0"), Decimal("8.0"), Decimal("8.5")],
        "8.5 is not a whole number; a category is text or an integer",
    ),
    ("user", pa.array([b"7", b"8", b"\xe9"]), r"b'\xe9' is not UTF-8 text; save the file as UTF-8"),
    ("age", [1.0, 2.0, float("nan")], "nan is not a finite number"),
    ("age", [1.0, 2.0, float("-inf")], "-inf is not a finite number"),
    ("age", [1.0, 2.0, None], NO_AGE),
    ("genres", [["War"], [], ["War", None]], "one of the categories is empty"),
    ("genres", [["War"], [], ["", "War"]], "one of the categories is empty"),
    ("genres", [["War"], [], None], NO_GENRES),
    ("click", [0, 1, 2], "a label is 0 or 1, found 2.0"),
    ("click", [0.0, 1.0, 0.5], "a label is 0 or 1, found 0.5"),
    ("click", [0.0, 1.0, float("nan")], "nan is not a finite number"),
    ("click", [0, 1, None], "the cell is empty; give a label, or leave the row out"),
]


@pytest.mark.parametrize(("column", "cells", "message"), WRONG_CELLS)
def test_a_bad_cell_is_named(column: str, cells: list[Any], message: str, tmp_path: Path) -> None:
    """The third row, which is the first of the second row group."""
    path = parquet(tmp_path / "a.parquet", **{column: cells})
    with pytest.raises(ExamplesError) as caught:
        read(path)
    assert str(caught.value) == f"{path}: row 3, column {column!r}: {message}"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,x,War,7,old", "row 4, column 'age': 'old' is not a number"),
        ("1,x,War,7,", f"row 4, column 'age': {NO_AGE}"),
        ("1,x,War,7,NaN", "row 4, column 'age': nan is not a finite number"),
        ("1,x,War,,1", f"row 4, column 'user': {NO_USER}"),
        ("1,x,War||Drama,7,1", "row 4, column 'genres': one of the categories is empty"),
        ("maybe,x,War,7,1", f"row 4, column 'click': 'maybe' is not a label; {LABELS}"),
        (",x,War,7,1", "row 4, column 'click': the cell is empty; give a label, or leave the row out"),
        (
            '1,x,War,"7\n1,x,War,7",1',
            "row 4, column 'user': a line break within the cell: is a quote not closed? write it without",
        ),
        (
            '1,x,War,"7\r1,x,War,7",1',
            "row 4, column 'user': a line break within the cell: is a quote not closed? write it without",
        ),
        ("2,x,War,7,1", "row 4, column 'click': a label is 0 or 1, found 2.0"),
    ],
)
def test_a_bad_cell_of_a_csv_file_is_named(line: str, message: str, tmp_path: Path) -> None:
    path = text(tmp_path / "a.csv", f"{CSV}{line}\n")
    with pytest.raises(ExamplesError) as caught:
        read(path)
    assert str(caught.value) == f"{path}: {message}"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "is empty; expected a line with the names of the columns"),
        ("a.csv", "click,genres,user,age\n", "has no rows, expected at least one example"),
        ("a.csv", "click,genres,user\n1,War,7\n", "column 'age' is missing; the file has 'click', 'genres', 'user'"),
        ("a.csv", "click,genres,user,age,age\n1,War,7,1,1\n", "column 'age' appears twice"),
        ("a.csv", "click,genres,user,age\n1,War,7,1\n1,War,7\n", "Row #3: Expected 4 columns, got 3"),
        ("a.parquet", "PAR1", "not a Parquet file"),
        ("a.txt", CSV, r"cannot read examples from such a file; give \.csv, \.tsv .* or \.parquet files"),
    ],
)
def test_a_file_that_is_not_a_table_is_refused(name: str, content: str, message: str, tmp_path: Path) -> None:
    path = text(tmp_path / name, content)
    with pytest.raises(ExamplesError, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_files_that_hold_nothing_are_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty.parquet"
    pq.write_table(pa.table(COLUMNS).slice(0, 0), empty)
    with pytest.raises(ExamplesError, match=r"empty\.parquet: has no rows"):
        Reader([empty], SCHEMA)
    with pytest.raises(ExamplesError, match=r"gone\.csv: no such file"):
        Reader([tmp_path / "gone.csv"], SCHEMA)
    with pytest.raises(ExamplesError, match="no file of examples"):
        Reader([], SCHEMA)


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    """Its footer says what is there; the data is damaged."""
    path = parquet(tmp_path / "a.parquet")
    content = bytearray(path.read_bytes())
    content[4:40] = bytes(36)
    path.write_bytes(content)
    with pytest.raises(ExamplesError, match="cannot be read after row 0"):
        read(path)


def test_integers_beyond_what_a_double_holds_are_rounded(tmp_path: Path) -> None:
    """As a time in nanoseconds is."""
    nanoseconds = 1_700_000_000_123_456_789
    columns = read(parquet(tmp_path / "a.parquet", age=pa.array([nanoseconds] * 3)))
    assert columns["age"] == [float(nanoseconds)] * 3


@pytest.mark.parametrize("column", ["user", "genres"])
def test_a_parquet_files_text_that_is_not_utf8_is_refused(column: str, tmp_path: Path) -> None:
    latin = pa.array([b"7", b"\xe9t\xe9", b"7"], pa.binary()).view(pa.string())
    path = parquet(tmp_path / "a.parquet", row_group_size=3, **{column: latin})
    with pytest.raises(ExamplesError, match=rf"a\.parquet: row 2, column '{column}': b'\\xe9t\\xe9' is not UTF-8 text"):
        read(path)


@pytest.mark.parametrize("header", [b"\xe9ge,user,age,genres,click", b"user,\xe9ge,age,genres,click"])
def test_names_of_columns_that_are_not_utf8_are_refused(header: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(header + b"\n7,1,1,War,1\n")
    with pytest.raises(ExamplesError, match=r"a\.csv: the names of the columns are not UTF-8"):
        read(tmp_path / "a.csv")


@pytest.mark.parametrize("cell", ["1e39", "-1e300"])
def test_a_number_that_32_bits_cannot_hold_is_refused(cell: str, tmp_path: Path) -> None:
    path = text(tmp_path / "a.csv", f"user,age,genres,click\n7,1,War,0\n7,{cell},War,0\n")
    with pytest.raises(ExamplesError, match=r"a\.csv: row 2, column 'age': .* is larger than 1e\+38"):
        read(path)


def test_a_row_group_without_rows_counts_in_the_order_that_a_seed_draws(tmp_path: Path) -> None:
    """As those of examples made before have: a seed must give the same batches as it did."""
    table = pa.table(COLUMNS)
    with pq.ParquetWriter(tmp_path / "a.parquet", table.schema) as writer:
        writer.write_table(table)
        writer.write_table(table.slice(0, 0))
    drawn, expected = np.random.default_rng(3), np.random.default_rng(3)
    (block,) = Reader([tmp_path / "a.parquet"], SCHEMA).blocks(100, drawn)
    assert block.to_pydict() == COLUMNS
    expected.permutation(2)
    assert drawn.random() == expected.random()
