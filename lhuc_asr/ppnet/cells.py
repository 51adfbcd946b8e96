"""Cells of one column of a file, checked and in the type of the schema: text, lists of text, or numbers.

A category is text, whatever the file holds: 7 in one file, "7" and 7.0 in others are the same user. The text of a CSV
file is taken as it stands ("007" and "7" are two users). A missing value (an empty cell, a null, NaN, a word that the
schema lists) is an error that names the file, the row and the column, unless the schema says what it means. An empty
text or an empty list in a field of kind ``sequence`` or ``multi`` is not missing: it has no categories.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lhuc_asr.base.errors import ExamplesError
from lhuc_asr.base.extras import extra
from lhuc_asr.ppnet.schema import BAGS, MEANINGS, FieldConfig, MissingConfig
from lhuc_asr.ppnet.table_files import one_line

with extra("rank"):
    import pyarrow as pa
    import pyarrow.compute as pc

# The networks compute with 32 bits, whose largest number is 3.4e38.
LARGEST = 1e38
TEXTS = pa.list_(pa.string())
# Words for 1 and 0, in small letters.
BOOLEANS = {"true": "1", "yes": "1", "t": "1", "y": "1", "false": "0", "no": "0", "f": "0", "n": "0"}
# Whole numbers from here on may have lost digits in a floating-point column, by its bits.
EXACT = {16: 2.0**11, 32: 2.0**24, 64: 2.0**53}
LABELS = "a label is 0 or 1, true or false, yes or no"

# Makes the error of one cell from its position and what is wrong with it.
Wrong = Callable[[int, str], ExamplesError]


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
        fits, wanted = _is_number(kind), "0 and 1, or true and false"
    elif field.kind == "number":
        fits, wanted = _is_number(kind), "numbers"
    elif field.kind in BAGS:
        fits = _is_category(kind.value_type) if _is_list(kind) else _is_text(kind)
        wanted = f"lists of text or of integers, or text with {field.separator!r} between the categories"
    else:
        fits, wanted = _is_category(kind), "text or integers"
    if not (fits or pa.types.is_null(kind)):
        name = "the label" if field is None else f"feature {field.name!r} of kind {field.kind}"
        raise ExamplesError(f"{place.path}: column {place.column!r} holds {kind}; {name} needs {wanted}")


def read_cells(place: Place, column: pa.Array, field: FieldConfig | None) -> pa.Array:
    """The cells of a column, checked.

    Args:
        place: Origin of the cells.
        column: The cells as the file holds them, of a type that fits; bytes, where the file is a CSV file.
        field: The field; None for a label.

    Returns:
        Text for one category per cell, lists of text for several, float64 for numbers and labels. A missing category
        is null, and so is a missing number that means the mean.

    Raises:
        ExamplesError: A cell is missing and may not be, or is not a number, not finite, too large, or not UTF-8; a
            label is neither 0 nor 1.
    """
    if field is None:
        return _labels(place, column)
    if field.kind == "number":
        return _number_cells(place, column, field)
    if field.kind in BAGS:
        return _lists(place, column, field)
    missing = field.missing
    texts = _null_where_missing(_texts(column, place.wrong), missing)
    if missing is None:
        _refuse(place.wrong, pc.is_null(texts), _empty(field))
    return texts


def _labels(place: Place, column: pa.Array) -> pa.Array:
    labels = _numbers(column, place.wrong, f"{{!r}} is not a label; {LABELS}")
    _refuse(place.wrong, pc.is_null(labels), "the cell is empty; give a label, or leave the row out")
    _refuse_infinite(place, labels)
    _refuse(place.wrong, pc.invert(pc.is_in(labels, pa.array([0.0, 1.0]))), "a label is 0 or 1, found {}", labels)
    return labels


def _number_cells(place: Place, column: pa.Array, field: FieldConfig) -> pa.Array:
    missing = field.missing
    if missing is not None and _is_text(column.type):
        column = _null_where_missing(_texts(column, place.wrong), missing)
    numbers = _numbers(column, place.wrong, "{!r} is not a number")
    if missing is None:
        _refuse(place.wrong, pc.is_null(numbers), _empty(field))
    else:
        absent = pc.or_(pc.is_nan(numbers), pc.is_in(numbers, pa.array(missing.numbers, pa.float64())))
        numbers = pc.if_else(absent, pa.scalar(0.0 if missing.value == "zero" else None, pa.float64()), numbers)
        numbers = pc.fill_null(numbers, 0.0) if missing.value == "zero" else numbers
    _refuse_infinite(place, numbers)
    return numbers


def _numbers(column: pa.Array, wrong: Wrong, fault: str) -> pa.Array:
    """Numbers as float64, null where the cell is null or, in text, blank."""
    column = _decoded(column)
    if _is_text(column.type):
        texts = pc.utf8_trim_whitespace(_texts(column, wrong))
        column = pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)
    try:
        # Integers beyond 2^53, as nanoseconds are, are rounded.
        return column.cast(pa.float64(), safe=not pa.types.is_integer(column.type))
    except pa.ArrowInvalid:  # words for 1 and 0, or a fault
        column = _booleans(column)
        _refuse(wrong, pc.invert(_fits(column, pa.float64())), fault, column)
        return column.cast(pa.float64())


def _booleans(texts: pa.Array) -> pa.Array:
    """Text with words for 1 and 0 replaced by them."""
    places = pc.index_in(pc.utf8_lower(texts), pa.array(list(BOOLEANS)))
    return pc.if_else(pc.is_valid(places), pa.array(list(BOOLEANS.values())).take(places), texts)


def _lists(place: Place, column: pa.Array, field: FieldConfig) -> pa.Array:
    if not _is_list(column.type):
        texts = _texts(column, place.wrong)
        blank = pc.equal(pc.utf8_trim_whitespace(texts), "")
        column = pc.if_else(blank, pa.scalar([], TEXTS), pc.split_pattern(texts, field.separator))
    if field.missing is None:
        _refuse(place.wrong, pc.is_null(column), _empty(field))
    parents = pc.list_parent_indices(column).to_numpy(zero_copy_only=False)

    def wrong(category: int, what: str) -> ExamplesError:
        return place.wrong(int(parents[category]), what)

    categories = _null_where_missing(_texts(column.flatten(), wrong), field.missing)
    kept = pc.is_valid(categories).to_numpy(zero_copy_only=False)
    if field.missing is None:
        _refuse(wrong, pa.array(~kept), "one of the categories is empty")
    lengths = np.bincount(parents[kept].astype(np.int64), minlength=len(column))
    return pa.ListArray.from_arrays(pa.array(np.append(0, lengths.cumsum()), pa.int32()), categories.drop_null())


def _texts(values: pa.Array, wrong: Wrong) -> pa.Array:
    """Categories as text, null where they are null or NaN: 7.0 is written as 7."""
    values = _decoded(values)
    kind = values.type
    if _is_text(kind):
        return _utf8(values, wrong)
    if pa.types.is_floating(kind):
        limit = EXACT[kind.bit_width]
        values = values.cast(pa.float64())
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values)
        whole = pc.and_(pc.equal(pc.floor(values), values), pc.less_equal(pc.abs(values), limit))
        _refuse(wrong, pc.invert(whole), "{} is not a whole number; a category is text or an integer", values)
        values = values.cast(pa.int64())
    elif pa.types.is_decimal(kind):
        whole = pa.decimal256(76 - max(0, kind.scale), 0)
        _refuse(
            wrong, pc.invert(_fits(values, whole)), "{} is not a whole number; a category is text or an integer", values
        )
        values = values.cast(whole)
    return values.cast(pa.string())


def _utf8(values: pa.Array, wrong: Wrong) -> pa.Array:
    """Text, checked: nothing else checks that of a Parquet file."""
    try:
        texts = values.cast(pa.string())
        texts.validate(full=True)
    except pa.ArrowInvalid:
        raw = values.cast(pa.large_binary()).to_pylist()
        for row, content in enumerate(raw):
            try:
                _ = content and content.decode()
            except UnicodeDecodeError as error:
                raise wrong(row, f"{content[:40]!r} is not UTF-8 text; save the file as UTF-8") from error
        raise
    return texts


def _null_where_missing(texts: pa.Array, missing: MissingConfig | None) -> pa.Array:
    trimmed = pc.utf8_trim_whitespace(texts)
    absent = pc.is_in(trimmed, pa.array(["", *(() if missing is None else missing.words)]))
    return pc.if_else(absent, pa.scalar(None, pa.string()), texts) if pc.any(absent).as_py() else texts


def _empty(field: FieldConfig) -> str:
    meaning = " or ".join(MEANINGS[field.kind])
    return (
        f"the cell is empty; give a value, leave the row out, or let feature {field.name!r} say what it means "
        f"(missing: {meaning})"
    )


def _refuse_infinite(place: Place, numbers: pa.Array) -> None:
    _refuse(place.wrong, pc.invert(pc.is_finite(numbers)), "{} is not a finite number", numbers)
    too_large = pc.greater(pc.abs(numbers), LARGEST)
    _refuse(place.wrong, too_large, f"{{}} is larger than {LARGEST:.0e}, the largest number allowed", numbers)


def _refuse(wrong: Wrong, bad: pa.Array, what: str, cells: pa.Array | None = None) -> None:
    """Refuse the first cell that is bad; null is not."""
    row = pc.index(bad, True).as_py()
    if row >= 0:
        raise wrong(row, what if cells is None else one_line(what.format(cells[row].as_py())))


def _fits(cells: pa.Array, kind: pa.DataType) -> pa.Array:
    """Whether each cell can be cast, null where it is null; slow, for a column that has a fault."""
    fits: list[bool | None] = []
    for cell in cells:
        try:
            fits.append(cell.cast(kind).is_valid or None)
        except pa.ArrowInvalid:
            fits.append(False)
    return pa.array(fits, pa.bool_())


def _decoded(values: pa.Array) -> pa.Array:
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values


def _content(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_text(kind: pa.DataType) -> bool:
    kind = _content(kind)
    strings = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    binaries = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(is_kind(kind) for is_kind in (*strings, *binaries))


def _is_number(kind: pa.DataType) -> bool:
    kind = _content(kind)
    numbers = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean)
    return any(is_kind(kind) for is_kind in numbers)


def _is_category(kind: pa.DataType) -> bool:
    return _is_text(kind) or _is_number(kind)
