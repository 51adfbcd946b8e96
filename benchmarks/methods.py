"""Processor seconds of adapting to a minute of speech, for every method with its default options, and the numbers kept.

    python benchmarks/methods.py EXPERIMENT [--speakers N] [METHOD ...]

The speakers are those of the experiment's first test split who come first; the targets are the best paths of their
finished first pass. Only the estimation is measured, in one thread: not the search, and not what a method has learned
from the training speakers before. Methods that need Gaussians are left out.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import yaml
from pydantic import TypeAdapter
from timing import Spread, show

from lhuc_asr.adapt.adaptation_sets import DataConfig, adaptation_sets
from lhuc_asr.adapt.method import AdaptationMethod, AdaptedSpeakers, MethodConfig
from lhuc_asr.adapt.methods import METHODS, AnyMethod
from lhuc_asr.adapt.prepared import PreparedConfig
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.adapt.targets import TargetsConfig
from lhuc_asr.base.tensors import number_count
from lhuc_asr.base.units import FRAME_SHIFT_SECONDS
from lhuc_asr.decode.lattice_search import LatticeConfig
from lhuc_asr.nnet.acoustic_model import AcousticModel
from lhuc_asr.pipeline.earlier_pass import EarlierPass, two_pass
from lhuc_asr.pipeline.experiment import AlignedExperiment, read_experiment
from lhuc_asr.pipeline.pass_config import SI
from lhuc_asr.pipeline.passes import prepare
from lhuc_asr.pipeline.plan import Adaptation, Preparation, passes_of

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
    split, plan = experiment.tests[0], passes_of(config)[SI]
    loop = two_pass(experiment, split, plan)
    environments = {utterance.id: utterance.environment for utterance in experiment.utterances(split)}
    sets = adaptation_sets(loop.features, environments, DataConfig(), config.seed)[:wanted]
    minutes = sum(frames for each in sets for _, frames in each.estimated_on) * FRAME_SHIFT_SECONDS / 60
    rows: list[list[object]] = []
    for method in methods:
        adaptation = Adaptation(plan, DataConfig(), TargetsConfig(), method, None, None, LatticeConfig(), None)
        earlier = EarlierPass(experiment, split, plan, plan, adaptation, loop.model)
        watched = Watched(method.make(learned(experiment, method, config.seed)))
        speakers = loop.adapt(watched, earlier, TargetsConfig(), sets, config.seed)
        title = yaml.safe_dump(method.model_dump(exclude_unset=True), default_flow_style=True, width=1000).strip()
        rows.append([title, numbers(speakers), Spread.of([seconds / minutes for seconds in watched.seconds])])
    show(
        f"{len(sets)} speakers together, {minutes:.1f} minutes",
        ["method", "numbers a speaker", "processor seconds a minute of speech [quartiles]"],
        rows,
    )


def learned(experiment: AlignedExperiment, method: MethodConfig, seed: int) -> Path | None:
    """The folder of what a method has learned from the training speakers; None for a method that does not."""
    if not isinstance(method, PreparedConfig):
        return None
    preparation = Preparation(SI, method, TargetsConfig().silence_weight, None, seed)
    folder = experiment.folder.prepared(preparation.name)
    if not folder.exists():
        prepare(experiment, preparation)
    return folder


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
    adapter: TypeAdapter[MethodConfig] = TypeAdapter(AnyMethod)
    main(
        arguments.experiment,
        arguments.speakers,
        [adapter.validate_python(yaml.safe_load(text)) for text in arguments.methods]
        or [METHODS[kind](kind=kind) for kind in METHODS if kind != "none" and not METHODS[kind].uses_gaussians],
    )
