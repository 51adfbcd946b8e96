"""Heat map of the gates of a ranking network by groups of users, drawn from the file of an inspection."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lhuc_asr.base.atomic import DamagedFileError, read_json
from lhuc_asr.base.errors import ScoreError
from lhuc_asr.base.extras import extra

with extra("figures"):
    from matplotlib.figure import Figure

WIDTH_INCHES = 9.0
ROW_INCHES = 0.16
FRAME_INCHES = 1.8


def gate_heat_map(path: Path, most: int = 40) -> Figure:
    """Draw a row for each group and a column for each gated unit; red is above the mean of all examples, blue below.

    Args:
        path: JSON of an inspection: ``feature``, ``overall`` and ``groups``, the group that deviates most first.
        most: Maximum number of groups that are shown, half of them from each end of the order.

    Raises:
        ScoreError: The file is missing or not an inspection.
    """
    try:
        content = read_json(path)
        layers = {name: len(means) for name, means in content["overall"].items()}
        overall = np.concatenate([content["overall"][name] for name in layers])
        groups = content["groups"]
        rows = np.array([np.concatenate([group["amplitudes"][name] for name in layers]) for group in groups]) - overall
        labels = [f"{group['name']}  {group['deviation']:.3f}" for group in groups]
        feature = str(content["feature"])
    except (OSError, DamagedFileError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ScoreError(f"{path}: not an inspection of gates ({error}); run `lhuc-asr ppnet inspect` again") from error
    shown = list(range(len(groups)))
    if len(shown) > most:
        shown = [*shown[: most - most // 2], *shown[len(shown) - most // 2 :]]
    limit = float(np.abs(rows).max()) or 1.0

    figure = Figure((WIDTH_INCHES, FRAME_INCHES + ROW_INCHES * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(rows[shown], aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    axes.set_yticks(range(len(shown)), [labels[place] for place in shown], fontsize=6, parse_math=False)
    edges = np.cumsum([0, *layers.values()])
    for edge in edges[1:-1]:
        axes.axvline(edge - 0.5, color="black", linewidth=0.8)
    if len(shown) < len(groups):
        axes.axhline(most - most // 2 - 0.5, color="black", linewidth=0.8, linestyle="--")
    axes.set_xticks((edges[:-1] + edges[1:] - 1) / 2, list(layers), fontsize=7, parse_math=False)
    axes.tick_params(length=0)
    axes.set_ylabel(f"{feature} and deviation of its gates", fontsize=8, parse_math=False)
    part = "" if len(shown) == len(groups) else f", the {len(shown)} at both ends of {len(groups)}"
    axes.set_title(
        f"Mean amplitude less that of all examples, by {feature}{part}", fontsize=9, loc="left", parse_math=False
    )
    figure.colorbar(image, ax=axes, shrink=0.6)
    return figure
