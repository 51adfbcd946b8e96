"""Cells of one column of a file, checked and in the type of the schema: text, lists of text, or numbers.

A category is text, whatever the file holds: 7 in one file and "7" in another are the same user. Values may not be
missing: an empty cell, a null or NaN is an error that names the file, the row and the column. Only a field of kind
``sequence`` or ``multi`` may be empty, as an empty text or an empty list.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from lhuc_asr.base.errors import ExamplesError
from lhuc_asr.ppnet.schema import BAGS, FieldConfig

# The networks compute with 32 bits, whose largest number is 3.4e38.
LARGEST = 1e38
TEXTS = pa.list_(pa.string())


@dataclass(frozen=True)
class Place:
    """The origin of cells: a file, a column, and the number of the file's rows before them."""

    path: Path
    column: str
    first_row: int = 0

    def wrong(self, row: int, what: str) -> ExamplesError:
        """The error of one cell.

        Args:
            row: Position of the cell among these cells, from 0; the message counts the file's rows from 1.
            what: What is wrong with it.
        """
        return ExamplesError(f"{self.path}: row {self.first_row + row + 1}, column {self.column!r}: {what}")


def check_type(place: Place, kind: pa.DataType, field: FieldConfig | None) -> None:
    """Check that a Parquet column can hold a field, or a label.

    Args:
        place: Origin of the column.
        kind: Type of the column.
        field: The field; None for a label.

    Raises:
        ExamplesError: The type does not fit.
    """
    if field is None:
        fits, wanted = _is_number(kind) or pa.types.is_boolean(kind), "0 and 1"
    elif field.kind == "number":
        fits, wanted = _is_number(kind), "numbers"
    elif field.kind in BAGS:
        lists = pa.types.is_list(kind) or pa.types.is_large_list(kind)
        fits = _is_category(kind.value_type) if lists else _is_text(kind)
        wanted = f"lists of text or of integers, or text with {field.separator!r} between the categories"
    else:
        fits, wanted = _is_category(kind), "text or integers"
    if not fits:
        name = "the label" if field is None else f"feature {field.name!r} of kind {field.kind}"
        raise ExamplesError(f"{place.path}: column {place.column!r} holds {kind}; {name} needs {wanted}")


def read_cells(place: Place, column: pa.Array, field: FieldConfig | None) -> pa.Array:
    """The cells of a column, checked.

    Args:
        place: Origin of the cells.
        column: The cells as the file holds them, of a type that fits; text, where the file is a CSV file.
        field: The field; None for a label.

    Returns:
        Text for one category per cell, lists of text for several, float64 for numbers and labels.

    Raises:
        ExamplesError: A cell is missing, or is not a number, not finite, too large, or not UTF-8; a label is neither 0
            nor 1.
    """
    try:
        column.validate(full=True)
    except pa.ArrowInvalid as error:  # nothing else checks a Parquet file's text
        raise ExamplesError(f"{place.path}: column {place.column!r}, after row {place.first_row}: {error}") from error
    _refuse(place, pc.is_null(column), "the cell is empty; give a value, or leave the row out")
    if field is None:
        labels = _numbers(place, column)
        _refuse(place, pc.invert(pc.is_in(labels, pa.array([0.0, 1.0]))), "a label is 0 or 1, found {}", labels)
        return labels
    if field.kind == "number":
        return _numbers(place, column)
    if field.kind in BAGS:
        return _lists(place, column, field.separator)
    texts = column.cast(pa.string())
    _refuse(place, pc.equal(texts, ""), "the cell is empty; give a value, or leave the row out")
    return texts


def _numbers(place: Place, column: pa.Array) -> pa.Array:
    if _is_text(column.type):
        column = pc.utf8_trim_whitespace(column)
    try:
        # Integers beyond 2^53, as nanoseconds are, are rounded.
        numbers = column.cast(pa.float64(), safe=not pa.types.is_integer(column.type))
    except pa.ArrowInvalid:
        for row, cell in enumerate(column):
            try:
                cell.cast(pa.float64())
            except pa.ArrowInvalid as error:
                raise place.wrong(row, f"{cell.as_py()!r} is not a number") from error
        raise
    _refuse(place, pc.invert(pc.is_finite(numbers)), "{} is not a finite number", numbers)
    _refuse(
        place,
        pc.greater(pc.abs(numbers), LARGEST),
        f"{{}} is larger than {LARGEST:.0e}, the largest number allowed",
        numbers,
    )
    return numbers


def _lists(place: Place, column: pa.Array, separator: str) -> pa.Array:
    if _is_text(column.type):
        nothing = pc.equal(column, "")
        column = pc.if_else(nothing, pa.scalar([], TEXTS), pc.split_pattern(column.cast(pa.string()), separator))
    lists = column.cast(TEXTS)
    items = lists.flatten()
    bad = pc.or_kleene(pc.is_null(items), pc.equal(items, ""))
    if pc.any(bad).as_py():
        row = pc.list_parent_indices(lists)[pc.index(pc.fill_null(bad, True), True).as_py()].as_py()
        raise place.wrong(row, "one of the categories is empty")
    return lists


def _refuse(place: Place, bad: pa.Array, what: str, cells: pa.Array | None = None) -> None:
    row = pc.index(bad, True).as_py()
    if row >= 0:
        raise place.wrong(row, what if cells is None else what.format(cells[row].as_py()))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _is_category(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return _is_text(kind) or bool(pa.types.is_integer(kind))
