"""The rungs of the ladder: Gaussian aligners, each started from the alignment of the one before.

The first starts from nothing. The last one aligns the training data at every speed, and the held-out speakers.
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
from lhuc_asr.hmm.aligner import align_utterances, transcript_graphs
from lhuc_asr.hmm.alignment import write_alignment
from lhuc_asr.hmm.gaussian_features import GaussianFeatures, StoredFeatures
from lhuc_asr.hmm.monophone import MonophoneConfig, train_monophones
from lhuc_asr.hmm.training import GaussianModel, TrainingData
from lhuc_asr.pipeline.acoustic_models import CEPSTRA
from lhuc_asr.pipeline.config import ExperimentConfig, Rung
from lhuc_asr.pipeline.experiment import Aligned, Experiment
from lhuc_asr.pipeline.transcripts import transcripts

logger = logging.getLogger(__name__)


class Aligner(Protocol):
    """A way to align the training data."""

    def align(self, stages: Stages, experiment: Experiment, before: Aligned | None) -> Aligned:
        """Add the aligner's stages; ``before`` is the previous aligner's alignment, None for the first aligner."""
        ...


def rungs(config: ExperimentConfig) -> list[Aligner]:
    """The Gaussian aligners of a recipe, in their order."""
    made: list[Aligner] = []
    for rung in config.aligners:
        last = rung == config.aligners[-1]
        if rung == "mono":
            made.append(
                MonophoneAligner(MonophoneOptions(config.monophone, config.speeds if last else None, config.seed))
            )
    return made


@dataclass(frozen=True)
class MonophoneOptions:
    """Everything that the monophones depend on.

    Attributes:
        monophone: Their own options.
        speeds: Speeds of the training data that they align; None if they are not the last rung.
        seed: Seed of the directions in which Gaussians are split.
    """

    monophone: MonophoneConfig
    speeds: tuple[float, ...] | None
    seed: int


@dataclass(frozen=True)
class MonophoneAligner:
    """Gaussian mixtures of monophones, from a flat start."""

    options: MonophoneOptions

    def align(self, stages: Stages, experiment: Experiment, before: Aligned | None) -> Aligned:
        """Add the stage that trains the mixtures and aligns with them."""
        stages.run(
            rung_stage("mono"),
            partial(_train_monophones, experiment),
            options=self.options,
            after=["lexicon", "features"],
            outputs=rung_outputs(experiment, "mono", self.options.speeds),
        )
        return Aligned("mono", rung_stage("mono"))


def rung_stage(rung: str) -> str:
    """Name of the stage that makes a rung."""
    return "monophones" if rung == "mono" else rung


def rung_outputs(experiment: Experiment, rung: Rung, speeds: tuple[float, ...] | None) -> list[Path]:
    """The files of a rung; without ``speeds`` it does not align."""
    folder = experiment.folder
    aligned = alignment_outputs(experiment, rung) if speeds else [folder.topology(rung)]
    return [folder.gmm(rung), *aligned]


def alignment_outputs(experiment: Experiment, name: str) -> list[Path]:
    """The files of an alignment."""
    folder = experiment.folder
    return [folder.topology(name), *(folder.alignment(name, split) for split in (TRAIN, HELDOUT))]


def _train_monophones(experiment: Experiment, options: MonophoneOptions) -> None:
    """Train monophones; as the last rung, align with them."""
    features = StoredFeatures(experiment.features(TRAIN, CEPSTRA))
    data = training_data(experiment, features, options.monophone.max_unaligned)
    model = train_monophones(features, data, options.monophone, options.seed)
    save_model(experiment, "mono", model)
    if options.speeds:
        stored = {split: StoredFeatures(experiment.features(split, CEPSTRA)) for split in (TRAIN, HELDOUT)}
        align_splits(experiment, "mono", model, stored, options.speeds, options.monophone.max_unaligned)


def training_data(experiment: Experiment, features: StoredFeatures, max_unaligned: float) -> TrainingData:
    """The training recordings, at their own speed, with their transcripts."""
    original = {utterance.id for utterance in experiment.utterances(TRAIN)}
    return TrainingData(
        [utterance for utterance in features.store.utterances if utterance.id in original],
        transcripts(experiment, TRAIN),
        experiment.lexicon,
        experiment.processes,
        max_unaligned,
    )


def save_model(experiment: Experiment, rung: Rung, model: GaussianModel) -> None:
    """Write the topology and the Gaussians of a rung."""
    model.topology.save(experiment.folder.topology(rung))
    model.gmm.save(experiment.folder.gmm(rung))


def align_splits(
    experiment: Experiment,
    rung: Rung,
    model: GaussianModel,
    features: Mapping[str, GaussianFeatures],
    speeds: tuple[float, ...],
    max_unaligned: float,
) -> None:
    """Align the training recordings, at every speed, and those of the held-out speakers."""
    for split, spoken in ((TRAIN, speeds), (HELDOUT, (1.0,))):
        utterances = experiment.features(split, CEPSTRA).utterances
        words = transcripts(experiment, split, spoken)
        graphs = transcript_graphs(utterances, words, experiment.lexicon, model.topology)
        pdfs, _ = align_utterances(model.gmm, features[split], utterances, graphs, experiment.processes, max_unaligned)
        write_pdfs(experiment, rung, split, pdfs)


def write_pdfs(experiment: Experiment, name: str, split: str, pdfs: Mapping[str, np.ndarray]) -> np.ndarray:
    """Write the alignment of a split to ``hmm/<name>``; returns the pdf of each frame, shape (N,)."""
    return write_alignment(experiment.folder.alignment(name, split), experiment.features(split), pdfs).array
