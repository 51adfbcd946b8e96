"""The alignment of a split to its transcripts: by Gaussians, by speaker-adaptive Gaussians, or by a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lhuc_asr.hmm.aligner import (
    SelfLoopCounts,
    align_blocks,
    align_utterances,
    count_self_loops,
    pdfs_of,
    transcript_graphs,
)
from lhuc_asr.hmm.fmllr_sat_training import FmllrSatConfig, SpeakerAdaptiveModel, align_adapted
from lhuc_asr.hmm.gaussian_features import StoredFeatures
from lhuc_asr.hmm.gmm import DiagonalGmm
from lhuc_asr.hmm.speaker_transforms import SpeakerTransforms
from lhuc_asr.hmm.training import TrainingData
from lhuc_asr.nnet.scoring import score_blocks
from lhuc_asr.pipeline.experiment import Experiment
from lhuc_asr.pipeline.transcripts import transcripts


@dataclass(frozen=True)
class AlignmentPlan:
    """How a split is aligned; plain values.

    Attributes:
        model: Folder in ``hmm/`` with the topology, and with the Gaussians that align.
        features: Kind of the features.
        speeds: Speeds at which each recording is aligned.
        max_unaligned: Share of the utterances that may fail to align; None where whoever has the other utterances of
            the split counts.
        adaptive: Options of the Gaussians' training, for those of features that speakers' transforms have moved; None
            for others.
        network: The network that aligns; None for Gaussians.
    """

    model: str
    features: str
    speeds: tuple[float, ...]
    max_unaligned: float | None
    adaptive: FmllrSatConfig | None = None
    network: str | None = None


@dataclass(frozen=True)
class SplitAlignment:
    """An alignment.

    Attributes:
        pdfs: Pdfs of each aligned utterance, by its id, shape (T,).
        transforms: The speakers' transforms, of speaker-adaptive Gaussians; None for other models.
        loops: How often the paths stay in a state, of a network; None for Gaussians.
    """

    pdfs: Mapping[str, np.ndarray]
    transforms: SpeakerTransforms | None = None
    loops: SelfLoopCounts | None = None


def align_split(experiment: Experiment, split: str, plan: AlignmentPlan) -> SplitAlignment:
    """Align the utterances of a split. What an utterance gets depends on nobody but its speaker.

    Raises:
        AlignmentError: More utterances than ``max_unaligned`` cannot be aligned, or a transcript has a word that the
            lexicon lacks.
    """
    folder, topology = experiment.folder, experiment.topology_of(plan.model)
    store = experiment.features(split, plan.features)
    words, limits = transcripts(experiment, split, plan.speeds), (experiment.processes, plan.max_unaligned)
    if plan.adaptive is not None:
        files = folder.gmm(plan.model), folder.unadapted_gmm(plan.model)
        adaptive = SpeakerAdaptiveModel(topology, *(DiagonalGmm.load(file, topology.pdf_count) for file in files))
        data = TrainingData(store.utterances, words, experiment.lexicon, *limits)
        transforms, pdfs = align_adapted(adaptive, StoredFeatures(store), data, plan.adaptive)
        return SplitAlignment(pdfs, transforms)
    graphs = transcript_graphs(store.utterances, words, experiment.lexicon, topology)
    if plan.network is None:
        gmm = DiagonalGmm.load(folder.gmm(plan.model), topology.pdf_count)
        paths, _ = align_utterances(gmm, StoredFeatures(store), store.utterances, graphs, *limits)
        return SplitAlignment(pdfs_of(paths))
    scores = score_blocks(experiment.network(plan.network), store, store.utterances)
    paths, _ = align_blocks(scores, graphs, *limits)
    staying = ((path.pdfs, path.stays) for path in paths.values())
    return SplitAlignment(pdfs_of(paths), loops=count_self_loops(topology.pdf_count, staying))
