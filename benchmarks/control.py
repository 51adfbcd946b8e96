"""Cost of a control beside one decoding: what it adds to a search of the same scores.

    python benchmarks/control.py exp/demo [--split test] [--pass lhuc] [--rounds 5]

A control's scores are not the first pass' scores: they are flatter or sharper, and the same beam holds more or fewer
states. "One decoding" is therefore the first pass' own scoring and the search of the *control's* scores; the ratio to
it is what the control costs more, reading and pooling speakers and scoring with amplitudes. Nothing is written.
Processor seconds of one thread, passes in turns.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from timing import show

from lhuc_asr.decode.pool import SearchPool
from lhuc_asr.pipeline.earlier_pass import scores_of, tuned_search, two_pass
from lhuc_asr.pipeline.experiment import AlignedExperiment, read_experiment
from lhuc_asr.pipeline.pass_config import SI, reuse_name
from lhuc_asr.pipeline.plan import passes_of
from lhuc_asr.pipeline.resolved_pass import Pass

ResultT = TypeVar("ResultT")


def timed(work: Callable[[], ResultT]) -> tuple[ResultT, float]:
    """The result of some work, and its processor seconds."""
    begun = time.process_time()
    result = work()
    return result, time.process_time() - begun


def scoring_and_search(
    experiment: AlignedExperiment, split: str, plan: Pass, searches: SearchPool
) -> tuple[float, float]:
    """Processor seconds of a pass: the scores with all that they are made from, and their search."""
    scores, scoring = timed(lambda: list(scores_of(experiment, split, plan, two_pass(experiment, split, plan))))
    _, search = timed(lambda: list(searches.search_all(scores, tuned_search(experiment, plan))))
    return scoring, search


def main() -> None:
    """Print the seconds of each pass, and each control's ratio to one decoding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--pass", dest="adapted", default="lhuc")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    config, experiment = read_experiment(arguments.experiment)
    torch.set_num_threads(1)
    plans, controls = passes_of(config), [reuse_name(arguments.adapted, whose) for whose in ("others_mean", "another")]
    rounds: dict[str, list[tuple[float, float]]] = {}
    searches = SearchPool(experiment.graph(arguments.split), processes=1)
    for _ in range(arguments.rounds):
        for name in (SI, *controls):
            took = scoring_and_search(experiment, arguments.split, plans[name], searches)
            rounds.setdefault(name, []).append(took)
    rows = []
    for name, own in rounds.items():
        scoring, search = (statistics.median(seconds) for seconds in zip(*own, strict=True))
        against = [(mine + its) / (first + its) for (mine, its), (first, _) in zip(own, rounds[SI], strict=True)]
        searched = statistics.median(its / first for (_, its), (_, first) in zip(own, rounds[SI], strict=True))
        rows.append((name, f"{scoring:.2f}", f"{search:.2f}", f"{searched:.2f}", f"{statistics.median(against):.3f}"))
    columns = ("pass", "scoring, s", "search, s", f"search, of {SI}'s", "of one decoding")
    show(f"{arguments.experiment}: {arguments.split}", columns, rows)


if __name__ == "__main__":
    main()
