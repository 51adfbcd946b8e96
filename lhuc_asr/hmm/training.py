"""Training of Gaussian mixtures: align, add Gaussians, estimate, again and again (Viterbi training).

Every rung of the ladder (monophones, triphones, transformed features) is this loop from another start. The order of
steps is that of Kaldi's scripts (steps/train_mono.sh, train_deltas.sh): most iterations only estimate, some align the
utterances first, and Gaussians are added until there are as many as wanted; a few iterations at full size follow.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self, TypeVar

import numpy as np
import torch
from pydantic import Field, model_validator

from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.errors import AlignmentError
from lhuc_asr.base.runlog import progress
from lhuc_asr.features.store import StoredUtterance, blocks_of
from lhuc_asr.hmm.aligner import (
    align_utterances,
    estimate_self_loops,
    pdfs_of,
    transcript_graphs,
    with_self_loops,
)
from lhuc_asr.hmm.gaussian_features import GaussianFeatures
from lhuc_asr.hmm.gmm import DiagonalGmm, GmmStatistics
from lhuc_asr.hmm.topology import ContextDependency
from lhuc_asr.hmm.transcript import StateGraph
from lhuc_asr.lang.lexicon import Lexicon

logger = logging.getLogger(__name__)

# Frames whose statistics are summed at once.
BLOCK_FRAMES = 20_000


class _Added(Protocol):
    def __add__(self, other: Self) -> Self: ...


AddedT = TypeVar("AddedT", bound=_Added)


@dataclass(frozen=True)
class TrainingData:
    """Utterances with their transcripts.

    Attributes:
        utterances: The utterances to train on.
        transcripts: Words of each utterance, by its id.
        lexicon: Pronunciations.
        threads: Number of cores for Viterbi.
        max_unaligned: Share of the utterances that may fail to align; None where the caller counts.
    """

    utterances: Sequence[StoredUtterance]
    transcripts: Mapping[str, Sequence[str]]
    lexicon: Lexicon
    threads: int
    max_unaligned: float | None


@dataclass(frozen=True)
class GaussianModel:
    """Hidden Markov models with Gaussian mixtures.

    Attributes:
        topology: States of the phones.
        gmm: Gaussian mixtures of all pdfs.
    """

    topology: ContextDependency
    gmm: DiagonalGmm


class MixtureConfig(StrictModel):
    """Options of the training of Gaussian mixtures.

    Attributes:
        iterations: Number of estimations.
        growing_iterations: Number of iterations, from the first on, that add Gaussians before they estimate.
        gaussians: Number of Gaussians of all pdfs together at the end.
        max_unaligned: Share of the utterances that may fail to align before the run stops.
    """

    iterations: int = Field(35, ge=2, le=10_000)
    growing_iterations: int = Field(25, ge=1, le=10_000)
    gaussians: int = Field(10_000, ge=1, le=10_000_000)
    max_unaligned: float = Field(0.1, ge=0.0, le=1.0)

    @model_validator(mode="after")
    def _grows_in_time(self) -> Self:
        if self.growing_iterations > self.iterations:
            raise ValueError(
                f"growing_iterations: {self.growing_iterations}, of {self.iterations} iterations: {self.gaussians} "
                f"Gaussians would never be reached; give at most {self.iterations}"
            )
        return self


@dataclass(frozen=True)
class Growth:
    """Iterations, and the number of Gaussians in each.

    Attributes:
        name: Name of the model in the log.
        iterations: Number of estimations.
        growing_iterations: Number of iterations, from the first on, that add Gaussians before they estimate.
        gaussians: Number of Gaussians of all pdfs together at the end.
        aligns: Whether an iteration, from 1, aligns the utterances first.
    """

    name: str
    iterations: int
    growing_iterations: int
    gaussians: int
    aligns: Callable[[int], bool]

    def target(self, start: int, iteration: int) -> int:
        """Number of Gaussians wanted in an iteration, from 1, of a model that began with ``start``."""
        grown = min(1.0, iteration / self.growing_iterations)
        return round(start + grown * max(0, self.gaussians - start))


@dataclass(frozen=True)
class TrainingState:
    """A model in training.

    Attributes:
        model: The model: in an iteration the one before its estimation, at the end of training the trained one.
        features: The features that its Gaussians model.
        pdfs: Pdfs of each aligned utterance, by its id, shape (T,).
        occupancy: Frames of each Gaussian in the last statistics, shape (M,).
    """

    model: GaussianModel
    features: GaussianFeatures
    pdfs: Mapping[str, np.ndarray]
    occupancy: torch.Tensor


# What a rung does beside growing: before an iteration's estimation it may change features and Gaussians.
Refinement = Callable[[int, TrainingState], TrainingState]


def unrefined(iteration: int, state: TrainingState) -> TrainingState:
    """The refinement of models whose features stay as they are."""
    return state


def train_mixtures(
    state: TrainingState, data: TrainingData, growth: Growth, seed: int, refine: Refinement = unrefined
) -> TrainingState:
    """Train from a start.

    Args:
        state: The start.
        data: The utterances.
        growth: Iterations and numbers of Gaussians.
        seed: Seed of the directions in which Gaussians are split.
        refine: What changes features and Gaussians between the iterations.

    Raises:
        AlignmentError: A word is not in the lexicon, or too many utterances cannot be aligned.
    """
    generator = torch.Generator().manual_seed(seed)
    first, start = state.model.topology, state.model.gmm.gaussians
    graphs = transcript_graphs(data.utterances, data.transcripts, data.lexicon, first)
    for iteration in progress(range(1, growth.iterations + 1), growth.name, growth.iterations):
        if growth.aligns(iteration):
            weighted = with_self_loops(graphs, first, state.model.topology)
            state, log_prob = _aligned(state, data, weighted)
            logger.info(
                "%s %d/%d: %d Gaussians, log-probability %.3f per frame, %d of %d utterances aligned",
                *(growth.name, iteration, growth.iterations, state.model.gmm.gaussians),
                *(log_prob, len(state.pdfs), len(graphs)),
            )
        gmm, target = state.model.gmm, growth.target(start, iteration)
        if target > gmm.gaussians:
            gmm = gmm.grown(target, state.occupancy, generator)
            state = replace(state, model=replace(state.model, gmm=gmm))
        state = estimated(refine(iteration, state), data.utterances)
    return state


def _aligned(state: TrainingState, data: TrainingData, graphs: Mapping[str, StateGraph]) -> tuple[TrainingState, float]:
    """The state with a new alignment, and the self-loop probabilities that belong to it."""
    model = state.model
    limits = data.threads, data.max_unaligned
    paths, log_prob = align_utterances(model.gmm, state.features, data.utterances, graphs, *limits)
    topology = estimate_self_loops(model.topology, ((path.pdfs, path.stays) for path in paths.values()))
    return replace(state, model=replace(model, topology=topology), pdfs=pdfs_of(paths)), log_prob


def estimated(state: TrainingState, utterances: Iterable[StoredUtterance]) -> TrainingState:
    """The state with Gaussians estimated anew from its alignment."""
    statistics = accumulate(state.model.gmm, state.features, utterances, state.pdfs)
    model = replace(state.model, gmm=state.model.gmm.update(statistics))
    return replace(state, model=model, occupancy=statistics.occupancy)


def accumulate(
    gmm: DiagonalGmm,
    features: GaussianFeatures,
    utterances: Iterable[StoredUtterance],
    pdfs: Mapping[str, np.ndarray],
) -> GmmStatistics:
    """Statistics of the aligned utterances.

    Args:
        gmm: The mixtures.
        features: The features that they model.
        utterances: The utterances; those without pdfs are left out.
        pdfs: Pdfs of each aligned utterance, by its id, shape (T,).

    Raises:
        AlignmentError: No utterance is aligned.
    """
    return summed(
        gmm.accumulate(features.of(block), block_pdfs(pdfs, block)) for block in aligned_blocks(utterances, pdfs)
    )


def summed(parts: Iterable[AddedT]) -> AddedT:
    """The sum of the statistics of blocks.

    Raises:
        AlignmentError: There are none.
    """
    total: AddedT | None = None
    for part in parts:
        total = part if total is None else total + part
    if total is None:
        raise AlignmentError("no utterance is aligned, so nothing can be estimated; check transcripts and audio")
    return total


def aligned_blocks(utterances: Iterable[StoredUtterance], aligned: Container[str]) -> Iterator[list[StoredUtterance]]:
    """Blocks of the utterances whose ids are in ``aligned``."""
    return blocks_of((utterance for utterance in utterances if utterance.id in aligned), BLOCK_FRAMES)


def block_pdfs(pdfs: Mapping[str, np.ndarray], block: Sequence[StoredUtterance]) -> torch.Tensor:
    """Pdfs of a block's utterances, concatenated along frames, shape (N,), int64."""
    return torch.from_numpy(np.concatenate([pdfs[utterance.id] for utterance in block])).long()


def speech_weights(pdfs: torch.Tensor, silence_pdfs: np.ndarray, silence: float = 0.0) -> torch.Tensor:
    """The weight of each frame where silence counts less: ``silence`` in its pdfs, 1 in all others.

    Args:
        pdfs: Pdf of each frame, shape (N,), int64.
        silence_pdfs: Pdfs of silence.
        silence: Weight of silence.

    Returns:
        Shape (N,), float32.
    """
    return torch.where(torch.isin(pdfs, torch.from_numpy(silence_pdfs)), silence, 1.0)
