"""The rows of a series or a look as a table of at most 100 columns; ``table.csv`` has all figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from lhuc_asr.score.tables import BLANK, narrow_table, short_p

SERIES_CAPTION = (
    "change %: of the WER against the pass without adaptation, with its 95 % interval over speakers; "
    "p: sign flips over speakers, not adjusted; +/-/=: speakers with fewer, more and equally many errors."
)
COSTS = ("numbers", "s")
COSTS_CAPTION = " numbers, s: kept of a speaker; seconds of adaptation, the targets included."


def series_table(rows: Sequence[Mapping[str, Any]], title: str, axis: str, costs: bool = False) -> Table:
    """The points of a series, in whole per cent, those of a split under its name.

    Args:
        rows: Rows of ``table.jsonl``, with the keys of ``Point``.
        title: Title of the table: the option that differs.
        axis: Heading of its values.
        costs: Whether columns show how many numbers a speaker has, and the seconds of adaptation.
    """
    table = narrow_table(title)
    several = len({row["curve"] for row in rows}) > 1
    for heading in (axis, "curve") if several else (axis,):
        table.add_column(Text(heading), overflow="fold")
    costs = costs and any(row["numbers"] is not None for row in rows)
    for heading in ("WER %", "errors", "change %", "p", "over\nothers' %", "p", "+/-/=", *(COSTS if costs else ())):
        table.add_column(heading, justify="right", no_wrap=True)
    split = None
    for row in rows:
        if row["split"] != split:
            split = row["split"]
            first = (f"{100 * row['before']:.2f}", f"of {row['words']}", Text(row["against"]))
            table.add_row(Text(f"{split}:", style="bold"), *([BLANK] if several else []), *first)
        over = (BLANK, BLANK)
        if row["over_others_p"] is not None:
            change = _change(row["over_others"], row["over_others_low"], row["over_others_high"])
            over = (change, short_p(row["over_others_p"]))
        cells = (
            row["label"], *([row["curve"]] if several else []), f"{100 * row['wer']:.2f}", str(row["errors"]),
            _change(row["relative"], row["low"], row["high"]), short_p(row["p"]), *over,
            f"{row['better']}/{row['worse']}/{row['equal']}", *(_costs(row) if costs else ()),
        )  # fmt: skip
        table.add_row(*map(Text, cells))
    table.caption = Text(SERIES_CAPTION + (COSTS_CAPTION if costs else ""))
    return table


def _costs(row: Mapping[str, Any]) -> tuple[str, str]:
    """Numbers of a speaker and seconds of adaptation."""
    seconds = BLANK if row["seconds"] is None else f"{row['seconds']:.2g}"
    return BLANK if row["numbers"] is None else f"{row['numbers']:,}", seconds


def look_table(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    """The rows of a look, as they are."""
    table = narrow_table(title)
    for name in rows[0]:
        numbers = all(not isinstance(row[name], str) for row in rows)
        # A heading is broken at its words; a number is never broken.
        heading = Text("\n".join(name.split("_")))
        table.add_column(heading, justify="right" if numbers else "left", no_wrap=numbers, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, map(_cell, row.values())))
    return table


def _change(relative: float | None, low: float | None, high: float | None) -> str:
    """A change with its interval in whole per cent; JSON has null for infinity."""
    lowest = "-∞" if low is None else _percent(low)
    return f"{_percent(relative)} [{lowest}, {_percent(high)}]"


def _percent(fraction: float | None) -> str:
    return "∞" if fraction is None else f"{100 * fraction:+.0f}"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return BLANK if value is None else str(value)
