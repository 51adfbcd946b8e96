"""Figures of the toy regressions: what was learned, the basis before and after, the new function."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lhuc_asr.score.figures import BEFORE, BETTER, WORSE, save_figure
from lhuc_asr.score.toy import ToyRegression, read_toy

# Okabe and Ito's palette again: the units, from left to right.
UNIT_COLOURS = ("#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#F0E442", "#999999")
TARGET = "#C9C9C9"
SIZE_INCHES = (10.0, 3.3)
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
TITLES = {
    "bumps": "Two steps make a bump: amplitudes reach any heights of the bumps that were learned",
    "si": "Trained on the average of two functions: a step that the basis lacks is out of the amplitudes' reach",
    "sat": "Trained with amplitudes of each function's own: the basis has every step, and the new function is in reach",
}


def save_toy_figures(path: Path, folder: Path) -> list[Path]:
    """Draw each regression of a toy.json into ``<number>_<name>.png``; returns the files."""
    regressions = read_toy(path).regressions
    files = [folder / f"{number}_{regression.name}.png" for number, regression in enumerate(regressions, start=1)]
    for file, regression in zip(files, regressions, strict=True):
        save_figure(toy_figure(regression), file)
    return files


def toy_figure(regression: ToyRegression) -> Figure:
    """One regression, three panels: training, the basis before and after, the new function."""
    figure = Figure(SIZE_INCHES, layout="constrained")
    axes = figure.subplots(1, 3, sharex=True)
    _draw_training(axes[0], regression)
    _draw_basis(axes[1], regression)
    _draw_new_function(axes[2], regression)
    for panel in axes:
        panel.axhline(0, color="#E2E2E2", linewidth=0.8, zorder=0)
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_xlim(min(regression.x), max(regression.x))
        panel.set_xlabel("x")
    figure.suptitle(TITLES[regression.name], x=0.01, ha="left", fontsize=11)
    return figure


def _draw_training(axes: Axes, regression: ToyRegression) -> None:
    axes.set_title("what was learned", loc="left", fontsize=10)
    for position, (name, curve) in enumerate(regression.training.items()):
        axes.plot(
            regression.x, curve, color=TARGET, linewidth=4.5, linestyle=("-", (0, (2, 1)))[position], label=_label(name)
        )
    own = {name: curve for name, curve in regression.trained.items() if name}
    axes.plot(regression.x, regression.trained[""], color=BEFORE, linewidth=1.6, label="network")
    for (name, curve), style in zip(own.items(), ("-", "--"), strict=False):
        label = f"amplitudes of {_label(name)}"
        axes.plot(regression.x, curve, color=BETTER, linewidth=1.4, linestyle=style, label=label)
    axes.legend(frameon=False, fontsize=8)


def _draw_basis(axes: Axes, regression: ToyRegression) -> None:
    axes.set_title("the units, before and after", loc="left", fontsize=10)
    basis = np.asarray(regression.basis)  # (H, N)
    before, after = (np.asarray(regression.amplitudes[row])[:, None] * basis for row in ("", "new"))
    for unit, colour in zip(range(len(basis)), UNIT_COLOURS, strict=False):
        axes.plot(regression.x, before[unit], color=colour, linewidth=1.3, linestyle=(0, (3, 2)))
        axes.plot(regression.x, after[unit], color=colour, linewidth=2.2)
    axes.legend(
        handles=[
            Line2D([], [], color=BEFORE, linewidth=1.3, linestyle=(0, (3, 2)), label="before"),
            Line2D([], [], color=BEFORE, linewidth=2.2, label="after"),
        ],
        frameon=False,
        fontsize=8,
    )


def _draw_new_function(axes: Axes, regression: ToyRegression) -> None:
    name = f"f{len(regression.training) + 1}"
    axes.set_title(f"a new function, {_label(name)}", loc="left", fontsize=10)
    errors = regression.errors
    axes.plot(regression.x, regression.target, color=TARGET, linewidth=4.5, label=_label(name))
    axes.plot(
        regression.x,
        regression.unadapted,
        color=BEFORE,
        linewidth=1.4,
        linestyle=(0, (3, 2)),
        label=f"unadapted: {errors['unadapted']:.3f}",
    )
    axes.plot(
        regression.x, regression.adapted, color=BETTER, linewidth=1.8, label=f"amplitudes: {errors['adapted']:.3f}"
    )
    axes.plot(
        regression.x,
        regression.retrained,
        color=WORSE,
        linewidth=1.2,
        linestyle=":",
        label=f"all weights: {errors['retrained']:.3f}",
    )
    axes.legend(frameon=False, fontsize=8, title="root mean square error", title_fontsize=8)


def _label(name: str) -> str:
    return name.translate(SUBSCRIPTS)
