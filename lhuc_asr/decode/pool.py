"""Searches of many utterances, spread over processes; these load numpy and the graph, never torch."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import numpy as np

from lhuc_asr.base.errors import SearchError
from lhuc_asr.base.executor import Executor, WorkerError
from lhuc_asr.decode.graph import DecodingGraph
from lhuc_asr.decode.hypothesis import Hypothesis
from lhuc_asr.decode.lattice_search import LatticeConfig, LatticeSearcher, LatticeSummary
from lhuc_asr.decode.search import SearchConfig, Searcher

logger = logging.getLogger(__name__)

# Matrices handed out and not yet answered, for each process: one in work, one in wait.
MATRICES_A_PROCESS = 2
# Utterances named in a warning.
NAMED = 5

ResultT = TypeVar("ResultT")


class SearchPool:
    """Processes that have one graph loaded, as a context manager.

    With 0 or 1 processes the calling process searches, also without ``with``. Several threads may then search at
    once: a graph is only read, and each search has a searcher of its own.

    Example::

        with SearchPool(folder, processes=2) as pool:
            for hypothesis in pool.search_all(scores, SearchConfig(acoustic_scale=0.1)):
                ...

    Args:
        folder: Folder of the graph.
        processes: Number of processes. They are spawned: a script that makes a pool needs the usual
            ``if __name__ == "__main__"``.

    Attributes:
        graph: The graph.

    Raises:
        GraphError: The graph is missing or damaged.
    """

    def __init__(self, folder: Path, processes: int) -> None:
        if processes < 0:
            raise SearchError(f"{processes} processes: give the number of processes, or 0 to search in this one")
        self._executor = Executor(processes, DecodingGraph.load, (folder,))
        # A graph that is damaged is an error here, not in each process.
        self.graph: DecodingGraph = self._executor.shared if self._executor.is_local else DecodingGraph.load(folder)

    def __enter__(self) -> SearchPool:
        self._executor.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.__exit__(kind, error, trace)

    def search_all(self, scores: Iterable[tuple[str, np.ndarray]], config: SearchConfig) -> Iterator[Hypothesis]:
        """Best paths of utterances, in their order; only a few matrices are in memory at a time.

        Args:
            scores: Ids and log-likelihoods (T, K), as ``Searcher.search`` takes them.
            config: Options of the search of these utterances; the next call may bring others.

        Raises:
            SearchError: As from ``Searcher.search``, or a worker died.
        """
        yield from self._map(partial(_best_path, config), scores)

    def lattices_all(
        self, scores: Iterable[tuple[str, np.ndarray]], config: SearchConfig, lattice: LatticeConfig
    ) -> Iterator[LatticeSummary]:
        """Summaries of the lattices of utterances, in their order; a warning at the end counts the narrowed lattices.

        Args:
            scores: Ids and log-likelihoods (T, K), as ``LatticeSearcher.summarise`` takes them.
            config: Options of the search.
            lattice: Options of the lattices.

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

    def words_at_all(
        self,
        scores: Iterable[tuple[str, np.ndarray]],
        config: SearchConfig,
        lattice: LatticeConfig,
        settings: Sequence[SearchConfig],
    ) -> Iterator[list[tuple[str, ...]]]:
        """The words of utterances at other scales and penalties, in the utterances' order; see ``LatticeSearcher``.

        Args:
            scores: Ids and log-likelihoods (T, K), as ``LatticeSearcher.words_at`` takes them.
            config: Options of the search.
            lattice: Options of the lattices.
            settings: Searches whose scales and penalties are tried.

        Raises:
            SearchError: As from ``LatticeSearcher.words_at``, or a worker died.
        """
        yield from self._map(partial(_words_at, config, lattice, settings), scores)

    def _map(
        self,
        search: Callable[[DecodingGraph, tuple[str, np.ndarray]], ResultT],
        scores: Iterable[tuple[str, np.ndarray]],
    ) -> Iterator[ResultT]:
        if not self._executor.is_open:
            raise SearchError("the pool is not open; use it as: with SearchPool(folder, processes) as pool")
        unfinished: deque[str] = deque()

        def noted() -> Iterator[tuple[str, np.ndarray]]:
            for item in scores:
                unfinished.append(item[0])
                yield item

        try:
            for result in self._executor.map(search, noted(), MATRICES_A_PROCESS):
                unfinished.popleft()
                yield result
        except WorkerError as error:
            raise SearchError(
                f"a worker process died before it had searched {', '.join(unfinished)}; was memory short? "
                "Try fewer workers or a smaller max_active"
            ) from error


def _best_path(config: SearchConfig, graph: DecodingGraph, item: tuple[str, np.ndarray]) -> Hypothesis:
    return Searcher(graph, config).search(*item)


def _words_at(
    config: SearchConfig,
    lattice: LatticeConfig,
    settings: Sequence[SearchConfig],
    graph: DecodingGraph,
    item: tuple[str, np.ndarray],
) -> list[tuple[str, ...]]:
    return LatticeSearcher(graph, config, lattice).words_at(*item, settings)


def _lattice(
    config: SearchConfig, lattice: LatticeConfig, graph: DecodingGraph, item: tuple[str, np.ndarray]
) -> LatticeSummary:
    return LatticeSearcher(graph, config, lattice).summarise(*item)
