"""Series of passes that differ in one option: JSON lines, a CSV file, a figure with error bars."""

from __future__ import annotations

import csv
import io
import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lhuc_asr.base.atomic import write_json_lines, write_text
from lhuc_asr.base.extras import extra
from lhuc_asr.score.figures import LOWER, save_figure
from lhuc_asr.score.significance import Comparison
from lhuc_asr.score.wer import WerReport

with extra("figures"):
    from matplotlib.figure import Figure

# Okabe and Ito's palette without black.
TABLES = ("table.jsonl", "table.csv")
CURVE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# Half the width over which curves stand beside each other at a label.
SPREAD = 0.24
# Letters per inch in the sentence below a figure.
LETTERS_AN_INCH = 14


@dataclass(frozen=True)
class Point:
    """A pass of a series over a split, compared with a pass without adaptation.

    Attributes:
        split: Name of the set of utterances.
        name: Name of the pass.
        curve: Name of the curve that the point is on.
        label: Label on the axis.
        wer: Word error rate, a fraction.
        errors: Substitutions, deletions and insertions.
        words: Number of reference words.
        speakers: Number of speakers behind the interval.
        seed: Seed of the recipe.
        against: Name of the pass that this one is compared with.
        before: Word error rate of that pass, a fraction.
        relative: Change of the error rate against that pass, a fraction; infinite where only this pass has errors.
        low, high: 95 % interval of ``relative`` over speakers; without end where they are too few.
        p: Two-sided p of the sign flips over speakers, not adjusted.
        over_others, over_others_low, over_others_high, over_others_p: The same against the mean of the other speakers'
            parameters; None without such a control.
        better, worse, equal: Number of speakers with fewer, more, and equally many errors.
        numbers: How many numbers of a speaker are kept; None where nobody is adapted to.
        seconds: Seconds of adaptation a speaker, the making of the targets included; None where it was not measured.
    """

    split: str
    name: str
    curve: str
    label: str
    wer: float
    errors: int
    words: int
    speakers: int
    seed: int
    against: str
    before: float
    relative: float
    low: float
    high: float
    p: float
    over_others: float | None
    over_others_low: float | None
    over_others_high: float | None
    over_others_p: float | None
    better: int
    worse: int
    equal: int
    numbers: int | None = None
    seconds: float | None = None

    @classmethod
    def of(
        cls, split: str, name: str, curve: str, label: str,
        report: WerReport, against: str, comparison: Comparison, others: Comparison | None, seed: int,
        numbers: int | None = None, seconds: float | None = None,
    ) -> Point:  # fmt: skip
        """The point of a pass, from its report, its comparisons, and the cost of its adaptation."""
        low, high = comparison.interval_relative
        control: tuple[float | None, float | None, float | None, float | None] = (None, None, None, None)
        if others is not None:
            control = (others.relative, *others.interval_relative, others.p_value)
        return cls(
            split, name, curve, label,
            report.wer, report.errors, report.words, len(report.speakers), seed, against,
            comparison.before, comparison.relative, low, high, comparison.p_value, *control,
            comparison.speakers_better, comparison.speakers_worse, comparison.speakers_equal, numbers, seconds,
        )  # fmt: skip

    @property
    def change(self) -> tuple[float, float, float]:
        """The change of the error rate against that pass, and its 95 % interval, in points (hundredths).

        Where that pass made no error, the relative change is not defined and the interval is open above.
        """
        if self.before == 0:
            return 100 * self.wer, 0.0, math.inf
        return 100 * self.before * self.relative, 100 * self.before * self.low, 100 * self.before * self.high


