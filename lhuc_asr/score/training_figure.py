"""The cross-entropy of an experiment's networks by epoch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lhuc_asr.base.atomic import DamagedFileError, read_json_lines
from lhuc_asr.base.extras import extra
from lhuc_asr.score.figures import LOWER
from lhuc_asr.score.series import CURVE_COLOURS

with extra("figures"):
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator

GREY = "#6A6A6A"


@dataclass(frozen=True)
class TrainingCurve:
    """The epochs of a network's last training, in nats per frame.

    Attributes:
        training: Mean cross-entropy of the training frames while the epoch went on, with dropout.
        heldout: Cross-entropy of the held-out frames after the epoch.
        kept: Whether the epoch was kept; one that made the held-out cross-entropy worse was undone.
        average: Held-out cross-entropy of the average of the last epochs; None where none was made.
    """

    training: tuple[float, ...]
    heldout: tuple[float, ...]
    kept: tuple[bool, ...]
    average: float | None


def read_curves(metrics: Path, networks: Sequence[str]) -> dict[str, TrainingCurve]:
    """The curves of networks, by name, from an experiment's ``metrics.jsonl``; networks without an epoch are left out.

    Args:
        metrics: The file; if it is missing or damaged, as by a kill in the middle of a line, it says nothing.
        networks: Names of the networks.
    """
    try:
        lines = list(read_json_lines(metrics))
    except (OSError, DamagedFileError):
        return {}
    epochs: dict[str, list[dict[str, Any]]] = {}
    averages: dict[str, float] = {}
    for row in lines:
        stage = row["stage"]
        if "epoch" in row:
            # Training may have begun again, or an epoch may have been made again by a run that was killed before.
            epochs[stage] = [*epochs.get(stage, [])[: row["epoch"] - 1], row]
            averages.pop(stage, None)
        elif "averaged_epochs" in row:
            averages[stage] = row["heldout_loss"]
    curves = {}
    for name in networks:
        rows = epochs.get(f"am/{name}", [])
        if rows:
            training, heldout, kept = (
                tuple(row[key] for row in rows) for key in ("train_loss", "heldout_loss", "kept")
            )
            curves[name] = TrainingCurve(training, heldout, kept, averages.get(f"am/{name}"))
    return curves


def training_figure(metrics: Path, networks: Sequence[str]) -> Figure | None:
    """Draw the held-out and the training cross-entropy of networks by epoch; None where no network has an epoch.

    Args:
        metrics: ``metrics.jsonl`` of the experiment.
        networks: Names of the networks.
    """
    curves = read_curves(metrics, networks)
    if not curves:
        return None
    figure = Figure((7.5, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for number, (name, curve) in enumerate(curves.items()):
        colour, epochs = CURVE_COLOURS[number % len(CURVE_COLOURS)], range(1, len(curve.heldout) + 1)
        axes.plot(epochs, curve.training, color=colour, linestyle=":", linewidth=1.2)
        axes.plot(epochs, curve.heldout, color=colour, marker="o", markersize=4, linewidth=1.5, label=name)
        undone = [
            (epoch, loss) for epoch, loss, kept in zip(epochs, curve.heldout, curve.kept, strict=True) if not kept
        ]
        if undone:
            places, losses = zip(*undone, strict=True)
            axes.scatter(places, losses, color=colour, marker="x", s=60, zorder=3)
        if curve.average is not None:
            axes.scatter([len(epochs)], [curve.average], color=colour, marker="*", s=90, zorder=3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"cross-entropy, nats a frame ({LOWER})")
    axes.grid(axis="y", color="#E2E2E2", zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("Cross-entropy of the networks by epoch", fontsize=10, loc="left", parse_math=False)
    handles, _ = axes.get_legend_handles_labels()
    figure.legend(handles=[*handles, *_styles(curves.values())], loc="outside right center", frameon=False, fontsize=8)
    return figure


def _styles(curves: Collection[TrainingCurve]) -> list[Line2D]:
    """The legend of lines and of those marks that some curve has."""
    styles: list[tuple[dict[str, Any], str, bool]] = [
        ({"linestyle": "-", "marker": "o", "markersize": 4}, "held out", True),
        ({"linestyle": ":"}, "training", True),
        ({"linestyle": "", "marker": "x"}, "undone", not all(all(curve.kept) for curve in curves)),
        ({"linestyle": "", "marker": "*"}, "average of the last epochs", any(c.average is not None for c in curves)),
    ]
    return [Line2D([], [], color=GREY, label=label, **style) for style, label, there in styles if there]
