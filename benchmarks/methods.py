"""Processor seconds of adapting to a minute of speech, for every method with its default options, and the numbers kept.

    python benchmarks/methods.py EXPERIMENT [--speakers N] [METHOD ...]

The speakers are those of the experiment's first test split who come first; the targets are the best paths of their
finished first pass. Only the estimation is measured, in one thread: not the search, and not what a method has learned
from the training speakers before. Left out are methods that need Gaussians, or a network that takes a vector of the
speaker.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from adapting import first_pass, methods_of, ready, title_of
from timing import Spread, show

from lhuc_asr.adapt.adaptation_sets import DataConfig, adaptation_sets
from lhuc_asr.adapt.method import AdaptationMethod, AdaptedSpeakers, MethodConfig
from lhuc_asr.adapt.methods import METHODS
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.adapt.targets import TargetsConfig
from lhuc_asr.base.tensors import number_count
from lhuc_asr.base.units import FRAME_SHIFT_SECONDS
from lhuc_asr.nnet.acoustic_model import AcousticModel
from lhuc_asr.pipeline.earlier_pass import two_pass
from lhuc_asr.pipeline.experiment import read_experiment
from lhuc_asr.pipeline.pass_config import SI
from lhuc_asr.pipeline.plan import passes_of

ROUNDS = 3


class Watched:
    """A method that keeps the processor time of each estimate."""

    def __init__(self, method: AdaptationMethod) -> None:
        self._method = method
        self.seconds: list[float] = []

    def estimate(self, model: AcousticModel, speakers: Mapping[str, SpeakerData], seed: int) -> AdaptedSpeakers:
        """Estimate some times; see ``AdaptationMethod``."""
        for _ in range(ROUNDS + 1):
            start = time.process_time()
            estimated = self._method.estimate(model, speakers, seed)
            self.seconds.append(time.process_time() - start)
        del self.seconds[0]
        return estimated


def main(path: Path, wanted: int, methods: Sequence[MethodConfig]) -> None:
    """Print the table."""
    config, experiment = read_experiment(path)
    targets = TargetsConfig()
    split, plan = config.test_sets[0], passes_of(config)[SI]
    loop = two_pass(experiment, split, plan)
    environments = {utterance.id: utterance.environment for utterance in experiment.utterances(split)}
    sets = adaptation_sets(loop.features, environments, DataConfig(), config.seed)[:wanted]
    minutes = sum(frames for each in sets for _, frames in each.estimated_on) * FRAME_SHIFT_SECONDS / 60
    rows: list[list[object]] = []
    for method in methods:
        watched = Watched(ready(experiment, method, targets.silence_weight, config.seed))
        earlier = first_pass(experiment, split, plan, method, targets, loop)
        speakers = loop.adapt(watched, earlier, targets, sets, config.seed)
        rows.append(
            [title_of(method), numbers(speakers), Spread.of([seconds / minutes for seconds in watched.seconds])]
        )
    show(
        f"{len(sets)} speakers together, {minutes:.1f} minutes",
        ["method", "numbers a speaker", "processor seconds a minute of speech [quartiles]"],
        rows,
    )


def all_methods() -> list[MethodConfig]:
    """Every method that adapts the network ``si`` without Gaussians, with its default options."""
    return [
        method(kind=kind)
        for kind, method in METHODS.items()
        if kind != "none" and not method.uses_gaussians and not method.needs_vectors
    ]


def numbers(speakers: AdaptedSpeakers) -> int:
    """How many numbers a speaker's file has."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "speaker.safetensors"
        speakers.save_speaker(speakers.speakers[0], path, {})
        return number_count(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", type=Path)
    parser.add_argument("--speakers", type=int, default=10, help="number of speakers (default: %(default)s)")
    parser.add_argument("methods", nargs="*", metavar="METHOD", help="options of a method; all by default unless given")
    arguments = parser.parse_intermixed_args()
    torch.set_num_threads(1)
    main(arguments.experiment, arguments.speakers, methods_of(arguments.methods) or all_methods())
