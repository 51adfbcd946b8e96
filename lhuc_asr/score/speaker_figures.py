"""Figures of speakers before and after adaptation: gains, amplitudes, frame errors, hidden activations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lhuc_asr.base.extras import extra
from lhuc_asr.score.figures import BEFORE, BETTER, EQUAL, LOWER, WORSE, change_line
from lhuc_asr.score.significance import Comparison, student_quantile
from lhuc_asr.score.wer import WerReport, require_same_speakers

with extra("figures"):
    from matplotlib.figure import Figure

# Okabe and Ito's palette.
SPEAKER_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")


def gains_figure(before: WerReport, after: WerReport, comparison: Comparison, title: str) -> Figure:
    """Draw the change of every speaker's word error rate, in points, from the largest gain to the largest loss.

    Args:
        before: The first pass.
        after: The second pass.
        comparison: The two compared, for the title.
        title: First line of the title.

    Raises:
        ScoreError: The reports differ in speakers or reference words.
    """
    require_same_speakers({"before": before, "after": after})
    changes = [after.speakers[name].errors - score.errors for name, score in before.speakers.items()]
    rates = sorted(100 * c / s.words for c, s in zip(changes, before.speakers.values(), strict=True))
    better, worse = sum(change < 0 for change in changes), sum(change > 0 for change in changes)
    figure = Figure((7.0, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.bar(range(len(rates)), rates, width=0.85, color=[_colour(rate) for rate in rates])
    axes.axhline(0.0, color="#6A6A6A", linewidth=1.0)
    axes.set_xlabel("speakers, from the largest gain to the largest loss")
    axes.set_ylabel(f"change of the WER, points\n({LOWER})")
    axes.set_xticks([])
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    changed = better + worse
    share = f", {100 * better / changed:.0f} % of those who change" if changed else ""
    counts = f"{better} better, {worse} worse, {len(rates) - changed} equal{share}"
    axes.set_title(f"{title}\n{change_line(comparison, before)}\n{counts}", fontsize=10, loc="left", parse_math=False)
    return figure


def amplitude_map(own: Sequence[np.ndarray], others: Sequence[np.ndarray], title: str) -> Figure:
    """Draw a speaker's log amplitudes less the mean of the others', in the others' deviations, a layer a row.

    Units are in the order of the values, so that a layer's row shows how many of its units stand out, and how far.

    Args:
        own: The speaker's amplitudes of each layer, shapes (H,), above 0.
        others: Those of S other speakers, at least two, shapes (S, H).
        title: Title of the figure.
    """
    rows = []
    for mine, theirs in zip(own, others, strict=True):
        log, logs = np.log(np.maximum(mine, 1e-3)), np.log(np.maximum(theirs, 1e-3))
        rows.append(np.sort((log - logs.mean(axis=0)) / np.maximum(logs.std(axis=0, ddof=1), 1e-6)))
    figure = Figure((7.0, 0.9 + 0.3 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for place, row in enumerate(rows):
        image = axes.imshow(
            row[None], aspect="auto", cmap="RdBu_r", vmin=-4, vmax=4, interpolation="nearest",
            extent=(0.0, 1.0, place + 0.5, place - 0.5),
        )  # fmt: skip
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xticks([])
    axes.set_yticks(range(len(rows)), [f"layer {number + 1}" for number in range(len(rows))])
    axes.set_xlabel("units, from those turned down most to those turned up most")
    axes.set_title(title, fontsize=10, loc="left", parse_math=False)
    figure.colorbar(image, ax=axes, label="deviations from\nthe others' mean")
    return figure


def amplitudes_figure(layers: Sequence[np.ndarray], speakers: Sequence[str], title: str) -> Figure:
    """Draw log amplitudes of all speakers, layers side by side, units in the order of their mean, and their spread.

    Args:
        layers: Amplitudes of each layer, shape (S, H), above 0.
        speakers: Names of the S rows.
        title: Title of the figure.
    """
    logs = [np.log(np.maximum(layer, 1e-3)) for layer in layers]
    ordered = [log[:, np.argsort(log.mean(axis=0))] for log in logs]
    limit = max(0.05, float(np.quantile(np.abs(np.concatenate(ordered, axis=1)), 0.99)))
    rows = min(0.16, 8.0 / max(1, len(speakers))) * len(speakers)
    figure = Figure((9.0, 2.6 + rows), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=(max(rows, 1.2), 1.6))
    image = above.imshow(
        np.concatenate(ordered, axis=1), aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest"
    )
    edges = np.cumsum([0, *(layer.shape[1] for layer in layers)])
    for edge in edges[1:-1]:
        above.axvline(edge - 0.5, color="black", linewidth=0.8)
    above.set_xticks((edges[:-1] + edges[1:]) / 2, [f"layer {number + 1}" for number in range(len(layers))])
    above.set_yticks(range(len(speakers)), speakers, fontsize=6, parse_math=False) if len(speakers) <= 40 else None
    above.set_ylabel("speakers")
    above.set_title(title, fontsize=10, loc="left", parse_math=False)
    figure.colorbar(image, ax=above, label="log amplitude", shrink=0.8)
    below.boxplot([log.ravel() for log in logs], showfliers=False, widths=0.5)
    below.axhline(0.0, color="#6A6A6A", linewidth=0.8)
    below.set_xticks(range(1, len(layers) + 1), [f"layer {number + 1}" for number in range(len(layers))])
    below.set_ylabel("log amplitude")
    below.spines[["top", "right"]].set_visible(False)
    return figure


def frames_figure(before: Sequence[tuple[float, float]], after: Sequence[tuple[float, float]], title: str) -> Figure:
    """Draw WER against frame error of each speaker, a ring before and a dot after, joined.

    Args:
        before: Frame error and WER of each speaker before adaptation, fractions.
        after: The same after adaptation, in the same order.
        title: Title of the figure.
    """
    first, second = 100 * np.array(before), 100 * np.array(after)
    figure = Figure((6.0, 4.6), layout="constrained")
    axes = figure.add_subplot()
    colours = [_colour(float(change)) for change in second[:, 1] - first[:, 1]]
    for (x0, y0), (x1, y1), colour in zip(first, second, colours, strict=True):
        axes.plot((x0, x1), (y0, y1), color=colour, linewidth=1.2, alpha=0.6, zorder=2)
    axes.scatter(first[:, 0], first[:, 1], s=30, facecolors="white", edgecolors=BEFORE, zorder=3, label="before")
    axes.scatter(second[:, 0], second[:, 1], s=14, c=colours, zorder=4, label="after")
    axes.set_xlabel(f"frame error, % ({LOWER})")
    axes.set_ylabel(f"word error rate, % ({LOWER})")
    axes.grid(color="#E2E2E2", zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    means = f"frame error {first[:, 0].mean():.1f} → {second[:, 0].mean():.1f} %, mean of {len(first)} speakers"
    change = f"change {_mean_text(second[:, 0] - first[:, 0])}"
    axes.set_title(f"{title}\n{means}\n{change}", fontsize=10, loc="left", parse_math=False)
    axes.legend(frameon=False, fontsize=9)
    return figure


def tsne_figure(
    before: np.ndarray, after: np.ndarray, owners: Sequence[tuple[str, int]], title: str, seed: int
) -> Figure:
    """Draw frames before and after adaptation in one t-SNE map (van der Maaten and Hinton 2008), coloured by speaker.

    Args:
        before: Activations before adaptation, shape (N, H).
        after: Activations of the same frames after adaptation, shape (N, H).
        owners: Speaker and pdf of each frame.
        title: Title of the figure.
        seed: Seed of the map.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    with extra("figures"):
        from sklearn.manifold import TSNE  # takes a second to load, and no other figure needs it

    both = np.concatenate([before, after]).astype(np.float32)
    perplexity = min(30.0, (len(both) - 1) / 3)
    places = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(both)
    halves = places[: len(before)], places[len(before) :]
    speakers = list(dict.fromkeys(speaker for speaker, _ in owners))
    figure = Figure((9.5, 4.8), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, half, name in zip(panels, halves, ("before", "after"), strict=True):
        for number, speaker in enumerate(speakers):
            own = half[[owner == speaker for owner, _ in owners]]
            colour = SPEAKER_COLOURS[number % len(SPEAKER_COLOURS)]
            axes.scatter(own[:, 0], own[:, 1], s=7, color=colour, linewidths=0, label=speaker)
        axes.set_title(name, fontsize=10, loc="left")
        axes.set_xticks([])
        axes.set_yticks([])
    figure.suptitle(title, fontsize=10, x=0.01, ha="left", parse_math=False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=8, markerscale=2.5)
    return figure


def _mean_text(changes: np.ndarray) -> str:
    """The mean with its 95 % interval by Student's t, which takes two values that differ."""
    mean, deviation = float(changes.mean()), float(changes.std(ddof=1)) if len(changes) > 1 else 0.0
    if deviation == 0.0:
        return f"{mean:+.1f} points (no interval)"
    width = student_quantile(len(changes)) * deviation / math.sqrt(len(changes))
    return f"{mean:+.1f} [{mean - width:+.1f}, {mean + width:+.1f}] points (95 % interval)"


def _colour(change: float) -> str:
    return EQUAL if change == 0 else (BETTER if change < 0 else WORSE)
