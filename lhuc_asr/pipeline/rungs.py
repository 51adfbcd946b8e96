"""The rungs of the ladder: Gaussian aligners, each started from the alignment of the one before.

The first starts from nothing. The last one aligns the training data at every speed, and the held-out speakers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from lhuc_asr.base.stages import Stages
from lhuc_asr.corpus.splits import HELDOUT, TRAIN
from lhuc_asr.features.store import FeatureTable, write_store
from lhuc_asr.hmm.alignment import write_alignment
from lhuc_asr.hmm.feature_space import FeatureSpace, load_feature_space
from lhuc_asr.hmm.fmllr_sat_training import FmllrSatConfig, train_fmllr_sat
from lhuc_asr.hmm.gaussian_features import AdaptedFeatures, FeaturesInSpace, GaussianFeatures, StoredFeatures
from lhuc_asr.hmm.gmm import DiagonalGmm
from lhuc_asr.hmm.lda_mllt_training import LdaMlltConfig, train_lda_mllt
from lhuc_asr.hmm.monophone import MonophoneConfig, train_monophones
from lhuc_asr.hmm.training import GaussianModel, TrainingData
from lhuc_asr.hmm.triphone_training import AlignedModel, TriphoneConfig, train_triphones
from lhuc_asr.pipeline.acoustic_models import CEPSTRA, LDA, SAT, features_of_rung
from lhuc_asr.pipeline.alignment_parts import aligned_splits
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.experiment import Aligned, Experiment
from lhuc_asr.pipeline.feature_stages import feature_stage_name
from lhuc_asr.pipeline.pass_config import Rung
from lhuc_asr.pipeline.split_alignment import AlignmentPlan
from lhuc_asr.pipeline.transcripts import transcripts


class Aligner(Protocol):
    """A way to align the training data."""

    def align(self, stages: Stages, experiment: Experiment, before: Aligned | None) -> Aligned:
        """Add the aligner's stages; ``before`` is the previous aligner's alignment, None for the first aligner."""
        ...


def rungs(config: ExperimentConfig) -> list[Aligner]:
    """The Gaussian aligners of a recipe, in their order."""
    made: list[Aligner] = []
    for rung, before in zip(config.aligners, (None, *config.aligners), strict=False):
        speeds = config.speeds if rung == config.aligners[-1] else None
        if before is None:
            made.append(MonophoneAligner(MonophoneOptions(config.monophone, speeds, config.seed)))
            continue
        options = TiedOptions(
            config=getattr(config, rung),
            before=before,
            features_before=features_of_rung(config, before),
            cepstra=config.alignment_features.cepstra if rung == LDA else None,
            speeds=speeds,
            seed=config.seed,
        )
        made.append(TiedAligner(rung, features_of_rung(config, rung), options))
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
        features = [feature_stage_name(split, kind) for split in (TRAIN, HELDOUT) for kind in ("", CEPSTRA)]
        stages.run(
            rung_stage("mono"),
            partial(_train_monophones, experiment),
            options=self.options,
            after=["lexicon", *features],
            outputs=rung_outputs(experiment, "mono", self.options.speeds),
        )
        return Aligned("mono", rung_stage("mono"))


@dataclass(frozen=True)
class TiedOptions:
    """Everything that a rung of tied triphones depends on.

    Attributes:
        config: Its own options.
        before: The rung before.
        features_before: Kind of the features of the rung before.
        cepstra: Number of static cepstra, for LDA; None for the others.
        speeds: Speeds of the training data that it aligns; None if it is not the last rung.
        seed: Seed of the directions in which Gaussians are split.
    """

    config: TriphoneConfig
    before: Rung
    features_before: str
    cepstra: int | None
    speeds: tuple[float, ...] | None
    seed: int


@dataclass(frozen=True)
class TiedAligner:
    """Gaussian mixtures of tied triphones, from the alignment of the rung before.

    Attributes:
        rung: The rung.
        features: Kind of the features that it models.
        options: The options.
    """

    rung: Rung
    features: str
    options: TiedOptions

    def align(self, stages: Stages, experiment: Experiment, before: Aligned | None) -> Aligned:
        """Add the stage that trains the mixtures; as the last rung, they align."""
        if before is None:
            raise ValueError("tied triphones cannot be the first aligner: their trees come from an alignment")
        folder = experiment.folder
        made = {
            LDA: [
                folder.space(LDA),
                *(folder.features(split, LDA) for split in (TRAIN, HELDOUT)),
            ],
            SAT: [folder.unadapted_gmm(SAT), *(folder.features(split, SAT) for split in (TRAIN, HELDOUT))],
        }
        stages.run(
            rung_stage(self.rung),
            partial(_train_tied, experiment, self.rung, self.features),
            options=self.options,
            after=[before.stage],
            outputs=[*rung_outputs(experiment, self.rung, self.options.speeds), *made.get(self.rung, [])],
        )
        return Aligned(self.rung, rung_stage(self.rung))


def rung_stage(rung: str) -> str:
    """Name of the stage that makes a rung."""
    return {"mono": "monophones", "tri": "triphones"}.get(rung, rung)


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
        align_splits(experiment, AlignmentPlan("mono", CEPSTRA, options.speeds, options.monophone.max_unaligned))


def _train_tied(experiment: Experiment, rung: Rung, kind: str, options: TiedOptions) -> None:
    """Train a rung of tied triphones; as the last rung, align with it."""
    config, folder = options.config, experiment.folder
    store = experiment.features(TRAIN, options.features_before)
    data = training_data(experiment, StoredFeatures(store), config.max_unaligned)
    model_before = read_model(experiment, options.before)
    before = AlignedModel.of(model_before, StoredFeatures(store), data)
    if isinstance(config, LdaMlltConfig):
        if options.cepstra is None:
            raise ValueError("LDA needs the number of static cepstra")
        cepstra = experiment.features(TRAIN, CEPSTRA)
        model, space = train_lda_mllt(before, cepstra, options.cepstra, data, config, options.seed)
        space.save(folder.space(rung))
        for split in (TRAIN, HELDOUT):
            _write_in_space(experiment, split, space)
    elif isinstance(config, FmllrSatConfig):
        _train_speaker_adaptive(experiment, before, data, config, options)
        return
    else:
        model = train_triphones(before, data, config, options.seed)
    save_model(experiment, rung, model)
    if options.speeds:
        align_splits(experiment, AlignmentPlan(rung, kind, options.speeds, config.max_unaligned))


def _train_speaker_adaptive(
    experiment: Experiment, before: AlignedModel, data: TrainingData, config: FmllrSatConfig, options: TiedOptions
) -> None:
    """Train speaker-adaptively; align with speakers' transforms, and write the features that these have moved."""
    if options.speeds is None:
        raise ValueError("the speaker-adaptive rung is the last, which aligns")
    model = train_fmllr_sat(before, data, config, options.seed)
    save_model(experiment, SAT, GaussianModel(model.topology, model.adapted))
    model.unadapted.save(experiment.folder.unadapted_gmm(SAT))
    plan = AlignmentPlan(SAT, options.features_before, options.speeds, config.max_unaligned, adaptive=config)
    align_splits(experiment, plan)


