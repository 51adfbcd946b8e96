"""Word error rates of passes against the acoustic scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lhuc_asr.base.extras import extra
from lhuc_asr.score.figures import LOWER
from lhuc_asr.score.series import CURVE_COLOURS

with extra("figures"):
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, ScalarFormatter

MARKERS = ("o", "s", "^", "D", "v", "P")


def scale_figure(curves: Mapping[str, Sequence[tuple[float, float]]], chosen: Sequence[float], title: str) -> Figure:
    """Draw a curve for each pass, and a line at each chosen scale.

    Args:
        curves: Acoustic scales and word error rates (fractions) of each pass, by its name.
        chosen: Scales that were chosen on held-out speakers, one for each fold.
        title: Title of the figure.
    """
    figure = Figure((7.5, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for place, scale in enumerate(sorted(set(chosen))):
        label = "chosen on held-out speakers" if place == 0 else None
        axes.axvline(scale, color="#9A9A9A", linestyle=":", linewidth=1.2, zorder=1, label=label)
    for number, (name, points) in enumerate(curves.items()):
        scales, rates = zip(*points, strict=True)
        axes.plot(
            scales, [100 * rate for rate in rates], color=CURVE_COLOURS[number % len(CURVE_COLOURS)],
            marker=MARKERS[number // len(CURVE_COLOURS) % len(MARKERS)], markersize=4.5, linewidth=1.3, label=name,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    labels = sorted({scale for points in curves.values() for scale, _ in points})
    axes.set_xticks(labels, [f"{scale:g}" for scale in labels])
    axes.set_xlabel("acoustic scale")
    axes.set_ylabel(f"word error rate, % ({LOWER})")
    axes.grid(axis="y", color="#E2E2E2", zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, fontsize=10, loc="left", parse_math=False)
    figure.legend(loc="outside right center", frameon=False, fontsize=8)
    return figure
