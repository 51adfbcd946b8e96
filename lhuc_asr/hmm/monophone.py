"""Monophone training from a flat start: equal segmentation, then align and estimate, mixtures growing.

The order of steps is that of Kaldi's steps/train_mono.sh: after the flat start every iteration estimates, and
in most of them the utterances are aligned again; Gaussians are added until the target is reached, and a few
iterations at full size follow.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field

from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.errors import AlignmentError
from lhuc_asr.base.runlog import progress
from lhuc_asr.features.store import FeatureStore, StoredUtterance, blocks_of
from lhuc_asr.hmm.gmm import DiagonalGmm, GmmStatistics
from lhuc_asr.hmm.topology import MonophoneTopology
from lhuc_asr.hmm.transcript import StateGraph, linear_states, transcript_graph
from lhuc_asr.hmm.viterbi import align
from lhuc_asr.lang.lexicon import Lexicon

logger = logging.getLogger(__name__)

# Frames that go through the Gaussians at once: 20,000 x 1,000 Gaussians x 4 bytes = 80 MB.
BLOCK_FRAMES = 20_000


class MonophoneConfig(StrictModel):
    """How monophones are trained.

    Attributes:
        iterations: Estimations after the flat start.
        growing_iterations: Of these, how many add Gaussians first.
        gaussians: Gaussians of all pdfs together at the end.
        max_unaligned: AdaptationSet of utterances that may fail to align before the run stops.
    """

    iterations: int = Field(30, ge=2)
    growing_iterations: int = Field(22, ge=0)
    gaussians: int = Field(1000, ge=1)
    max_unaligned: float = Field(0.1, ge=0.0, le=1.0)


@dataclass(frozen=True)
class Monophones:
    """A trained model, and what it aligned its training data to (by utterance, (T,) int32)."""

    topology: MonophoneTopology
    gmm: DiagonalGmm
    pdfs: Mapping[str, np.ndarray]


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
        utterances: Those to train on.
        transcripts: Words of each utterance.
        lexicon: Pronunciations.
        config: Sizes and iterations.
        seed: For the directions in which Gaussians are split.
        threads: Cores for Viterbi.

    Raises:
        AlignmentError: A word is not in the lexicon, or too many utterances cannot be aligned.
    """
    generator = torch.Generator().manual_seed(seed)
    topology = MonophoneTopology.initial(lexicon.phones)
    pdfs = _equal_segmentation(utterances, transcripts, lexicon, topology)
    gmm = _flat_gmm(store, utterances, topology.pdf_count)
    statistics = _accumulate(gmm, store, utterances, pdfs)
    gmm = gmm.update(statistics)
    for iteration in progress(range(1, config.iterations + 1), "monophones", config.iterations):
        if _aligns_again(iteration):
            graphs = transcript_graphs(utterances, transcripts, lexicon, topology)
            pdfs, log_prob = align_utterances(gmm, store, utterances, graphs, threads, config.max_unaligned)
            topology = estimate_self_loops(topology, pdfs.values())
        target = _target(config, gmm.pdf_count, iteration)
        if target > gmm.gaussians:
            gmm = gmm.grown(target, statistics.occupancy, generator)
        statistics = _accumulate(gmm, store, utterances, pdfs)
        gmm = gmm.update(statistics)
        logger.info(
            "monophones %d/%d: %d Gaussians, log-likelihood %.3f a frame, %d of %d utterances aligned",
            iteration, config.iterations, gmm.gaussians, log_prob, len(pdfs), len(utterances),
        )  # fmt: skip
    graphs = transcript_graphs(utterances, transcripts, lexicon, topology)
    pdfs, _ = align_utterances(gmm, store, utterances, graphs, threads, config.max_unaligned)
    return Monophones(topology, gmm, pdfs)


def transcript_graphs(
    utterances: Iterable[StoredUtterance],
    transcripts: Mapping[str, Sequence[str]],
    lexicon: Lexicon,
    topology: MonophoneTopology,
) -> dict[str, StateGraph]:
    """The graph of every utterance; those with the same words share one."""
    shared: dict[tuple[str, ...], StateGraph] = {}
    graphs = {}
    for utterance in utterances:
        words = tuple(transcripts[utterance.id])
        if words not in shared:
            try:
                shared[words] = transcript_graph(words, lexicon, topology)
            except AlignmentError as error:
                raise AlignmentError(f"{utterance.id}: {error}") from error
        graphs[utterance.id] = shared[words]
    return graphs


def align_utterances(
    gmm: DiagonalGmm,
    store: FeatureStore,
    utterances: Iterable[StoredUtterance],
    graphs: Mapping[str, StateGraph],
    threads: int,
    max_unaligned: float,
) -> tuple[dict[str, np.ndarray], float]:
    """Align utterances with Gaussian mixtures.

    Returns:
        The pdfs of each aligned utterance, and the average log-likelihood a frame.

    Raises:
        AlignmentError: More than ``max_unaligned`` of the utterances failed.
    """
    scores = (
        (block, gmm.log_likelihoods(_features(store, block)).numpy()) for block in blocks_of(utterances, BLOCK_FRAMES)
    )
    return align_blocks(scores, graphs, threads, max_unaligned)


