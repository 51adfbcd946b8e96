"""Report of the toy regressions: curves, errors on the new function, and a table of the errors.

The error is the root mean square of the difference over the points, in the units of the function.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.table import Table
from rich.text import Text

from lhuc_asr.base.atomic import write_json
from lhuc_asr.base.documents import DocumentKind
from lhuc_asr.base.errors import ScoreError

# Networks that are measured on the new function, in the table's order.
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
        name: Name of the regression: "bumps", "si" or "sat".
        x: Points on the axis, (N,).
        training: Functions that the network was trained on, by name, each (N,).
        trained: Outputs after training, each (N,): row 0 as "", and the functions that have a row of their own.
        target: The new function, (N,).
        unadapted: Output of row 0, (N,).
        adapted: Output with the amplitudes of the new function, (N,).
        retrained: Output after all weights were trained on the new function, (N,).
        basis: Contribution of each unit to the output at amplitude 1, (H, N).
        amplitudes: Amplitudes of each row, "" and "new" among them, each (H,).
        weights: Number of weights that retraining changes.
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
        """Factor by which each unit's contribution changed for the new function, (H,)."""
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


_REPORTS = DocumentKind(
    ToyReport,
    "a report of toy regressions",
    ScoreError,
    "`lhuc-asr toy` writes one",
    missing="`lhuc-asr toy` writes it",
)


def root_mean_square_error(output: Sequence[float], target: Sequence[float]) -> float:
    """Root mean square of the difference between N outputs and N targets."""
    return float(np.sqrt(np.mean(np.square(np.subtract(output, target)))))


def write_toy(path: Path, report: ToyReport) -> None:
    """Write toy.json: the errors of each regression, then the curves that they follow from."""
    rows = [{"name": row.name, "errors": row.errors} | asdict(row) for row in report.regressions]
    write_json(path, {"seed": report.seed, "regressions": rows})


def read_toy(path: Path) -> ToyReport:
    """Read toy.json; the errors in it are for other readers and follow from the curves.

    Raises:
        ScoreError: The file is missing or not a toy report.
    """
    return _REPORTS.read(path)


def toy_table(report: ToyReport) -> Table:
    """The table of errors on the new function: unadapted, adapted and retrained."""
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
