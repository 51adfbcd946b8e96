"""Training of tied triphones on spliced cepstra: LDA at the start, MLLT between the iterations.

The order of steps and the numbers of iterations are those of Kaldi's steps/train_lda_mllt.sh.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pydantic import Field

from lhuc_asr.features.store import FeatureTable, StoredUtterance
from lhuc_asr.hmm.feature_space import SplicedLinear, spliced_cepstra
from lhuc_asr.hmm.gaussian_features import FeaturesInSpace, StoredFeatures
from lhuc_asr.hmm.lda_mllt import LdaStatistics, MlltStatistics, estimate_lda, estimate_mllt
from lhuc_asr.hmm.training import (
    GaussianModel,
    TrainingData,
    TrainingState,
    aligned_blocks,
    block_pdfs,
    speech_weights,
    summed,
    train_mixtures,
)
from lhuc_asr.hmm.triphone_training import AlignedModel, TriphoneConfig, tied_start

logger = logging.getLogger(__name__)

# Iterations that estimate MLLT before they estimate the Gaussians (Kaldi's mllt_iters).
MLLT_ITERATIONS = (2, 4, 6, 12)


class LdaMlltConfig(TriphoneConfig):
    """Options of tied triphones on LDA and MLLT features.

    Attributes:
        context: Number of frames that are spliced on either side.
        dimension: Number of features after LDA.
    """

    context: int = Field(4, ge=1, le=50)
    dimension: int = Field(40, ge=1, le=1000)


def train_lda_mllt(
    before: AlignedModel, store: FeatureTable, cepstra: int, data: TrainingData, config: LdaMlltConfig, seed: int
) -> tuple[GaussianModel, SplicedLinear]:
    """Train tied triphones, and the matrix of their features.

    Args:
        before: The earlier model and its alignment.
        store: Cepstra, and perhaps their differences, of the utterances.
        cepstra: Number of static cepstra, which come first in the store.
        data: The utterances.
        config: Sizes and iterations.
        seed: Seed of the directions in which Gaussians are split.

    Returns:
        The model and the space of its features.

    Raises:
        AlignmentError: Too many utterances cannot be aligned, or there are more roots of trees than wanted leaves.
        TransformError: The covariance of the spliced cepstra is singular, or there are too few pdfs for LDA.
    """
    space = _lda(before, store, cepstra, data, config)
    start = tied_start(before.phones, FeaturesInSpace(store, space), data, config.tree)
    mllt = _Mllt(store, space, data)
    model = train_mixtures(start, data, config.growth("LDA and MLLT"), seed, mllt).model
    return model, mllt.space


def _lda(
    before: AlignedModel, store: FeatureTable, cepstra: int, data: TrainingData, config: LdaMlltConfig
) -> SplicedLinear:
    """The space that tells the pdfs of the earlier model apart best; silence is left out."""
    topology, stored = before.model.topology, StoredFeatures(store)
    pdfs = {name: phones.pdfs(topology) for name, phones in before.phones.items()}

    def of(block: Sequence[StoredUtterance]) -> LdaStatistics:
        spliced = spliced_cepstra(stored.of(block), [u.frames for u in block], cepstra, config.context)
        classes = block_pdfs(pdfs, block)
        return LdaStatistics.of(spliced, classes, topology.pdf_count, speech_weights(classes, topology.silence_pdfs))

    statistics = summed(of(block) for block in aligned_blocks(data.utterances, pdfs))
    matrix = estimate_lda(statistics, config.dimension).matrix.float()
    return SplicedLinear(store.dimension, cepstra, config.context, matrix)


@dataclass
class _Mllt:
    """The refinement that turns the axes of the space.

    Attributes:
        store: Features of the utterances.
        space: The space, as it is now.
        data: The utterances.
    """

    store: FeatureTable
    space: SplicedLinear
    data: TrainingData

    def __call__(self, iteration: int, state: TrainingState) -> TrainingState:
        if iteration not in MLLT_ITERATIONS:
            return state
        model = state.model

        def of(block: Sequence[StoredUtterance]) -> MlltStatistics:
            features, pdfs = state.features.of(block), block_pdfs(state.pdfs, block)
            posteriors = model.gmm.posteriors(features, pdfs, speech_weights(pdfs, model.topology.silence_pdfs))
            return MlltStatistics.of(posteriors, model.gmm, features)

        statistics = summed(of(block) for block in aligned_blocks(self.data.utterances, state.pdfs))
        mllt = estimate_mllt(statistics, model.gmm)
        logger.info("MLLT: %.3f nats per frame", mllt.improvement)
        self.space = self.space.multiplied(mllt.matrix)
        return replace(
            state, model=replace(model, gmm=mllt.moved(model.gmm)), features=FeaturesInSpace(self.store, self.space)
        )
