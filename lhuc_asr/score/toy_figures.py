"""Figures of the toy regressions: the functions learned, the units before and after, the new function."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lhuc_asr.base.extras import extra
from lhuc_asr.score.figures import BEFORE, BETTER, WIDTH_INCHES, WORSE, save_figure
from lhuc_asr.score.toy import ToyRegression, read_toy

with extra("figures"):
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette again: a colour for each unit.
UNIT_COLOURS = ("#E69F00", "#009E73", "#CC79A7", "#56B4E9")
TARGET = "#CDCDCD"
DASHED, DOTTED = (0, (3, 1.6)), (0, (1, 1.4))
HEIGHT_INCHES = 3.1
# Room on the right of the last step for the change of each unit.
LABEL_SHARE = 0.24
SUBSCRIPTS = str.maketrans("123", "₁₂₃")
TITLES = {
    "bumps": "Two opposite steps make a bump; amplitudes reach other heights of the bumps that were learned",
    "si": "Trained on two functions as if they were one: no unit steps at 0, and no amplitudes can make it",
    "sat": "The same two, each with amplitudes of its own: units step at 0, and the new function is in reach",
}


def save_toy_figures(path: Path, folder: Path) -> list[Path]:
    """Draw each regression of a toy.json into ``toy<number>_<name>.png``.

    Returns:
        The files.
    """
    regressions = read_toy(path).regressions
    files = [folder / f"toy{number}_{regression.name}.png" for number, regression in enumerate(regressions, start=1)]
    for file, regression in zip(files, regressions, strict=True):
        save_figure(toy_figure(regression), file)
    return files


def toy_figure(regression: ToyRegression) -> Figure:
    """Draw one regression in three panels: the functions learned, the units before and after, the new function."""
    figure = Figure((WIDTH_INCHES, HEIGHT_INCHES), layout="constrained")
    panels = figure.subplots(1, 3)
    _draw_training(panels[0], regression)
    _draw_units(panels[1], regression)
    _draw_new_function(panels[2], regression)
    for axes in panels:
        axes.plot((regression.x[0], regression.x[-1]), (0, 0), color="#E2E2E2", linewidth=0.8, zorder=0)
        axes.margins(y=0.1)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xticks((-3, 0, 3))
        axes.tick_params(labelsize=7, length=2)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), frameon=False, fontsize=7.5, handlelength=2.4)
    # The functions share an axis; a single unit may be larger than the sum of all.
    panels[0].sharey(panels[2])
    figure.suptitle(TITLES[regression.name], x=0.01, ha="left", fontsize=9)
    return figure


def _draw_training(axes: Axes, regression: ToyRegression) -> None:
    axes.set_title("what was learned", loc="left", fontsize=8.5)
    for name, curve in regression.training.items():
        _draw_function(axes, regression, curve, name)
    axes.plot(
        regression.x, regression.trained[""], color=BEFORE, linewidth=1.3, linestyle=DASHED, label="network, unadapted"
    )
    for position, name in enumerate(name for name in regression.trained if name):
        label = None if position else "with a function's amplitudes"
        axes.plot(regression.x, regression.trained[name], color=BETTER, linewidth=1.4, label=label)


def _draw_units(axes: Axes, regression: ToyRegression) -> None:
    axes.set_title("its units, before and after", loc="left", fontsize=8.5)
    basis = np.asarray(regression.basis)  # (H, N)
    before, after = (np.asarray(regression.amplitudes[row])[:, None] * basis for row in ("", "new"))
    for unit, (old, new) in enumerate(zip(before, after, strict=True)):
        colour = UNIT_COLOURS[unit % len(UNIT_COLOURS)]
        axes.plot(regression.x, old, color=colour, linewidth=1.1, linestyle=DASHED)
        axes.plot(regression.x, new, color=colour, linewidth=1.8)
    _label_units(axes, regression, after[:, -1])
    for linestyle, label in ((DASHED, "before"), ("-", "after, with the amplitude's change")):
        axes.plot([], [], color=BEFORE, linewidth=1.4, linestyle=linestyle, label=label)


def _label_units(axes: Axes, regression: ToyRegression, ends: np.ndarray) -> None:
    """Write each unit's change where its curve ends, at a distance from the others."""
    low, high = axes.get_ylim()
    apart = 0.085 * (high - low)
    last = regression.x[-1]
    axes.set_xlim(right=last + LABEL_SHARE * (last - regression.x[0]))
    height = -np.inf
    for unit in np.argsort(ends, kind="stable"):
        height = max(ends[unit], height + apart)
        axes.text(
            last + 0.2,
            height,
            f"× {regression.changes[unit]:.2f}",
            color=UNIT_COLOURS[unit % len(UNIT_COLOURS)],
            fontsize=7,
            va="center",
        )


def _draw_new_function(axes: Axes, regression: ToyRegression) -> None:
    name = f"f{len(regression.training) + 1}"
    axes.set_title("a new function, and error", loc="left", fontsize=8.5)
    _draw_function(axes, regression, regression.target, name)
    styles = {
        "unadapted": (BEFORE, DASHED, "unadapted"),
        "adapted": (BETTER, "-", f"{len(regression.basis)} amplitudes"),
        "retrained": (WORSE, DOTTED, f"all {regression.weights} weights"),
    }
    for network, error in regression.errors.items():
        colour, linestyle, label = styles[network]
        curve = getattr(regression, network)
        axes.plot(regression.x, curve, color=colour, linewidth=1.4, linestyle=linestyle, label=f"{label}: {error:.3f}")


def _draw_function(axes: Axes, regression: ToyRegression, curve: Sequence[float], name: str) -> None:
    """Draw a function to learn: broad and pale below the outputs, with its name on its highest point."""
    axes.plot(regression.x, curve, color=TARGET, linewidth=4.5, solid_capstyle="butt")
    top = int(np.argmax(curve))
    axes.annotate(
        name.translate(SUBSCRIPTS),
        (regression.x[top], curve[top]),
        (0, 4),
        textcoords="offset points",
        ha="center",
        fontsize=8.5,
        color="#8A8A8A",
    )
