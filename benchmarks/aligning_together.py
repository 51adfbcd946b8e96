"""The last alignment of a ladder on a cluster of this machine: what it takes, and whether it is what one process gives.

    python benchmarks/aligning_together.py EXP [--raylets 1,2]

EXP is a finished experiment, or a fold of one, whose last rung is ``fmllr_sat``. Its training speakers, at all speeds,
and its held-out speakers are aligned again, by one process and by raylets of one processor each; nothing is trained,
and nothing is written to EXP. Printed are the seconds, without the start of the raylets, and the utterances whose pdfs
differ from those of one process: there should be none.
"""

from __future__ import annotations

import argparse
import logging
import time
from dataclasses import replace
from pathlib import Path

from raylets import BUCKET, raylets, s3_server
from timing import show

from lhuc_asr.base.runlog import setup_logging
from lhuc_asr.pipeline.acoustic_models import SAT, features_of_rung
from lhuc_asr.pipeline.alignment_parts import aligned_splits
from lhuc_asr.pipeline.cluster_config import RayConfig
from lhuc_asr.pipeline.experiment import read_experiment
from lhuc_asr.pipeline.split_alignment import AlignmentPlan


def main() -> None:
    """Align in each way."""
    parser = argparse.ArgumentParser()
    parser.add_argument("exp", type=Path)
    parser.add_argument("--raylets", default="1,2")
    arguments = parser.parse_args()
    setup_logging(logging.INFO)
    exp: Path = arguments.exp
    begun = time.perf_counter()
    here = alignments(exp, None)
    rows = [["one process", f"{time.perf_counter() - begun:.1f}", "", ""]]
    with s3_server():
        for count in map(int, arguments.raylets.split(",")):
            with raylets(count) as address:
                begun = time.perf_counter()
                there = alignments(exp, RayConfig(address=address, store=f"s3://{BUCKET}/{count}"))
                took = time.perf_counter() - begun
            differ = sum(there.get(name) != pdfs for name, pdfs in here.items())
            rows.append([f"{count} raylets", f"{took:.1f}", str(len(here)), str(differ)])
    show(f"{exp}: alignment with {SAT}", ["", "s", "utterances", "differ"], rows)


def alignments(exp: Path, settings: RayConfig | None) -> dict[str, bytes]:
    """The pdfs of each training and held-out utterance, aligned with the last rung."""
    config, experiment = read_experiment(exp)
    features, options = features_of_rung(config, config.aligners[-2]), config.fmllr_sat
    plan = AlignmentPlan(SAT, features, config.speeds, options.max_unaligned, adaptive=options)
    made = aligned_splits(replace(experiment, processes=1, ray=settings), plan)
    return {f"{split} {name}": pdfs.tobytes() for split, aligned in made for name, pdfs in aligned.pdfs.items()}


if __name__ == "__main__":
    main()
