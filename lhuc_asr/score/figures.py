"""Figures, drawn from the files of an experiment.

Only matplotlib's Figure objects are used, never pyplot: no window, no global state, nothing to close.
"""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

from lhuc_asr.base.atomic import atomic_path
from lhuc_asr.base.extras import extra
from lhuc_asr.score.formats import FORMATS
from lhuc_asr.score.significance import Comparison
from lhuc_asr.score.tables import change_text
from lhuc_asr.score.wer import WerReport, read_wer, require_same_speakers

with extra("figures"):
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

# Okabe and Ito's palette, which colour-blind readers can tell apart too.
BETTER, WORSE, EQUAL = "#0072B2", "#D55E00", "#7F7F7F"
BEFORE = "#6A6A6A"

WIDTH_INCHES = 7.0
# Height of title, axis and legend, beside the rows.
FRAME_INCHES = 1.7
# Least and largest height of a row: the label fits, and the rows stay on one screen if possible.
ROW_INCHES = (0.17, 0.36)
SCREEN_INCHES = 6.0
DOTS_PER_INCH = 150
# On the axis of an error.
LOWER = "lower is better"


def speaker_wer_figure(
    before_path: Path,
    after_path: Path,
    comparison: Comparison,
    before_name: str = "before",
    after_name: str = "after",
) -> Figure:
    """Each speaker's WER in two passes: a pair of dots joined by a line, the worst speaker on top.

    Args:
        before_path: wer.json of the first pass.
        after_path: wer.json of the second pass.
        comparison: The two compared, for the title.
        before_name: Name of the first pass in title and legend.
        after_name: Name of the second pass in the title.

    Raises:
        ScoreError: A file is missing or not a WER report, or the two differ in speakers or reference words.
    """
    before, after = read_wer(before_path), read_wer(after_path)
    require_same_speakers({str(before_path): before, str(after_path): after})
    # From bottom to top, as the axis grows. Names break ties, so that the figure is the same each time.
    speakers = sorted(before.speakers, key=lambda name: (before.speakers[name].wer, name))
    rows = range(len(speakers))
    first = [100 * before.speakers[name].wer for name in speakers]
    second = [100 * after.speakers[name].wer for name in speakers]
    colours = [_colour(old, new) for old, new in zip(first, second, strict=True)]

    row_inches = min(max(SCREEN_INCHES / len(speakers), ROW_INCHES[0]), ROW_INCHES[1])
    figure = Figure((WIDTH_INCHES, FRAME_INCHES + row_inches * len(speakers)), layout="constrained")
    axes = figure.add_subplot()
    axes.hlines(rows, first, second, colors=colours, linewidth=2.0, alpha=0.55, zorder=2, clip_on=False)
    # The ring is larger than the dot, so that both are seen where nothing changed.
    axes.scatter(first, rows, s=52, facecolors="white", edgecolors=BEFORE, linewidths=1.3, zorder=3, clip_on=False)
    axes.scatter(second, rows, s=17, c=colours, zorder=4, clip_on=False)
    axes.set_yticks(rows, speakers, fontsize=9 if row_inches > 0.2 else 7, parse_math=False)
    axes.set_ylim(-0.8, len(speakers) - 0.2)
    axes.set_xlim(left=0)
    axes.set_xlabel(f"word error rate, % ({LOWER})")
    axes.grid(axis="x", color="#E2E2E2", zorder=0)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0, pad=8)
    axes.set_title(_title(before, comparison, before_name, after_name), fontsize=10, loc="left", parse_math=False)
    figure.legend(
        handles=_legend_handles(colours, before_name),
        loc="outside lower center",
        ncols=4,
        frameon=False,
        fontsize=9,
    )
    return figure


def save_figure(figure: Figure, path: Path, formats: Iterable[str] = ()) -> None:
    """Write a PNG file, whole or not at all; the same figure gives the same bytes.

    Args:
        figure: The figure.
        path: The file, ``<name>.png``.
        formats: Further formats, ``pdf`` or ``svg``, each in a file beside it with its own ending.
    """
    for format in dict.fromkeys(["png", *formats]):
        with atomic_path(path.with_suffix(f".{format}")) as temporary:
            _write(figure, temporary, format, path.stem)


def svg_of(figure: Figure, name: str) -> bytes:
    """A figure as SVG; the same figure under the same name gives the same bytes.

    Args:
        figure: The figure.
        name: Name that the names inside the SVG are made from.
    """
    content = BytesIO()
    _write(figure, content, "svg", name)
    return content.getvalue()


def _write(figure: Figure, target: Path | BytesIO, format: str, name: str) -> None:
    # The salt makes the names inside an SVG the same each time.
    with rc_context({"svg.hashsalt": name}):
        figure.savefig(target, format=format, dpi=DOTS_PER_INCH, metadata=FORMATS[format])


def _colour(before: float, after: float) -> str:
    if after == before:
        return EQUAL
    return BETTER if after < before else WORSE


def change_line(comparison: Comparison, before: WerReport) -> str:
    """The relative change with its interval, and what it is over, for a title."""
    words, speakers = f"{before.words} words", len(before.speakers)
    return f"{change_text(comparison)} % relative (95 % interval), {words}, {speakers} speakers"


def _title(before: WerReport, comparison: Comparison, before_name: str, after_name: str) -> str:
    rates = f"○ {before_name} {100 * comparison.before:.2f} %  →  ● {after_name} {100 * comparison.after:.2f} %"
    return f"{rates}\n{change_line(comparison, before)}"


def _legend_handles(colours: list[str], before_name: str) -> list[Line2D]:
    ring = Line2D(
        [], [], color=BEFORE, linestyle="", marker="o", markersize=7, markerfacecolor="white", label=before_name
    )
    changes = ((BETTER, "better"), (WORSE, "worse"), (EQUAL, "equal"))
    labels = [f"{change} ({colours.count(colour)})" for colour, change in changes]
    dots = [
        Line2D([], [], color=colour, linewidth=2.0, marker="o", markersize=4.5, label=label)
        for (colour, _), label in zip(changes, labels, strict=True)
    ]
    return [ring, *dots]
