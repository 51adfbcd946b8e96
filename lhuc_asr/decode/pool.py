"""Searches of many utterances in worker processes; these load numpy and the graph, never torch."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import numpy as np

from lhuc_asr.base.errors import SearchError
from lhuc_asr.base.executor import WorkerError, WorkerPool
from lhuc_asr.decode.graph import DecodingGraph
from lhuc_asr.decode.hypothesis import Hypothesis
from lhuc_asr.decode.lattice_search import LatticeConfig, LatticeSearcher, LatticeSummary
from lhuc_asr.decode.search import SearchConfig, Searcher

logger = logging.getLogger(__name__)

# Matrices handed out and not yet answered, a worker: one in work, one in wait.
MATRICES_A_WORKER = 2
# Utterances named in a warning.
NAMED = 5

ResultT = TypeVar("ResultT")


class SearchPool:
    """Worker processes that have one graph loaded, as a context manager.

    Example::

        with SearchPool(folder, workers=2) as pool:
            for hypothesis in pool.search_all(scores, SearchConfig(acoustic_scale=0.1)):
                ...

    Args:
        folder: The graph's.
        workers: Number of processes; with 0 the calling process searches. Processes are spawned: a script
            that makes a pool needs the usual ``if __name__ == "__main__"``.

    Raises:
        GraphError: The graph is missing or damaged.
    """

    def __init__(self, folder: Path, workers: int) -> None:
        if workers < 0:
            raise SearchError(f"{workers} workers: give the number of processes, or 0 to search in this one")
        self._graph = DecodingGraph.load(folder)
        self._workers = workers
        self._pool: WorkerPool | None = None

    def __enter__(self) -> SearchPool:
        if self._workers:
            self._pool = WorkerPool(self._workers, _start_worker, (self._graph.folder,))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.__exit__(kind, error, trace)
            self._pool = None

    def search_all(self, scores: Iterable[tuple[str, np.ndarray]], config: SearchConfig) -> Iterator[Hypothesis]:
        """Best paths of utterances, in their order; only a few matrices are in memory at a time.

        Args:
            scores: Ids and log-likelihoods (T, K), as ``Searcher.search`` takes them.
            config: Of all these utterances; the next call may bring another.

        Raises:
            SearchError: As from ``Searcher.search``, or a worker died.
        """
        yield from self._map(partial(_best_path, config), scores)

    def lattices_all(
        self, scores: Iterable[tuple[str, np.ndarray]], config: SearchConfig, lattice: LatticeConfig
    ) -> Iterator[LatticeSummary]:
        """What the lattices of utterances say, in their order; a warning at the end counts those that were narrowed.

        Args:
            scores: Ids and log-likelihoods (T, K), as ``LatticeSearcher.summarise`` takes them.
            config: Of the search.
            lattice: Of the lattices.

        Raises:
            SearchError: As from ``LatticeSearcher.summarise``, or a worker died.
        """
        narrowed, count = [], 0
        for summary in self._map(partial(_lattice, config, lattice), scores):
            count += 1
            if summary.narrowed:
                narrowed.append(summary.hypothesis.utterance)
            yield summary
        if narrowed:
            shown = ", ".join(narrowed[:NAMED]) + (" ..." if len(narrowed) > NAMED else "")
            logger.warning("%d of %d lattices had to be narrowed: %s", len(narrowed), count, shown)

    def _map(
        self, search: Callable[[DecodingGraph, str, np.ndarray], ResultT], scores: Iterable[tuple[str, np.ndarray]]
    ) -> Iterator[ResultT]:
        if not self._workers:
            for utterance, log_likelihoods in scores:
                yield search(self._graph, utterance, log_likelihoods)
            return
        if self._pool is None:
            raise SearchError("the pool is not open; use it as: with SearchPool(folder, workers) as pool")
        unfinished: deque[str] = deque()

        def noted() -> Iterator[tuple[str, np.ndarray]]:
            for item in scores:
                unfinished.append(item[0])
                yield item

        try:
            for result in self._pool.map(partial(_in_worker, search), noted(), MATRICES_A_WORKER):
                unfinished.popleft()
                yield result
        except WorkerError as error:
            raise SearchError(
                f"a worker process died before it had searched {', '.join(unfinished)}; was memory short? "
                "Try fewer workers or a smaller max_active"
            ) from error


def _best_path(config: SearchConfig, graph: DecodingGraph, utterance: str, log_likelihoods: np.ndarray) -> Hypothesis:
    return Searcher(graph, config).search(utterance, log_likelihoods)


def _lattice(
    config: SearchConfig, lattice: LatticeConfig, graph: DecodingGraph, utterance: str, log_likelihoods: np.ndarray
) -> LatticeSummary:
    return LatticeSearcher(graph, config, lattice).summarise(utterance, log_likelihoods)


# A worker process's graph, set once when it starts.
_graph: DecodingGraph


def _start_worker(folder: Path) -> None:
    global _graph
    _graph = DecodingGraph.load(folder)


def _in_worker(search: Callable[[DecodingGraph, str, np.ndarray], ResultT], item: tuple[str, np.ndarray]) -> ResultT:
    return search(_graph, *item)
