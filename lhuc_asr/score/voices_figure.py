"""Figure of voices by pitch and level: test speakers, by what adaptation changed, among the training speakers."""

from __future__ import annotations

from collections.abc import Mapping

from lhuc_asr.base.extras import extra
from lhuc_asr.score.figures import BETTER, EQUAL, WORSE

with extra("figures"):
    from matplotlib.figure import Figure

TRAINING = "#C9C9C4"


def voices_figure(
    training: Mapping[str, tuple[float, float]], tested: Mapping[str, tuple[float, float]], gained: Mapping[str, int]
) -> Figure:
    """Draw pitch against level, a dot a speaker.

    Args:
        training: Pitch in hertz and level in decibels of the training speakers, by name.
        tested: The same of the test speakers.
        gained: Word errors that adaptation took from each test speaker; negative where it added some.
    """
    figure = Figure((7.0, 3.8), layout="constrained")
    axes = figure.add_subplot()
    only_training = [each for name, each in training.items() if name not in tested]
    if only_training:
        pitch, level = zip(*only_training, strict=True)
        axes.scatter(pitch, level, s=16, c=TRAINING, linewidths=0, label=f"training ({len(pitch)})", zorder=2)
    kinds = (("fewer errors", BETTER, 1), ("as many", EQUAL, 0), ("more errors", WORSE, -1))
    for label, colour, sign in kinds:
        own = [each for name, each in tested.items() if (gained[name] > 0) - (gained[name] < 0) == sign]
        if own:
            pitch, level = zip(*own, strict=True)
            axes.scatter(pitch, level, s=28, c=colour, linewidths=0, label=f"{label} ({len(own)})", zorder=3)
    axes.set_xscale("log")
    ticks = (75, 100, 150, 200, 300, 400)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("pitch, Hz (median of the voiced frames)")
    axes.set_ylabel("level, dB of full scale")
    axes.grid(color="#E2E2E2", zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    return figure
