"""Alignment of many utterances with any acoustic model: transcript graphs, Viterbi, self-loop probabilities."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch

from lhuc_asr.base.errors import AlignmentError
from lhuc_asr.features.store import StoredUtterance
from lhuc_asr.hmm.gaussian_features import GaussianFeatures
from lhuc_asr.hmm.gmm import DiagonalGmm
from lhuc_asr.hmm.topology import ContextDependency
from lhuc_asr.hmm.transcript import StateGraph, transcript_graph
from lhuc_asr.hmm.viterbi import BEAM, StatePath, align, best_path
from lhuc_asr.lang.lexicon import Lexicon

logger = logging.getLogger(__name__)


def transcript_graphs(
    utterances: Iterable[StoredUtterance],
    transcripts: Mapping[str, Sequence[str]],
    lexicon: Lexicon,
    topology: ContextDependency,
    transition_scale: float = 1.0,
) -> dict[str, StateGraph]:
    """Build the graph of every utterance; utterances with the same words share one.

    Args:
        utterances: The utterances.
        transcripts: Words of each utterance, by its id.
        lexicon: Pronunciations.
        topology: States of the phones.
        transition_scale: As of ``transcript_graph``.

    Raises:
        AlignmentError: A transcript is empty or has a word that is not in the lexicon.
    """
    shared: dict[tuple[str, ...], StateGraph] = {}
    graphs = {}
    for utterance in utterances:
        words = tuple(transcripts[utterance.id])
        if words not in shared:
            try:
                shared[words] = transcript_graph(words, lexicon, topology, transition_scale)
            except AlignmentError as error:
                raise AlignmentError(f"{utterance.id}: {error}") from error
        graphs[utterance.id] = shared[words]
    return graphs


def with_self_loops(
    graphs: Mapping[str, StateGraph], before: ContextDependency, now: ContextDependency
) -> dict[str, StateGraph]:
    """Graphs that were built with one topology, for another that differs in its self-loop probabilities only."""
    changed = {id(graph): graph.with_self_loops(before.self_loop, now.self_loop) for graph in graphs.values()}
    return {utterance: changed[id(graph)] for utterance, graph in graphs.items()}


def align_utterances(
    gmm: DiagonalGmm,
    features: GaussianFeatures,
    utterances: Iterable[StoredUtterance],
    graphs: Mapping[str, StateGraph],
    threads: int,
    max_unaligned: float | None,
) -> tuple[dict[str, StatePath], float]:
    """Align utterances with Gaussian mixtures, those of the pdfs that an utterance's graph has.

    Args:
        gmm: The mixtures of all pdfs.
        features: The features that they model.
        utterances: The utterances to align.
        graphs: Graph of each utterance, by its id.
        threads: Number of cores for Viterbi.
        max_unaligned: Share of the utterances that may fail to align; None where the caller counts.

    Returns:
        The best path of each aligned utterance through its graph, and the average log-probability per frame of these
        paths, transitions included.

    Raises:
        AlignmentError: More than ``max_unaligned`` of the utterances failed to align, or all of them.
    """

    def aligned(utterance: StoredUtterance) -> tuple[StoredUtterance, StatePath | None]:
        own = _OwnPdfs.of(graphs[utterance.id])
        scores = gmm.of_pdfs(own.pdfs).log_likelihoods(features.of([utterance]))
        return utterance, own.original(best_path(own.graph, scores.numpy()))

    before = torch.get_num_threads()
    try:
        # One thread for each utterance: a matrix product of one utterance is too small to be shared.
        with ThreadPoolExecutor(max(1, threads), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return _collected(pool.map(aligned, utterances), max_unaligned)
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class _OwnPdfs:
    """The pdfs that a graph has, ascending, and the graph with their places in it for pdfs."""

    pdfs: np.ndarray
    graph: StateGraph

    @classmethod
    def of(cls, graph: StateGraph) -> _OwnPdfs:
        pdfs, places = np.unique(graph.pdf, return_inverse=True)
        return cls(pdfs, replace(graph, pdf=places.astype(np.int32)))

    def original(self, path: StatePath | None) -> StatePath | None:
        """A path through the graph with the pdfs as they were."""
        return None if path is None else replace(path, pdfs=self.pdfs[path.pdfs])


def align_blocks(
    scores: Iterable[tuple[list[StoredUtterance], np.ndarray]],
    graphs: Mapping[str, StateGraph],
    threads: int,
    max_unaligned: float | None,
    beam: float = BEAM,
) -> tuple[dict[str, StatePath], float]:
    """Align blocks of utterances that any model has scored.

    Args:
        scores: Blocks of utterances, and their log-likelihoods, concatenated along frames, shape (N, K).
        graphs: Graph of each utterance, by its id.
        threads: Number of cores for Viterbi.
        max_unaligned: Share of the utterances that may fail to align; None where the caller counts.
        beam: As of ``viterbi.align``.

    Returns:
        As ``align_utterances``.

    Raises:
        AlignmentError: More than ``max_unaligned`` of the utterances failed to align, or all of them.
    """

    def aligned(
        block: list[StoredUtterance], likelihoods: np.ndarray
    ) -> Iterator[tuple[StoredUtterance, StatePath | None]]:
        cut = np.split(likelihoods, np.cumsum([utterance.frames for utterance in block])[:-1])
        return zip(block, align([graphs[u.id] for u in block], cut, threads, beam), strict=True)

    return _collected(itertools.chain.from_iterable(itertools.starmap(aligned, scores)), max_unaligned)


def _collected(
    paths: Iterable[tuple[StoredUtterance, StatePath | None]], max_unaligned: float | None
) -> tuple[dict[str, StatePath], float]:
    """The paths that were found, and their average log-probability per frame; too many that were not are refused."""
    kept: dict[str, StatePath] = {}
    failed: list[str] = []
    total, frames = 0.0, 0
    for utterance, path in paths:
        if path is None:
            failed.append(utterance.id)
            continue
        kept[utterance.id] = path
        total += path.log_prob
        frames += utterance.frames
    if max_unaligned is not None:
        check_unaligned(failed, len(kept), max_unaligned)
    return kept, total / max(1, frames)


def pdfs_of(paths: Mapping[str, StatePath]) -> dict[str, np.ndarray]:
    """The pdfs of each utterance's path, shape (T,), int32."""
    return {utterance: path.pdfs for utterance, path in paths.items()}


