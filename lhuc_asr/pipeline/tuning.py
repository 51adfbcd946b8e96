"""Tuning of a pass's search on the held-out speakers: its acoustic scale and insertion penalty."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from lhuc_asr.decode.search import SearchConfig
from lhuc_asr.pipeline.config import TuningConfig

logger = logging.getLogger(__name__)


def tune(
    name: str, search: SearchConfig, options: TuningConfig, wer_of_search: Callable[[SearchConfig], float]
) -> tuple[SearchConfig, dict[str, Any]]:
    """Try all scales, then all penalties with the best scale, and repeat both once.

    Args:
        name: Name of the pass, for the log.
        search: Options of the search; scales are first tried with the penalty given here.
        options: Scales and penalties to try.
        wer_of_search: Function from options to the word error rate on the held-out speakers, as a fraction.

    Returns:
        The options with the best scale and penalty, and a record of all that was tried.
    """
    tried: list[dict[str, float]] = []

    def wer_of(scale: float, penalty: float) -> float:
        for row in tried:
            if (row["acoustic_scale"], row["insertion_penalty"]) == (scale, penalty):
                return row["wer"]
        wer = wer_of_search(search.model_copy(update={"acoustic_scale": scale, "insertion_penalty": penalty}))
        tried.append({"acoustic_scale": scale, "insertion_penalty": penalty, "wer": wer})
        return wer

    penalty = search.insertion_penalty
    for _ in range(2):  # the best scale depends on the penalty, and vice versa
        scale = _best_of(options.acoustic_scales, partial(wer_of, penalty=penalty))
        penalty = _best_of(options.insertion_penalties, partial(wer_of, scale))
    wer = wer_of(scale, penalty)
    logger.info("%s: acoustic scale %g, insertion penalty %g (held out %.2f %%)", name, scale, penalty, 100 * wer)
    chosen = {"acoustic_scale": scale, "insertion_penalty": penalty}
    return search.model_copy(update=chosen), {"chosen": chosen, "tried": tried}


def _best_of(options: Sequence[float], wer_of: Callable[[float], float]) -> float:
    """The option with the lowest error rate; of several equal ones, the middle one, farthest from where errors rise."""
    wers = [wer_of(option) for option in options]
    best = [option for option, wer in zip(options, wers, strict=True) if wer == min(wers)]
    return best[len(best) // 2]
