"""Networks compared over seeds: mean and standard deviation, and the difference to the baseline seed by seed.

A seed draws the initial weights of a network and the order of its training data. With the same seed, networks that
share layers have the same initial weights there, so differences are taken seed by seed; their mean has Student's
interval

    mean +- t(0.975, S - 1) sd / sqrt(S)        S seeds

which holds for training again on the same data, not for another sample of users.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text
from scipy import stats

from lhuc_asr.base.errors import ScoreError

FIGURES = ("auc", "gauc", "log_loss", "calibration")
COMPARED = ("auc", "gauc")


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference of a figure between two networks, paired by seed.

    Attributes:
        mean: Mean over the seeds.
        interval: 95 % interval of the mean; None with one seed.
        p_value: Two-sided p-value of Student's paired test; None with one seed, or where all differences are equal.
    """

    mean: float
    interval: tuple[float, float] | None
    p_value: float | None


@dataclass(frozen=True)
class Results:
    """The figures of all networks with all seeds.

    Attributes:
        baseline: Name of the network that the others are compared with.
        runs: Figures by model and seed: ``valid`` and ``test``, each by task and figure; ``parameters``; ``seconds``.
    """

    baseline: str
    runs: Mapping[str, Mapping[int, Mapping[str, Any]]]

    @classmethod
    def of(cls, baseline: str, runs: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> Results:
        """The results, checked: every model must have the same seeds.

        Raises:
            ScoreError: A model has other seeds than the baseline.
        """
        for name, by_seed in runs.items():
            if list(by_seed) != list(runs[baseline]):
                raise ScoreError(
                    f"model {name!r} has seeds {list(by_seed)}, expected those of {baseline!r}, "
                    f"{list(runs[baseline])}; "
                    "train both with the same seeds"
                )
        return cls(baseline, runs)

    @property
    def tasks(self) -> list[str]:
        """Names of the labels."""
        first = next(iter(self.runs[self.baseline].values()))
        return list(first["test"])

    def values(self, model: str, task: str, figure: str, split: str = "test") -> np.ndarray:
        """A figure with each seed, shape (S,); NaN where it is not defined."""
        figures = [run[split][task][figure] for run in self.runs[model].values()]
        return np.array([np.nan if value is None else value for value in figures])

    def difference(self, model: str, task: str, figure: str) -> Difference:
        """The difference between a network and the baseline, on the test split."""
        return paired_difference(self.values(model, task, figure), self.values(self.baseline, task, figure))


def paired_difference(values: Sequence[float] | np.ndarray, baseline: Sequence[float] | np.ndarray) -> Difference:
    """Mean of values - baseline, with Student's 95 % interval.

    Args:
        values: A figure with each seed, shape (S,).
        baseline: The baseline's figure with the same seeds, shape (S,).
    """
    differences = np.asarray(values, np.float64) - np.asarray(baseline, np.float64)
    mean, count = float(differences.mean()), len(differences)
    if count < 2:
        return Difference(mean, None, None)
    error = float(differences.std(ddof=1) / np.sqrt(count))
    half = float(stats.t.ppf(0.975, count - 1)) * error
    p_value = float(2 * stats.t.sf(abs(mean) / error, count - 1)) if error else None
    return Difference(mean, (mean - half, mean + half), p_value)


def results_table(results: Results, task: str, title: str) -> Table:
    """The table of one task, one line per network, for a terminal or, with ``table_text``, a file."""
    table = Table(title=Text(title), title_justify="left")
    for heading in ("model", "parameters", "AUC", "GAUC", "log loss", "calibration"):
        table.add_column(heading, justify="left" if heading == "model" else "right", no_wrap=True)
    for figure in COMPARED:
        table.add_column(f"{figure.upper()} - {results.baseline}'s, 95 % interval", justify="right", no_wrap=True)
        table.add_column("p", justify="right", no_wrap=True)
    for name, runs in results.runs.items():
        parameters = next(iter(runs.values()))["parameters"]
        cells = [name, f"{parameters:,}", *(_mean_and_deviation(results.values(name, task, f)) for f in FIGURES)]
        for figure in COMPARED:
            cells += ["", ""] if name == results.baseline else _difference(results.difference(name, task, figure))
        # A plain string would be read as markup.
        table.add_row(*map(Text, cells))
    return table


def _mean_and_deviation(values: np.ndarray) -> str:
    deviation = f" ± {values.std(ddof=1):.4f}" if len(values) > 1 else ""
    return f"{values.mean():.4f}{deviation}"


def _difference(difference: Difference) -> list[str]:
    low_high = "" if difference.interval is None else " [{:+.4f}, {:+.4f}]".format(*difference.interval)
    return [f"{difference.mean:+.4f}{low_high}", _p_value(difference.p_value)]


def _p_value(p_value: float | None) -> str:
    if p_value is None:
        return ""
    return f"{p_value:.4f}" if p_value >= 0.0001 else "<0.0001"
