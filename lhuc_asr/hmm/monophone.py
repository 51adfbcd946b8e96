"""Monophone training from a flat start: equal segmentation, then align and estimate, mixtures growing.

The order of steps is that of Kaldi's steps/train_mono.sh. Every iteration after the flat start estimates the
Gaussians, and most iterations align the utterances again first. Gaussians are added until there are as many as
wanted; a few iterations at full size follow.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field

from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.errors import AlignmentError
from lhuc_asr.base.runlog import progress
from lhuc_asr.features.store import FeatureStore, StoredUtterance, blocks_of
from lhuc_asr.hmm.aligner import (
    BLOCK_FRAMES,
    align_utterances,
    block_features,
    estimate_self_loops,
    transcript_graphs,
    with_self_loops,
)
from lhuc_asr.hmm.gmm import DiagonalGmm, GmmStatistics
from lhuc_asr.hmm.topology import ContextDependency, MonophoneTopology
from lhuc_asr.hmm.transcript import linear_states
from lhuc_asr.lang.lexicon import Lexicon

logger = logging.getLogger(__name__)


class MonophoneConfig(StrictModel):
    """Options of monophone training.

    Attributes:
        iterations: Number of estimations after the flat start.
        growing_iterations: Number of iterations, from the first on, that add Gaussians before they estimate.
        gaussians: Number of Gaussians of all pdfs together at the end.
        max_unaligned: Share of the utterances that may fail to align before the run stops.
    """

    iterations: int = Field(30, ge=2, le=10_000)
    growing_iterations: int = Field(22, ge=0, le=10_000)
    gaussians: int = Field(1000, ge=1, le=10_000_000)
    max_unaligned: float = Field(0.1, ge=0.0, le=1.0)


@dataclass(frozen=True)
class Monophones:
    """A trained model.

    Attributes:
        topology: States of the phones.
        gmm: Gaussian mixtures of all pdfs.
    """

    topology: ContextDependency
    gmm: DiagonalGmm


def train_monophones(
    store: FeatureStore,
    utterances: Sequence[StoredUtterance],
    transcripts: Mapping[str, Sequence[str]],
    lexicon: Lexicon,
    config: MonophoneConfig,
    seed: int,
    threads: int = 1,
) -> Monophones:
    """Train from a flat start.

    Args:
        store: Features.
        utterances: The utterances to train on.
        transcripts: Words of each utterance, by its id.
        lexicon: Pronunciations.
        config: Sizes and iterations.
        seed: Seed of the directions in which Gaussians are split.
        threads: Number of cores for Viterbi.

    Raises:
        AlignmentError: A word is not in the lexicon, or too many utterances cannot be aligned.
    """
    generator = torch.Generator().manual_seed(seed)
    topology: ContextDependency = MonophoneTopology.initial(lexicon.phones)
    pdfs = _equal_segmentation(utterances, transcripts, lexicon, topology)
    gmm = _flat_gmm(store, utterances, topology.pdf_count)
    statistics = _accumulate(gmm, store, utterances, pdfs)
    gmm = gmm.update(statistics)
    first, graphs = topology, transcript_graphs(utterances, transcripts, lexicon, topology)
    for iteration in progress(range(1, config.iterations + 1), "monophones", config.iterations):
        if _aligns_again(iteration):
            weighted = with_self_loops(graphs, first, topology)
            pdfs, log_prob = align_utterances(gmm, store, utterances, weighted, threads, config.max_unaligned)
            topology = estimate_self_loops(topology, pdfs.values())
        target = _target(config, gmm.pdf_count, iteration)
        if target > gmm.gaussians:
            gmm = gmm.grown(target, statistics.occupancy, generator)
        statistics = _accumulate(gmm, store, utterances, pdfs)
        gmm = gmm.update(statistics)
        logger.info(
            "monophones %d/%d: %d Gaussians, log-probability %.3f per frame, %d of %d utterances aligned",
            iteration, config.iterations, gmm.gaussians, log_prob, len(pdfs), len(utterances),
        )  # fmt: skip
    return Monophones(topology, gmm)


def _equal_segmentation(
    utterances: Iterable[StoredUtterance],
    transcripts: Mapping[str, Sequence[str]],
    lexicon: Lexicon,
    topology: ContextDependency,
) -> dict[str, np.ndarray]:
    utterances = list(utterances)
    missing = lexicon.missing({word for utterance in utterances for word in transcripts[utterance.id]})
    if missing:
        raise AlignmentError(
            f"{len(missing)} words are not in the lexicon: {' '.join(missing[:10])}; "
            "add them or choose a policy for such words"
        )
    pdfs = {}
    for utterance in utterances:
        states = linear_states(transcripts[utterance.id], lexicon, topology)
        if utterance.frames >= len(states):
            pdfs[utterance.id] = states[np.arange(utterance.frames) * len(states) // utterance.frames]
    if not pdfs:
        raise AlignmentError(
            "every utterance is shorter than its transcript allows; check that text and audio belong together"
        )
    return pdfs


def _flat_gmm(store: FeatureStore, utterances: Sequence[StoredUtterance], pdf_count: int) -> DiagonalGmm:
    total = np.zeros(store.dimension)
    square = np.zeros(store.dimension)
    for block in blocks_of(utterances, BLOCK_FRAMES):
        features = block_features(store, block).double()
        total += features.sum(0).numpy()
        square += features.square().sum(0).numpy()
    frames = sum(utterance.frames for utterance in utterances)
    mean = total / frames
    variance = square / frames - np.square(mean)
    return DiagonalGmm.flat(torch.from_numpy(mean), torch.from_numpy(variance), pdf_count)


def _accumulate(
    gmm: DiagonalGmm,
    store: FeatureStore,
    utterances: Iterable[StoredUtterance],
    pdfs: Mapping[str, np.ndarray],
) -> GmmStatistics:
    statistics = None
    for block in blocks_of((u for u in utterances if u.id in pdfs), BLOCK_FRAMES):
        features = block_features(store, block)
        aligned = torch.from_numpy(np.concatenate([pdfs[u.id] for u in block])).long()
        part = gmm.accumulate(features, aligned)
        statistics = part if statistics is None else statistics + part
    if statistics is None:
        raise AlignmentError("no utterance is aligned, so nothing can be estimated; check transcripts and audio")
    return statistics


def _aligns_again(iteration: int) -> bool:
    """Whether an iteration aligns first: each of the first ten, when everything moves, then every second one."""
    return iteration <= 10 or iteration % 2 == 0


def _target(config: MonophoneConfig, pdf_count: int, iteration: int) -> int:
    if config.growing_iterations == 0:
        return pdf_count
    grown = min(1.0, iteration / config.growing_iterations)
    return round(pdf_count + grown * max(0, config.gaussians - pdf_count))
