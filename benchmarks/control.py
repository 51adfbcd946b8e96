"""Time of a control against a first pass: both are one decoding of the same recordings.

    python benchmarks/control.py exp/demo [--split test] [--pass lhuc] [--rounds 5]

The passes are made in turn, in place; a pass that is made again has the same bytes.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch
from timing import show

from lhuc_asr.pipeline.config import SI, reuse_name
from lhuc_asr.pipeline.experiment import read_experiment
from lhuc_asr.pipeline.passes import run_pass
from lhuc_asr.pipeline.plan import passes_of


def main() -> None:
    """Print the seconds of each pass, and each control's ratio to the first pass."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--pass", dest="adapted", default="lhuc")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    config, experiment = read_experiment(arguments.experiment)
    torch.set_num_threads(config.workers)
    plans, controls = passes_of(config), [reuse_name(arguments.adapted, whose) for whose in ("others_mean", "another")]
    seconds: dict[str, list[float]] = {}
    for _ in range(arguments.rounds):
        for name in (SI, *controls):
            begun = time.perf_counter()
            run_pass(experiment, arguments.split, plans[name])
            seconds.setdefault(name, []).append(time.perf_counter() - begun)
    rows = []
    for name, own in seconds.items():
        ratio = statistics.median(one / first for one, first in zip(own, seconds[SI], strict=True))
        rows.append((name, f"{statistics.median(own):.2f}", f"{ratio:.2f}"))
    show(f"{arguments.experiment}: {arguments.split}", ("pass", "seconds", f"of {SI}"), rows)


if __name__ == "__main__":
    main()
