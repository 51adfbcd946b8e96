"""Training of tied triphones: a tree from an alignment, one Gaussian for each leaf, then growth.

The order of steps and the numbers of iterations are those of Kaldi's steps/train_deltas.sh.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lhuc_asr.features.store import StoredUtterance
from lhuc_asr.hmm.aligned_phones import AlignedPhones
from lhuc_asr.hmm.aligner import align_utterances, estimate_self_loops, transcript_graphs
from lhuc_asr.hmm.gaussian_features import GaussianFeatures
from lhuc_asr.hmm.tied_gaussians import pdf_statistics, single_gaussians
from lhuc_asr.hmm.training import (
    GaussianModel,
    Growth,
    MixtureConfig,
    TrainingData,
    TrainingState,
    aligned_blocks,
    train_mixtures,
)
from lhuc_asr.hmm.tree_building import TreeConfig, build_tree
from lhuc_asr.hmm.tree_statistics import TreeStatistics
from lhuc_asr.hmm.triphone import TriphoneTopology

# Iterations that align first (Kaldi's realign_iters).
ALIGNING_ITERATIONS = (10, 20, 30)


class TriphoneConfig(MixtureConfig):
    """Options of a rung of tied triphones: those of its mixtures, and of its tree.

    Attributes:
        tree: Options of the decision tree.
    """

    tree: TreeConfig = TreeConfig()

    def growth(self, name: str) -> Growth:
        """Iterations and numbers of Gaussians."""
        aligning = ALIGNING_ITERATIONS.__contains__
        return Growth(name, self.iterations, self.growing_iterations, self.gaussians, aligning)


@dataclass(frozen=True)
class AlignedModel:
    """A model with the features that it models, and its alignment of the training data.

    Attributes:
        model: The model.
        features: The features that its Gaussians model.
        phones: Phones of each aligned utterance, by its id.
    """

    model: GaussianModel
    features: GaussianFeatures
    phones: Mapping[str, AlignedPhones]

    @classmethod
    def of(cls, model: GaussianModel, features: GaussianFeatures, data: TrainingData) -> AlignedModel:
        """Align the training data.

        Args:
            model: The model.
            features: The features that its Gaussians model.
            data: The utterances.

        Raises:
            AlignmentError: A word is not in the lexicon, or too many utterances cannot be aligned.
        """
        graphs = transcript_graphs(data.utterances, data.transcripts, data.lexicon, model.topology)
        limits = data.threads, data.max_unaligned
        paths, _ = align_utterances(model.gmm, features, data.utterances, graphs, *limits)
        known = data.lexicon.phones
        return cls(model, features, {name: AlignedPhones.of(path, graphs[name], known) for name, path in paths.items()})


def train_triphones(before: AlignedModel, data: TrainingData, config: TriphoneConfig, seed: int) -> GaussianModel:
    """Train tied triphones on the features of an earlier model.

    Args:
        before: The earlier model and its alignment.
        data: The utterances.
        config: Sizes and iterations.
        seed: Seed of the directions in which Gaussians are split.

    Raises:
        AlignmentError: Too many utterances cannot be aligned, or there are more roots of trees than wanted leaves.
    """
    start = tied_start(before.phones, before.features, data, config.tree)
    return train_mixtures(start, data, config.growth("triphones"), seed).model


def tree_statistics(
    phones: Mapping[str, AlignedPhones], features: GaussianFeatures, utterances: Sequence[StoredUtterance]
) -> TreeStatistics:
    """The statistics that a tree is built from.

    Args:
        phones: Phones of each aligned utterance, by its id.
        features: The features that the tree's Gaussians are to model.
        utterances: The utterances; those that are not aligned are left out.
    """
    return TreeStatistics.total(
        TreeStatistics.of(features.of(block), [phones[utterance.id] for utterance in block])
        for block in aligned_blocks(utterances, phones)
    )


def tied_start(
    phones: Mapping[str, AlignedPhones], features: GaussianFeatures, data: TrainingData, config: TreeConfig
) -> TrainingState:
    """A tree, and one Gaussian for each of its leaves.

    Args:
        phones: Phones of each aligned utterance, by its id.
        features: The features that the new Gaussians model.
        data: The utterances.
        config: Options of the tree.
    """
    statistics = tree_statistics(phones, features, data.utterances)
    names = data.lexicon.phones
    topology = TriphoneTopology.initial(names, build_tree(statistics, names, config).tree)
    of_pdfs = pdf_statistics(statistics, topology)
    pdfs = {
        utterance.id: phones[utterance.id].pdfs(topology) for utterance in data.utterances if utterance.id in phones
    }
    staying = ((pdfs[name], phones[name].stays) for name in pdfs)
    model = GaussianModel(estimate_self_loops(topology, staying), single_gaussians(of_pdfs))
    return TrainingState(model, features, pdfs, of_pdfs.occupancy)