def space_stage(stages: Stages, experiment: Experiment, test: str) -> None:
    """Add the stage that puts the features of a test set into the space of LDA and MLLT."""
    stages.run(
        feature_stage_name(test, LDA),
        partial(_transform, experiment),
        options=test,
        after=[rung_stage(LDA), feature_stage_name(test, CEPSTRA)],
        outputs=[experiment.folder.features(test, LDA)],
    )


def _transform(experiment: Experiment, test: str) -> None:
    columns = experiment.features(test, CEPSTRA).dimension
    _write_in_space(experiment, test, load_feature_space(experiment.folder.space(LDA), columns))


def _write_in_space(experiment: Experiment, split: str, space: FeatureSpace) -> None:
    stored = experiment.features(split, CEPSTRA)
    write_features(experiment.folder.features(split, LDA), stored, FeaturesInSpace(stored, space))


def read_model(experiment: Experiment, rung: Rung) -> GaussianModel:
    """The topology and the Gaussians of a rung."""
    topology = experiment.topology_of(rung)
    return GaussianModel(topology, DiagonalGmm.load(experiment.folder.gmm(rung), topology.pdf_count))


def write_features(folder: Path, store: FeatureTable, features: GaussianFeatures) -> None:
    """Write transformed features of the utterances of a store."""
    items = ((utterance.id, utterance.speaker, features.of([utterance]).numpy()) for utterance in store.utterances)
    write_store(folder, items, features.dimension, normalise=False)


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


def align_splits(experiment: Experiment, plan: AlignmentPlan) -> None:
    """Align with the last rung: the training recordings, at every speed, and those of the held-out speakers."""
    for split, aligned in aligned_splits(experiment, plan):
        write_pdfs(experiment, plan.model, split, aligned.pdfs)
        if aligned.transforms is not None:
            unadapted = StoredFeatures(experiment.features(split, plan.features))
            adapted = AdaptedFeatures(unadapted, aligned.transforms)
            write_features(experiment.folder.features(split, plan.model), unadapted.store, adapted)


def write_pdfs(experiment: Experiment, name: str, split: str, pdfs: Mapping[str, np.ndarray]) -> np.ndarray:
    """Write the alignment of a split to ``hmm/<name>``; returns the pdf of each frame, shape (N,)."""
    return write_alignment(experiment.folder.alignment(name, split), experiment.features(split), pdfs).array