def write_series(
    folder: Path,
    title: str,
    axis: str,
    paper: str,
    points: Sequence[Point],
    joined: bool = True,
    formats: Iterable[str] = (),
) -> None:
    """Write ``table.jsonl``, ``table.csv`` and a ``<split>.png`` for each split; the tables have null for infinity.

    Args:
        folder: Folder of the files.
        title: Title of the figures: the option that differs.
        axis: Title of the axis of labels.
        paper: Finding of the paper, for a sentence below the figures.
        points: Points of all splits.
        joined: Whether a line joins the points of a curve.
        formats: Further formats of the figures, beside PNG.

    Raises:
        ValueError: ``points`` is empty.
    """
    if not points:
        raise ValueError(f"{folder}: the series has no points, expected at least one")
    write_rows(folder, [{name: _finite(value) for name, value in asdict(point).items()} for point in points])
    for split in dict.fromkeys(point.split for point in points):
        figure = series_figure([point for point in points if point.split == split], title, axis, paper, joined)
        save_figure(figure, folder / f"{split}.png", formats)


def _finite(value: Any) -> Any:
    # JSON has no infinity.
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_rows(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write ``table.jsonl`` and ``table.csv``, the same rows in both."""
    write_json_lines(folder / TABLES[0], rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / TABLES[1], text.getvalue())


def series_figure(points: Sequence[Point], title: str, axis: str, paper: str, joined: bool = True) -> Figure:
    """Draw the change of the word error rate at each label, in points, with its 95 % interval, one colour per curve.

    Args:
        points: Points of one split.
        title: Title of the figure: the option that differs.
        axis: Title of the axis of labels.
        paper: Finding of the paper, for the sentence below the figure.
        joined: Whether a line joins the points of a curve, as where the labels are amounts and not kinds.
    """
    labels = list(dict.fromkeys(point.label for point in points))
    curves = list(dict.fromkeys(point.curve for point in points))
    figure = Figure((max(5.0, 2.0 + 0.9 * len(labels)), 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(0.0, color="#6A6A6A", linewidth=1.0, zorder=1)
    ends = np.array([point.change for point in points])
    finite = ends[np.isfinite(ends)]
    lowest, highest = finite.min(initial=0.0), finite.max(initial=0.0)
    # A bar with an infinite end leaves the figure.
    beyond = highest + 0.3 * (1.0 + highest - lowest)
    if not np.isfinite(ends).all():
        axes.set_ylim(lowest - 0.05 * (1.0 + highest - lowest), beyond)
    offsets = np.linspace(-SPREAD, SPREAD, len(curves)) if len(curves) > 1 else [0.0]
    for number, (curve, offset) in enumerate(zip(curves, offsets, strict=True)):
        own = [point for point in points if point.curve == curve]
        x = np.array([labels.index(point.label) for point in own]) + offset
        y, low, high = (np.minimum(values, 2 * beyond) for values in zip(*(point.change for point in own), strict=True))
        below, above = np.maximum(y - low, 0), np.maximum(high - y, 0)
        axes.errorbar(
            x, y, (below, above), color=CURVE_COLOURS[number % len(CURVE_COLOURS)],
            marker="o", markersize=5, linewidth=1.2 if joined else 0.0, elinewidth=1.0, capsize=3, label=curve,
            zorder=3,
        )  # fmt: skip
    axes.set_xticks(range(len(labels)), labels, parse_math=False, rotation=30 if max(map(len, labels)) > 9 else 0)
    axes.set_xlabel(axis)
    axes.set_ylabel(f"change of the WER against no adaptation,\npoints ({LOWER})")
    axes.grid(axis="y", color="#E2E2E2", zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    first = points[0]
    sizes = f"{first.split}: {first.speakers} speakers, {first.words} words, one seed"
    axes.set_title(f"{title}\n{sizes}", fontsize=10, loc="left", parse_math=False)
    over = f"over {first.speakers} speakers" if first.speakers > 1 else "over the recordings of one speaker"
    sentences = f"Bars: 95 % intervals {over}.", f"The paper: {paper}."
    letters = int(LETTERS_AN_INCH * figure.get_figwidth())
    footnote = "\n".join(textwrap.fill(sentence, letters) for sentence in sentences)
    figure.supxlabel(footnote, fontsize=8, x=0.01, ha="left", parse_math=False)
    if len(curves) > 1:
        # Beside the axes, not above: the title may be wider than they are.
        figure.legend(loc="outside right center", frameon=False, fontsize=9)
    return figure
