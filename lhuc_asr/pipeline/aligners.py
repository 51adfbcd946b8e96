"""The aligners of an experiment, one after the other: each aligns the training data for the next.

The first starts from nothing; every other one starts from the previous alignment. The networks of the passes are
trained on the last alignment, and the graphs have the topology that belongs to it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial

import numpy as np

from lhuc_asr.base.stages import Stages
from lhuc_asr.corpus.splits import TRAIN
from lhuc_asr.pipeline.acoustic_models import realigned
from lhuc_asr.pipeline.alignment_parts import aligned_splits
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.experiment import Aligned, Experiment
from lhuc_asr.pipeline.networks import NetworkOptions, network_stage
from lhuc_asr.pipeline.rungs import Aligner, alignment_outputs, rungs, write_pdfs
from lhuc_asr.pipeline.split_alignment import AlignmentPlan

logger = logging.getLogger(__name__)


def aligners(config: ExperimentConfig) -> list[Aligner]:
    """The aligners of a recipe, in their order."""
    schedule = config.trainer.schedule.model_copy(update={"max_epochs": config.realignment_epochs})
    trainer = config.trainer.model_copy(update={"schedule": schedule})
    network = NetworkOptions(config.dnn, trainer, config.features.dimension, config.seed)
    realignment = RealignmentOptions(config.speeds, config.max_unaligned)
    return [
        *rungs(config),
        *(NetworkAligner(number, network, realignment) for number in range(1, config.realignments + 1)),
    ]


@dataclass(frozen=True)
class RealignmentOptions:
    """Everything that an alignment depends on apart from the network.

    Attributes:
        speeds: Speeds of the training data.
        max_unaligned: Maximum fraction of the utterances that fail to align.
    """

    speeds: tuple[float, ...]
    max_unaligned: float


@dataclass(frozen=True)
class NetworkAligner:
    """A network that is trained on the previous alignment, and aligns anew."""

    number: int
    network: NetworkOptions
    options: RealignmentOptions

    def align(self, stages: Stages, experiment: Experiment, before: Aligned | None) -> Aligned:
        """Add the stages that train the network and align with it."""
        if before is None:
            raise ValueError("a network cannot be the first aligner: it is trained on an alignment")
        network, name, stage = f"first{self.number}", realigned(self.number), f"realign{self.number}"
        network_stage(stages, experiment, network, self.network, before)
        stages.run(
            stage,
            partial(_realign, experiment, network, name, before.alignment),
            options=self.options,
            after=[f"network {network}"],
            outputs=alignment_outputs(experiment, name),
        )
        return Aligned(name, stage)


def _realign(experiment: Experiment, network: str, name: str, previous: str, options: RealignmentOptions) -> None:
    """Align the training and held-out recordings with a network and the previous alignment's topology."""
    plan = AlignmentPlan(previous, "", options.speeds, options.max_unaligned, network=network)
    for split, aligned in aligned_splits(experiment, plan):
        after = write_pdfs(experiment, name, split, aligned.pdfs)
        before = experiment.aligned(previous, split)
        moved = float(np.mean(after != before.array))
        logger.info("%s: the network moved %.1f %% of the frames to another state", split, 100 * moved)
        experiment.folder.metrics.write(f"hmm/{name}", split=split, moved=round(moved, 4))
        if split == TRAIN and aligned.loops is not None:
            topology = experiment.topology_of(previous).with_self_loops(aligned.loops.stays, aligned.loops.visits)
            topology.save(experiment.folder.topology(name))