def check_unaligned(failed: Sequence[str], aligned: int, limit: float) -> None:
    """Refuse too many utterances that failed to align; warn about a few.

    Args:
        failed: Their ids.
        aligned: Number of the others.
        limit: Maximum fraction that may fail.

    Raises:
        AlignmentError: More failed, or there are none that did not.
    """
    count, names = len(failed) + aligned, ", ".join(failed[:5])
    remedy = "too short for their transcripts; check that text and audio match"
    if not count:
        raise AlignmentError("no utterances to align; expected at least one")
    if not aligned:
        raise AlignmentError(f"none of {count} utterances can be aligned: {names}; {remedy}")
    if len(failed) > limit * count:
        raise AlignmentError(
            f"{len(failed)} of {count} utterances cannot be aligned (limit {limit:.0%}): {names}; {remedy}"
        )
    if failed:
        logger.warning("%d utterances are too short for their transcripts: %s", len(failed), names)


@dataclass(frozen=True)
class SelfLoopCounts:
    """How often paths stay in a state.

    Attributes:
        stays: Number of frames whose next one is in the same state, for each pdf, shape (K,).
        visits: Number of frames of each pdf, shape (K,).
    """

    stays: np.ndarray
    visits: np.ndarray

    def __add__(self, other: SelfLoopCounts) -> SelfLoopCounts:
        """The counts of both paths."""
        return SelfLoopCounts(self.stays + other.stays, self.visits + other.visits)


def count_self_loops(pdf_count: int, paths: Iterable[tuple[np.ndarray, np.ndarray]]) -> SelfLoopCounts:
    """Count how often paths stay in a state; arguments as ``estimate_self_loops``."""
    visits = np.zeros(pdf_count)
    stays = np.zeros(pdf_count)
    for pdfs, stayed in paths:
        visits += np.bincount(pdfs, minlength=pdf_count)
        stays += np.bincount(pdfs[1:][stayed], minlength=pdf_count)
    return SelfLoopCounts(stays, visits)


def estimate_self_loops(
    topology: ContextDependency, paths: Iterable[tuple[np.ndarray, np.ndarray]]
) -> ContextDependency:
    """Estimate self-loop probabilities from an alignment.

    Args:
        topology: States of the phones.
        paths: The pdfs (T,) of each utterance, and whether each frame but the first is in the state of the one before,
            shape (T - 1,). States that follow each other may share a pdf.

    Returns:
        The same states with the estimated self-loop probabilities.
    """
    counts = count_self_loops(topology.pdf_count, paths)
    return topology.with_self_loops(counts.stays, counts.visits)