def align_blocks(
    scores: Iterator[tuple[list[StoredUtterance], np.ndarray]],
    graphs: Mapping[str, StateGraph],
    threads: int,
    max_unaligned: float,
) -> tuple[dict[str, np.ndarray], float]:
    """Align blocks of utterances, whatever model scored them.

    Args:
        scores: Some utterances, and the log-likelihoods of their frames one after the other, (N, K).
        graphs: The graph of each utterance.
        threads: Cores for Viterbi.
        max_unaligned: AdaptationSet of the utterances that may fail.

    Returns:
        The pdfs of each aligned utterance, and the average log-likelihood a frame.

    Raises:
        AlignmentError: More than ``max_unaligned`` of the utterances failed.
    """
    pdfs: dict[str, np.ndarray] = {}
    failed: list[str] = []
    total, frames = 0.0, 0
    for block, likelihoods in scores:
        cut = np.split(likelihoods, np.cumsum([utterance.frames for utterance in block])[:-1])
        paths = align([graphs[u.id] for u in block], cut, threads)
        for utterance, path in zip(block, paths, strict=True):
            if path is None:
                failed.append(utterance.id)
                continue
            pdfs[utterance.id] = path.pdfs
            total += path.log_prob
            frames += utterance.frames
    if len(failed) > max_unaligned * (len(failed) + len(pdfs)) or not pdfs:
        raise AlignmentError(
            f"{len(failed)} of {len(failed) + len(pdfs)} utterances cannot be aligned (limit "
            f"{max_unaligned:.0%}): {', '.join(failed[:5])}; they are shorter than their transcripts allow, "
            "are text and audio of the same utterances?"
        )
    if failed:
        logger.warning("%d utterances are too short for their transcripts: %s", len(failed), ", ".join(failed[:5]))
    return pdfs, total / frames


def _features(store: FeatureStore, block: Sequence[StoredUtterance]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([store.array[utterance.rows] for utterance in block]))


def _equal_segmentation(
    utterances: Iterable[StoredUtterance],
    transcripts: Mapping[str, Sequence[str]],
    lexicon: Lexicon,
    topology: MonophoneTopology,
) -> dict[str, np.ndarray]:
    utterances = list(utterances)
    missing = lexicon.missing({word for utterance in utterances for word in transcripts[utterance.id]})
    if missing:
        raise AlignmentError(f"{len(missing)} words are not in the lexicon: {' '.join(missing[:10])}")
    pdfs = {}
    for utterance in utterances:
        states = linear_states(transcripts[utterance.id], lexicon, topology)
        if utterance.frames >= len(states):
            pdfs[utterance.id] = states[np.arange(utterance.frames) * len(states) // utterance.frames]
    if not pdfs:
        raise AlignmentError(
            "every utterance is shorter than its transcript allows; do text and audio belong together?"
        )
    return pdfs


def _flat_gmm(store: FeatureStore, utterances: Sequence[StoredUtterance], pdf_count: int) -> DiagonalGmm:
    total = np.zeros(store.dimension)
    square = np.zeros(store.dimension)
    for block in blocks_of(utterances, BLOCK_FRAMES):
        features = _features(store, block).double()
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
        features = _features(store, block)
        aligned = torch.from_numpy(np.concatenate([pdfs[u.id] for u in block])).long()
        part = gmm.accumulate(features, aligned)
        statistics = part if statistics is None else statistics + part
    if statistics is None:
        raise AlignmentError("no utterance is aligned: nothing to estimate from")
    return statistics


def estimate_self_loops(topology: MonophoneTopology, paths: Iterable[np.ndarray]) -> MonophoneTopology:
    """The topology with probabilities of staying as in an alignment, the paths of some utterances (T,)."""
    visits = np.zeros(topology.pdf_count)
    stays = np.zeros(topology.pdf_count)
    for path in paths:
        visits += np.bincount(path, minlength=topology.pdf_count)
        # A phone that follows itself counts one stay too many; rare, and no more than smoothing.
        stays += np.bincount(path[1:][path[1:] == path[:-1]], minlength=topology.pdf_count)
    return topology.with_self_loops(stays, visits)


def _aligns_again(iteration: int) -> bool:
    """In the first ten iterations, when everything moves, always; then in every second."""
    return iteration <= 10 or iteration % 2 == 0


def _target(config: MonophoneConfig, pdf_count: int, iteration: int) -> int:
    if config.growing_iterations == 0:
        return pdf_count
    grown = min(1.0, iteration / config.growing_iterations)
    return round(pdf_count + grown * max(0, config.gaussians - pdf_count))
