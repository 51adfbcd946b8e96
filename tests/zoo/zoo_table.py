"""The table of docs/any_model.md: ``python tests/zoo/zoo_table.py`` writes it from what the suite holds models to."""

from __future__ import annotations

import inspect
import re
import warnings
from pathlib import Path

import pytest
from zoo_contracts import CONTRACTS, SLOW
from zoo_entries import ZOO, Entry

from lhuc_asr.base.errors import LhucError

PAGE = Path(__file__).parents[2] / "docs" / "any_model.md"
BEGIN, END = "<!-- the zoo: python tests/zoo/zoo_table.py -->", "<!-- end of the zoo -->"


def refusal(contract: str, entry: Entry) -> str:
    """The error by which a model is refused; what torch warns of is not asked."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "quantized::linear_dynamic")
        with pytest.raises(LhucError) as caught:
            CONTRACTS[contract](entry)
    return str(caught.value)


def page_with_table(page: str) -> str:
    """The page with the table between its marks."""
    begin, end = page.index(BEGIN) + len(BEGIN), page.index(END)
    return f"{page[:begin]}\n{_table()}\n{page[end:]}"


def _table() -> str:
    notes: list[str] = []
    columns = {name: contract for name, contract in CONTRACTS.items() if name not in SLOW}
    lines = [f"| | where | {' | '.join(columns)} |", f"|---|---|{'---|' * len(columns)}"]
    for entry in ZOO:
        cells = [_cell(contract, entry, notes) for contract in columns]
        lines.append(f"| {entry.name} | {_where(entry)} | {' | '.join(cells)} |")
    meanings = [f"- *{name}*: {' '.join(inspect.getdoc(contract).split())}" for name, contract in columns.items()]
    return "\n".join([*lines, "", *meanings, "", *notes])


def _cell(contract: str, entry: Entry, notes: list[str]) -> str:
    if contract in entry.refused:
        # Up to what follows from it, or what to do.
        said, word = re.split(r", so |; ", refusal(contract, entry))[0], "refused"
    elif contract in entry.impossible:
        said, word = f"the model does not run without amplitudes either: {entry.impossible[contract]}", "torch refuses"
    else:
        return "yes"
    note = f"{said}."
    numbered = [line.split(" ", 1)[1] for line in notes]
    if note not in numbered:
        notes.append(f"{len(notes) + 1}. {note}")
        numbered.append(note)
    return f"{word} ({numbered.index(note) + 1})"


def _where(entry: Entry) -> str:
    def shown(value: object) -> str:
        return f"nn.{value.__name__}" if isinstance(value, type) else repr(value)

    return ", ".join(f"`{name}={shown(value)}`" for name, value in entry.where.items())


if __name__ == "__main__":
    PAGE.write_text(page_with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
