"""Adaptation to a corpus on a cluster of this machine: what it takes, and whether it is what one process gives.

    python benchmarks/adapting_together.py MODEL CORPUS WORK [--raylets 1,2] [--people 40]

All speakers of CORPUS, or the first of them by name, adapt to MODEL by `adapt` with one thread, and by
`adapt --cluster` on raylets of one processor each, which share a server of S3. Printed are the seconds of each,
without the start of the raylets, and the speakers whose parameters differ from those of one process, to the bit: there
should be none.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import time
from itertools import islice
from pathlib import Path

import torch
from raylets import BUCKET, raylets, s3_server
from timing import show

from lhuc_asr.base.runlog import setup_logging
from lhuc_asr.lhuc.speaker import SpeakerState
from lhuc_asr.recognizer.adapting_together import Machines, adapt_together
from lhuc_asr.recognizer.archive_folder import ArchiveFolder
from lhuc_asr.recognizer.recognizer import load
from lhuc_asr.recognizer.speaker_corpus import SpeakerCorpus, speaker_corpus


def main() -> None:
    """Adapt in each way."""
    parser = argparse.ArgumentParser()
    for name in ("model", "corpus", "work"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--raylets", default="1,2")
    parser.add_argument("--people", type=int)
    arguments = parser.parse_args()
    setup_logging(logging.WARNING)
    torch.set_num_threads(1)
    arguments.work.mkdir(parents=True, exist_ok=True)
    with speaker_corpus(arguments.corpus) as whole, s3_server():
        people = SpeakerCorpus(dict(islice(sorted(whole.named_speakers().items()), arguments.people)), {})
        seconds = sum(recording.seconds for theirs in people.speakers.values() for recording in theirs)
        begun = time.perf_counter()
        alone = adapted_here(arguments.model, people, arguments.work / "speaker.safetensors")
        rows = [("one process", time.perf_counter() - begun, 0)]
        for count in map(int, arguments.raylets.split(",")):
            folder = arguments.work / f"{count} raylets"
            shutil.rmtree(folder, ignore_errors=True)
            with raylets(count) as address:
                begun = time.perf_counter()
                adapt_together(arguments.model, people, folder, Machines(address, f"s3://{BUCKET}/{count}"))
                rows.append((folder.name, time.perf_counter() - begun, differing(alone, ArchiveFolder(folder))))
    show(
        f"{len(alone)} speakers, {seconds:.0f} s of speech",
        ["", "s", "of one process", "of the speech", "speakers that differ"],
        [
            [name, f"{took:.1f}", f"{took / rows[0][1]:.2f}", f"{took / seconds:.3f}", str(others)]
            for name, took, others in rows
        ],
    )


def adapted_here(model: Path, people: SpeakerCorpus, file: Path) -> dict[str, SpeakerState]:
    """The parameters of all speakers, by one process."""
    states = {}
    for each in load(model).adapt_corpus(people):
        each.speaker.save(file)
        states[each.speaker.name] = SpeakerState.load(file)
    return states


def differing(alone: dict[str, SpeakerState], together: ArchiveFolder) -> int:
    """Number of speakers whose parameters are not the same, to the bit."""
    return sum(
        not all(torch.equal(together.state(name).r[site], r) for site, r in state.r.items())
        for name, state in alone.items()
    )


if __name__ == "__main__":
    main()
