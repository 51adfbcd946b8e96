"""The aligners of an experiment, one after the other: each aligns the training data for the next.

The first starts from nothing; every other one starts from the previous alignment. The networks of the passes are
trained on the last alignment, and the graphs have the topology that belongs to it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from lhuc_asr.base.stages import Stages
from lhuc_asr.corpus.splits import HELDOUT, TRAIN
from lhuc_asr.features.store import FeatureStore
from lhuc_asr.hmm.aligner import align_blocks, align_utterances, estimate_self_loops, transcript_graphs
from lhuc_asr.hmm.alignment import write_alignment
from lhuc_asr.hmm.gaussian_features import StoredFeatures
from lhuc_asr.hmm.monophone import MonophoneConfig, train_monophones
from lhuc_asr.hmm.training import TrainingData
from lhuc_asr.nnet.scoring import score_blocks
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.experiment import MONOPHONES, Aligned, Experiment, realigned
from lhuc_asr.pipeline.networks import NetworkOptions, network_stage
from lhuc_asr.pipeline.transcripts import transcripts

logger = logging.getLogger(__name__)


class Aligner(Protocol):
    """A way to align the training data."""

    def align(self, stages: Stages, experiment: Experiment, before: Aligned | None) -> Aligned:
        """Add the aligner's stages; ``before`` is the previous aligner's alignment, None for the first aligner."""
        ...


def aligners(config: ExperimentConfig) -> list[Aligner]:
    """The aligners of a recipe, in their order."""
    schedule = config.trainer.schedule.model_copy(update={"max_epochs": config.realignment_epochs})
    trainer = config.trainer.model_copy(update={"schedule": schedule})
    network = NetworkOptions(config.dnn, trainer, config.features.dimension, config.seed)
    realignment = RealignmentOptions(config.speeds, config.monophone.max_unaligned)
    return [
        MonophoneAligner(MonophoneOptions(config.monophone, config.speeds, config.seed)),
        *(NetworkAligner(number, network, realignment) for number in range(1, config.realignments + 1)),
    ]


@dataclass(frozen=True)
class MonophoneOptions:
    """Everything that the monophones depend on: their own options, the speeds of the training data, the seed."""

    monophone: MonophoneConfig
    speeds: tuple[float, ...]
    seed: int


@dataclass(frozen=True)
class MonophoneAligner:
    """Gaussian mixtures of monophones, from a flat start."""

    options: MonophoneOptions

    def align(self, stages: Stages, experiment: Experiment, before: Aligned | None) -> Aligned:
        """Add the stage that trains the mixtures and aligns with them."""
        folder = experiment.folder
        stages.run(
            "monophones",
            partial(_train_monophones, experiment),
            options=self.options,
            after=["lexicon", "features"],
            outputs=[folder.gmm(MONOPHONES), *alignment_outputs(experiment, MONOPHONES)],
        )
        return Aligned(MONOPHONES, "monophones")


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


def alignment_outputs(experiment: Experiment, name: str) -> list[Path]:
    """The files of an alignment."""
    folder = experiment.folder
    return [folder.topology(name), *(folder.alignment(name, split) for split in (TRAIN, HELDOUT))]


def _train_monophones(experiment: Experiment, options: MonophoneOptions) -> None:
    """Train monophones; align the training recordings, at every speed, and those of the held-out speakers."""
    folder, config = experiment.folder, options.monophone
    store = FeatureStore(folder.alignment_features(TRAIN))
    original = {utterance.id for utterance in experiment.utterances(TRAIN)}
    data = TrainingData(
        [utterance for utterance in store.utterances if utterance.id in original],
        transcripts(experiment, TRAIN, options.speeds),
        experiment.lexicon,
        experiment.processes,
        config.max_unaligned,
    )
    monophones = train_monophones(StoredFeatures(store), data, config, options.seed)
    monophones.topology.save(folder.topology(MONOPHONES))
    monophones.gmm.save(folder.gmm(MONOPHONES))
    for split, speeds in ((TRAIN, options.speeds), (HELDOUT, (1.0,))):
        store = FeatureStore(folder.alignment_features(split))
        words = transcripts(experiment, split, speeds)
        graphs = transcript_graphs(store.utterances, words, experiment.lexicon, monophones.topology)
        pdfs, _ = align_utterances(
            monophones.gmm, StoredFeatures(store), store.utterances, graphs, experiment.processes, config.max_unaligned
        )
        _write(experiment, MONOPHONES, split, pdfs)


def _realign(experiment: Experiment, network: str, name: str, previous: str, options: RealignmentOptions) -> None:
    """Align the training and held-out recordings with a network and the previous alignment's topology."""
    model, topology = experiment.network(network), experiment.topology_of(previous)
    for split, speeds in ((TRAIN, options.speeds), (HELDOUT, (1.0,))):
        store = experiment.features(split)
        words = transcripts(experiment, split, speeds)
        graphs = transcript_graphs(store.utterances, words, experiment.lexicon, topology)
        scores = score_blocks(model, store, store.utterances)
        pdfs, _ = align_blocks(scores, graphs, experiment.processes, options.max_unaligned)
        after, before = _write(experiment, name, split, pdfs), experiment.aligned(previous, split)
        moved = float(np.mean(after != before.array))
        logger.info("%s: the network moved %.1f %% of the frames to another state", split, 100 * moved)
        experiment.folder.metrics.write(f"hmm/{name}", split=split, moved=round(moved, 4))
        if split == TRAIN:
            estimate_self_loops(topology, pdfs.values()).save(experiment.folder.topology(name))


def _write(experiment: Experiment, name: str, split: str, pdfs: Mapping[str, np.ndarray]) -> np.ndarray:
    return write_alignment(experiment.folder.alignment(name, split), experiment.features(split), pdfs).array
