"""Tuning of a network's search on the held-out speakers: its acoustic scale and insertion penalty.

All scales are tried with all penalties; settings whose scales are near each other are read off one search's lattices,
as in Kaldi's scoring scripts. The lowest error rate of dozens of settings is low by luck: on the same network it moves
by a tenth of the errors from one choice to another. What is chosen is therefore the middle of the plateau: the settings
around the lowest point, step by step, whose errors are not above it by more than one standard error, over speakers, of
the difference.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lhuc_asr.decode.search import SearchConfig
from lhuc_asr.pipeline.pass_config import TuningConfig
from lhuc_asr.score.wer import WerReport

logger = logging.getLogger(__name__)

# Largest ratio of scales that share a search: its own scale is then at most a quarter off.
SHARED_RATIO = 1.5

# Numbers of a scale and of a penalty.
Setting = tuple[int, int]


def tune(
    name: str,
    search: SearchConfig,
    options: TuningConfig,
    reports_near: Callable[[SearchConfig, Sequence[SearchConfig]], Sequence[WerReport]],
) -> tuple[SearchConfig, dict[str, Any]]:
    """Try all scales with all penalties.

    Args:
        name: Name of the pass, for the log.
        search: Options of the search, apart from scale and penalty.
        options: Scales and penalties to try.
        reports_near: Function from a search, and others that differ from it in scale and penalty, to the errors of
            each of the others on the held-out speakers.

    Returns:
        The options with the chosen scale and penalty, and a record of all that was tried.
    """
    scales, penalties = sorted(set(options.acoustic_scales)), sorted(set(options.insertion_penalties))
    searches = {
        (i, j): search.model_copy(update={"acoustic_scale": scale, "insertion_penalty": penalty})
        for i, scale in enumerate(scales)
        for j, penalty in enumerate(penalties)
    }
    reports: dict[Setting, WerReport] = {}
    for group in _near(scales):
        middle = searches[group[len(group) // 2], len(penalties) // 2]
        near = [setting for setting in searches if setting[0] in group]
        reports |= zip(near, reports_near(middle, [searches[setting] for setting in near]), strict=True)
    plateau = plateau_of(reports)
    setting = middle_of(plateau, reports)
    chosen, wer = searches[setting], 100 * reports[setting].wer
    logger.info(
        "%s: acoustic scale %g, insertion penalty %g (held out %.2f %%; as good within chance: %d of %d settings)",
        name, chosen.acoustic_scale, chosen.insertion_penalty, wer, len(plateau), len(searches),
    )  # fmt: skip
    tried = [
        {
            **_tuned(searches[each]),
            "wer": report.wer,
            "errors": report.errors,
            "plateau": each in plateau,
            "speakers": {speaker: score.errors for speaker, score in report.speakers.items()},
        }
        for each, report in reports.items()
    ]
    return chosen, {"chosen": _tuned(chosen), "tried": tried}


def plateau_of(reports: Mapping[Setting, WerReport]) -> set[Setting]:
    """The settings that are connected with the best one by settings that are not worse beyond chance.

    Of several best ones, the one with the largest plateau is taken.

    Args:
        reports: Errors at each setting of a grid, all over the same utterances.
    """
    lowest = min(report.errors for report in reports.values())
    best = sorted(setting for setting, report in reports.items() if report.errors == lowest)
    return max((_plateau_around(setting, reports) for setting in best), key=len)


def middle_of(plateau: set[Setting], reports: Mapping[Setting, WerReport]) -> Setting:
    """The setting nearest to the plateau's centre; of several, the one with the fewest errors."""
    centre = np.mean(sorted(plateau), axis=0)
    return min(plateau, key=lambda setting: (round(math.dist(setting, centre), 9), reports[setting].errors, setting))


def _near(scales: Sequence[float]) -> Iterator[range]:
    """The numbers of neighbouring scales whose ratio is at most ``SHARED_RATIO``."""
    first = 0
    for end in range(1, len(scales) + 1):
        if end == len(scales) or scales[end] > SHARED_RATIO * scales[first]:
            yield range(first, end)
            first = end


def _plateau_around(best: Setting, reports: Mapping[Setting, WerReport]) -> set[Setting]:
    plateau, edge = {best}, [best]
    while edge:
        i, j = edge.pop()
        for setting in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
            if setting in reports and setting not in plateau and _within_chance(reports[setting], reports[best]):
                plateau.add(setting)
                edge.append(setting)
    return plateau


def _within_chance(report: WerReport, best: WerReport) -> bool:
    """Whether the errors exceed the best ones by at most one standard error, over speakers, of the difference."""
    differences = np.array([report.speakers[name].errors - score.errors for name, score in best.speakers.items()])
    error = differences.std(ddof=1) * math.sqrt(len(differences)) if len(differences) > 1 else 0.0
    return float(differences.sum()) <= error


def _tuned(search: SearchConfig) -> dict[str, float]:
    return {"acoustic_scale": search.acoustic_scale, "insertion_penalty": search.insertion_penalty}
