"""The toy regressions' report: curves, errors on the new function, and their table.

The error is the root of the mean squared difference over the points, in the units of the function.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from lhuc_asr.base.atomic import read_json, write_json
from lhuc_asr.base.errors import ScoreError

# What is measured on the new function, in the table's order.
NETWORKS = ("unadapted", "adapted", "retrained")
MEANINGS = {
    "bumps": "1: one function learned",
    "si": "2: the average of two learned",
    "sat": "3: two learned, each with amplitudes",
}


@dataclass(frozen=True, slots=True)
class ToyRegression:
    """One network with H units, over N points of its axis.

    Attributes:
        name: "bumps", "si" or "sat".
        x: The points, (N,).
        training: The functions that it was trained on, by name, each (N,).
        trained: Its output after training, each (N,): row 0 as "", and the functions with a row of their own.
        target: The new function, (N,).
        unadapted: Output of row 0, (N,).
        adapted: Output with the amplitudes of the new function, (N,).
        retrained: Output after all weights were trained on the new function, (N,).
        basis: What each unit adds to the output at amplitude 1, (H, N).
        amplitudes: By row, "" and "new" among them, each (H,).
        weights: How many numbers retraining changes.
    """

    name: str
    x: Sequence[float]
    training: Mapping[str, Sequence[float]]
    trained: Mapping[str, Sequence[float]]
    target: Sequence[float]
    unadapted: Sequence[float]
    adapted: Sequence[float]
    retrained: Sequence[float]
    basis: Sequence[Sequence[float]]
    amplitudes: Mapping[str, Sequence[float]]
    weights: int

    @property
    def changes(self) -> list[float]:
        """By how much each unit's contribution grew or shrank for the new function, (H,)."""
        return [new / old for new, old in zip(self.amplitudes["new"], self.amplitudes[""], strict=True)]

    @property
    def errors(self) -> dict[str, float]:
        """Error on the new function, by network."""
        return {network: root_mean_square_error(getattr(self, network), self.target) for network in NETWORKS}


@dataclass(frozen=True, slots=True)
class ToyReport:
    """All regressions, in the order of the figures, and the seed of their first weights."""

    seed: int
    regressions: tuple[ToyRegression, ...]


def root_mean_square_error(output: Sequence[float], target: Sequence[float]) -> float:
    """Of N points against N points."""
    return float(np.sqrt(np.mean(np.square(np.subtract(output, target)))))


def write_toy(path: Path, report: ToyReport) -> None:
    """Write toy.json: the errors of each regression, then all that they follow from."""
    rows = [{"name": row.name, "errors": row.errors} | asdict(row) for row in report.regressions]
    write_json(path, {"seed": report.seed, "regressions": rows})


def read_toy(path: Path) -> ToyReport:
    """Read toy.json; the errors in it are for other readers and follow from the curves.

    Raises:
        ScoreError: There is no such file, or it is no toy report.
        DamagedFileError: The file is not JSON.
    """
    if not path.is_file():
        raise ScoreError(f"{path}: no such file; `lhuc-asr toy` writes it")
    tree = read_json(path)
    try:
        return ToyReport(tree["seed"], tuple(_regression(row) for row in tree["regressions"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise ScoreError(
            f"{path}: not a report of toy regressions ({type(error).__name__}: {error}); `lhuc-asr toy` writes one"
        ) from error


def toy_table(report: ToyReport) -> Table:
    """Error on the new function of each regression's network, unadapted, adapted and retrained."""
    first = report.regressions[0]
    table = Table(title="Error on the new function (root mean square)", title_justify="left")
    table.add_column("figure")
    for heading in (
        "unadapted",
        f"{len(first.basis)} amplitudes",
        f"all {first.weights} weights",
        "each amplitude, times",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in report.regressions:
        learned = " ".join(f"{change:.2f}" for change in row.changes)
        table.add_row(*map(Text, (MEANINGS[row.name], *(f"{row.errors[name]:.4f}" for name in NETWORKS), learned)))
    return table


def _regression(row: dict[str, Any]) -> ToyRegression:
    return ToyRegression(**{key: value for key, value in row.items() if key != "errors"})
