"""Models compared on the test split: means over seeds, differences with intervals over seeds and over users, verdicts.

A difference has two intervals, which answer two questions:

    over seeds    Would training again, on the same data, give the same? A seed draws the initial weights of a network
                  and the order of its training data. With the same seed, networks that share layers have the same
                  initial weights there, so differences are taken seed by seed: mean +- t(0.975, S - 1) sd / sqrt(S).
    over users    Would other users give the same? Networks are averaged over their seeds first; ``user_influence.py``
                  has the method. p and the verdict are over users.

Every model is compared with the baseline and, where the recipe names one, with the rival, a model without a network.
The recipe names one primary comparison before it is run. The p of all others with the baseline are adjusted by Holm's
method (S. Holm, "A simple sequentially rejective multiple test procedure", 1979), and so are those with the rival.
A difference is "better" or "worse" where its adjusted p is below 0.05 and its interval over seeds, if there is one,
excludes 0; otherwise there is "no evidence". With one seed, nothing tells the luck of a network's training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal

import numpy as np
from rich.table import Table
from rich.text import Text
from scipy import stats

from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.errors import ScoreError
from lhuc_asr.ppnet.user_influence import UserInfluence, UserTest, user_test
from lhuc_asr.score.holm import holm
from lhuc_asr.score.tables import narrow_table

Figure = Literal["auc", "gauc"]

FIGURES = ("auc", "gauc", "log_loss", "calibration")
COMPARED: tuple[Figure, ...] = ("auc", "gauc")
LEVEL = 0.05
# In place of the seed of a model that has nothing random.
FITTED = "fitted"

CAPTION = (
    "over seeds: 95 % interval of training again on the same data, seed by seed; over users: 95 % interval of other "
    "users, networks averaged over seeds. p: over users; all but the primary comparisons' adjusted by Holm's method, "
    "those with one model together. better, worse: p below 0.05, and 0 is not in the interval over seeds."
)


class PrimaryConfig(StrictModel):
    """The comparison that a recipe names before it is run.

    Attributes:
        model: Name of the model.
        task: Name of the label.
        figure: Figure of the test split.
    """

    model: str
    task: str
    figure: Figure = "gauc"


class Verdict(StrEnum):
    """What a comparison says of a model."""

    BETTER = "better"
    WORSE = "worse"
    NO_EVIDENCE = "no evidence"


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference of a figure between two models, paired by seed.

    Attributes:
        mean: Mean over the seeds.
        interval: 95 % interval of the mean; None with one seed.
        p_value: Two-sided p-value of Student's paired test; None with one seed, or where all differences are equal.
    """

    mean: float
    interval: tuple[float, float] | None
    p_value: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """A model compared with another one.

    Attributes:
        model: Name of the model.
        against: Name of the other one.
        task: Name of the label.
        figure: Figure of the test split.
        seeds: The difference over seeds.
        users: The same difference over users; None where it is not defined.
        p_value: p over users, adjusted unless it is the primary comparison's; None where it is not defined.
        primary: Whether the recipe named this comparison beforehand.
    """

    model: str
    against: str
    task: str
    figure: Figure
    seeds: Difference
    users: UserTest | None
    p_value: float | None
    primary: bool

    @property
    def verdict(self) -> Verdict:
        """What the comparison says of the model."""
        low, high = self.seeds.interval or (self.seeds.mean, self.seeds.mean)
        if self.p_value is None or self.p_value >= LEVEL or low <= 0.0 <= high:
            return Verdict.NO_EVIDENCE
        return Verdict.BETTER if self.seeds.mean > 0 else Verdict.WORSE

    def content(self) -> dict[str, Any]:
        """The comparison as JSON values."""
        return {**asdict(self), "verdict": str(self.verdict)}


@dataclass(frozen=True)
class Results:
    """The figures of all models with all seeds.

    Attributes:
        baseline: Name of the model that the others are compared with.
        runs: Figures by model and seed, or ``fitted``: ``valid`` and ``test``, each by task and figure; ``parameters``;
            ``seconds``.
        influences: Influences of the users on the test figures, by model, for each seed.
        rival: Name of another model that all are compared with; None for no other.
        primary: The primary comparison; None where all are adjusted.
    """

    baseline: str
    runs: Mapping[str, Mapping[int | str, Mapping[str, Any]]]
    influences: Mapping[str, Sequence[UserInfluence]] = field(default_factory=dict)
    rival: str | None = None
    primary: PrimaryConfig | None = None

    def __post_init__(self) -> None:
        """Check the seeds.

        Raises:
            ScoreError: A network has other seeds than another one.
        """
        first: tuple[str, list[int | str]] | None = None
        for name, by_seed in self.runs.items():
            seeds = list(by_seed)
            if seeds == [FITTED]:
                continue
            first = first or (name, seeds)
            if seeds != first[1]:
                raise ScoreError(
                    f"model {name!r} has seeds {seeds}, expected those of {first[0]!r}, {first[1]}; "
                    "train both with the same seeds"
                )

    @property
    def tasks(self) -> list[str]:
        """Names of the labels."""
        first = next(iter(self.runs[self.baseline].values()))
        return list(first["test"])

    def values(self, model: str, task: str, figure: str, split: str = "test") -> np.ndarray:
        """A figure with each seed, shape (S,), or (1,) of a fitted model; NaN where it is not defined."""
        figures = [run[split][task][figure] for run in self.runs[model].values()]
        return np.array([np.nan if value is None else value for value in figures])

    def difference(self, model: str, task: str, figure: str, against: str | None = None) -> Difference:
        """The difference between a model and another one, the baseline if None, on the test split."""
        return paired_difference(self.values(model, task, figure), self.values(against or self.baseline, task, figure))

    def comparisons(self) -> list[Comparison]:
        """All comparisons of defined figures, judged: those with the baseline first, then those with the rival."""
        families = [self._family(self.baseline)]
        if self.rival is not None:
            families.append(self._family(self.rival))
        return [comparison for family in families for comparison in family]

    def _family(self, against: str) -> list[Comparison]:
        """The comparisons with one model; the baseline and the rival are compared once, with the baseline."""
        pairs = [name for name in self.runs if name != against and (against, name) != (self.rival, self.baseline)]
        every = [self._compared(n, against, task, f) for task in self.tasks for f in COMPARED for n in pairs]
        family = [comparison for comparison in every if not np.isnan(comparison.seeds.mean)]
        adjusted = iter(holm([one.p_value for one in family if one.p_value is not None and not one.primary]))
        return [one if one.p_value is None or one.primary else replace(one, p_value=next(adjusted)) for one in family]

    def _compared(self, model: str, against: str, task: str, figure: Figure) -> Comparison:
        """A comparison whose p is not adjusted yet."""
        seeds = self.difference(model, task, figure, against)
        users: UserTest | None = None
        if model in self.influences and against in self.influences:
            first, second = (
                np.mean([getattr(influence, figure)[task] for influence in self.influences[name]], axis=0)
                for name in (model, against)
            )
            users = user_test(seeds.mean, first, second)
        primary = self.primary is not None and self.primary == PrimaryConfig(model=model, task=task, figure=figure)
        return Comparison(model, against, task, figure, seeds, users, None if users is None else users.p_value, primary)


def paired_difference(values: Sequence[float] | np.ndarray, baseline: Sequence[float] | np.ndarray) -> Difference:
    """Mean of values - baseline, with Student's 95 % interval.

    Args:
        values: A figure with each seed, shape (S,); shape (1,) of a model without seeds.
        baseline: The baseline's figure with the same seeds, shape (S,) or (1,).
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
    """The figures of one task, one line per model, for a terminal or, with ``table_text``, a file."""
    table = narrow_table(title)
    for heading in ("model", "parameters", "AUC", "GAUC", "log loss", "calibration"):
        named = heading == "model"
        table.add_column(heading, justify="left" if named else "right", no_wrap=not named, overflow="fold")
    for name, runs in results.runs.items():
        parameters = next(iter(runs.values()))["parameters"]
        cells = [name, f"{parameters:,}", *(_mean_and_deviation(results.values(name, task, f)) for f in FIGURES)]
        # A plain string would be read as markup.
        table.add_row(*map(Text, cells))
    return table


def comparisons_table(results: Results, title: str) -> Table:
    """All comparisons, one line each."""
    table = narrow_table(title)
    table.caption = Text(CAPTION)
    for heading in ("model", "figure", "difference", "over seeds", "over users", "p", "verdict"):
        text = heading in ("model", "verdict")
        table.add_column(heading, justify="left" if text else "right", no_wrap=not text, overflow="fold")
    before = None
    for comparison in results.comparisons():
        if (comparison.against, comparison.task) != before:
            before = comparison.against, comparison.task
            table.add_row(Text(f"against {comparison.against}, {comparison.task}:", style="bold"))
        table.add_row(*map(Text, _cells(comparison)))
    return table


def _cells(comparison: Comparison) -> Iterator[str]:
    yield from (comparison.model, comparison.figure.upper())
    yield f"{comparison.seeds.mean:+.4f}"
    yield _interval(comparison.seeds.interval)
    yield _interval(None if comparison.users is None else comparison.users.interval)
    yield _p_value(comparison.p_value)
    yield f"{comparison.verdict}{', primary' if comparison.primary else ''}"


def _mean_and_deviation(values: np.ndarray) -> str:
    deviation = f" ± {values.std(ddof=1):.4f}" if len(values) > 1 else ""
    return f"{values.mean():.4f}{deviation}"


def _interval(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else "[{:+.4f}, {:+.4f}]".format(*interval)


def _p_value(p_value: float | None) -> str:
    if p_value is None:
        return ""
    return f"{p_value:.4f}" if p_value >= 0.0001 else "<0.0001"
