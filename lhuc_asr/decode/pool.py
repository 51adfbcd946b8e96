"""Searches of many utterances, spread over processes; these load numpy and the graph, never torch."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import numpy as np

from lhuc_asr.base.errors import LatticeError, SearchError
from lhuc_asr.base.executor import Executor, WorkerError
from lhuc_asr.decode.graph import DecodingGraph
from lhuc_asr.decode.hypothesis import Hypothesis
from lhuc_asr.decode.lattice_search import LatticeConfig, LatticeSearcher, LatticeSummary
from lhuc_asr.decode.outputs import LatticeOutput, Rescoring, search_words
from lhuc_asr.decode.rescoring import Rescorer
from lhuc_asr.decode.search import SearchConfig, Searcher
from lhuc_asr.decode.word_lattice import WordLattice, WordLatticeConfig, determinized

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
        self._executor = Executor(processes, _Loaded.read, (folder,))
        # A graph that is damaged is an error here, not in each process.
        here = self._executor.shared
        self.graph: DecodingGraph = here.graph if self._executor.is_local else DecodingGraph.load(folder)

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
        self,
        scores: Iterable[tuple[str, np.ndarray]],
        config: SearchConfig,
        lattice: LatticeConfig,
        word_lattice: WordLatticeConfig | None = None,
    ) -> Iterator[LatticeSummary]:
        """Summaries of the lattices of utterances, in their order; a warning at the end counts the narrowed lattices.

        Args:
            scores: Ids and log-likelihoods (T, K), as ``LatticeSearcher.summarise`` takes them.
            config: Options of the search.
            lattice: Options of the lattices.
            word_lattice: Options of the word lattices in the summaries; None for none.

        Raises:
            SearchError: As from ``LatticeSearcher.summarise``, or a worker died.
            LatticeError: As from ``LatticeSearcher.summarise``.
        """
        narrowed, count = [], 0
        for summary in self._map(partial(_lattice, config, lattice, word_lattice), scores):
            count += 1
            if summary.narrowed:
                narrowed.append(summary.hypothesis.utterance)
            yield summary
        if narrowed:
            logger.warning("%d of %d lattices had to be narrowed: %s", len(narrowed), count, _named(narrowed))

    def outputs_all(
        self,
        scores: Iterable[tuple[str, np.ndarray]],
        config: SearchConfig,
        outputs: Sequence[tuple[LatticeOutput, Rescoring | None]],
    ) -> Iterator[list[Hypothesis]]:
        """The words of each output of utterances' lattices, in the utterances' order.

        Where a lattice takes too much memory or time, the words are those of the search's best path; a warning at the
        end counts and names these utterances.

        Args:
            scores: Ids and log-likelihoods (T, K), as ``search_words`` takes them.
            config: Options of the search.
            outputs: Which words are taken, and the language models that the lattice is rescored with before; None to
                leave the scores of the graph.

        Raises:
            SearchError: As from ``search_words``, or a worker died.
            LatticeError: As from ``search_words``.
            LanguageModelError: A language model is missing or damaged.
        """
        without, count, reason = [], 0, ""
        for hypotheses, problem in self._map(partial(_outputs, config, outputs), scores):
            count += 1
            if problem is not None:
                without.append(hypotheses[0].utterance)
                reason = reason or problem
            yield hypotheses
        if without:
            logger.warning(
                "%d of %d utterances have words of the best path in place of an output: %s; the first: %s",
                *(len(without), count, _named(without), reason),
            )

    def word_lattices_all(
        self,
        scores: Iterable[tuple[str, np.ndarray]],
        config: SearchConfig,
        lattice: LatticeConfig,
        word_lattice: WordLatticeConfig,
        max_failed: float,
    ) -> Iterator[WordLattice | None]:
        """The word lattices of utterances, in their order; None for an utterance without one.

        Warnings at the end count the utterances without one, and the narrowed lattices.

        Args:
            scores: Ids and log-likelihoods (T, K), as ``LatticeSearcher.search`` takes them.
            config: Options of the search.
            lattice: Options of the state lattices.
            word_lattice: Options of the word lattices.
            max_failed: Maximum fraction of the utterances without a lattice.

        Raises:
            SearchError: A worker died.
            LatticeError: More than ``max_failed`` of the utterances have no lattice; raised at the end.
        """
        failed, narrowed, count = [], [], 0
        for made in self._map(partial(_word_lattice, config, lattice, word_lattice), scores):
            count += 1
            if made.narrowed:
                narrowed.append(made.utterance)
            if made.problem is not None:
                failed.append(made.problem)
            yield made.lattice
        if len(failed) > max_failed * count:
            raise LatticeError(
                f"{len(failed)} of {count} utterances have no lattice (limit {max_failed:.0%}); the first: {failed[0]}"
            )
        if failed:
            logger.warning("%d of %d utterances have no lattice; the first: %s", len(failed), count, failed[0])
        if narrowed:
            logger.warning("%d of %d lattices had to be narrowed: %s", len(narrowed), count, _named(narrowed))

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
        search: Callable[[_Loaded, tuple[str, np.ndarray]], ResultT],
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


@dataclass(frozen=True)
class _Loaded:
    """What a process has loaded: the graph, and language models since they were first needed.

    Attributes:
        graph: The graph.
        rescorers: What puts the scores of each pair of models into lattices.
    """

    graph: DecodingGraph
    rescorers: dict[Rescoring, Rescorer] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> _Loaded:
        return cls(DecodingGraph.load(folder))

    def rescorer(self, rescoring: Rescoring) -> Rescorer:
        if rescoring not in self.rescorers:
            self.rescorers[rescoring] = rescoring.rescorer(self.graph)
        return self.rescorers[rescoring]


def _best_path(config: SearchConfig, loaded: _Loaded, item: tuple[str, np.ndarray]) -> Hypothesis:
    return Searcher(loaded.graph, config).search(*item)


def _outputs(
    config: SearchConfig,
    outputs: Sequence[tuple[LatticeOutput, Rescoring | None]],
    loaded: _Loaded,
    item: tuple[str, np.ndarray],
) -> tuple[list[Hypothesis], str | None]:
    """The words of each output of an utterance, and why some are those of the best path; None where none are."""
    models = [(output, None if rescoring is None else loaded.rescorer(rescoring)) for output, rescoring in outputs]
    results = search_words(loaded.graph, config, models, *item)
    problems = [str(result) for result in results if not isinstance(result, Hypothesis)]
    if not problems:
        return [result for result in results if isinstance(result, Hypothesis)], None
    best = Searcher(loaded.graph, config).search(*item)
    return [result if isinstance(result, Hypothesis) else best for result in results], problems[0]


@dataclass(frozen=True, eq=False)
class _Made:
    """What became of an utterance's word lattice.

    Attributes:
        utterance: Id of the utterance.
        lattice: The word lattice; None without one.
        narrowed: Whether bounds made it, or the state lattice, smaller than was asked for.
        problem: Why there is none; None where there is one.
    """

    utterance: str
    lattice: WordLattice | None
    narrowed: bool = False
    problem: str | None = None


def _named(utterances: Sequence[str]) -> str:
    """The first few utterances, for a message."""
    return ", ".join(utterances[:NAMED]) + (" ..." if len(utterances) > NAMED else "")


def _word_lattice(
    config: SearchConfig,
    lattice: LatticeConfig,
    word_lattice: WordLatticeConfig,
    loaded: _Loaded,
    item: tuple[str, np.ndarray],
) -> _Made:
    """The word lattice of an utterance, or why it has none."""
    searcher, utterance = LatticeSearcher(loaded.graph, config, lattice), item[0]
    try:
        states = searcher.search(*item)
        made = determinized(utterance, states, word_lattice)
    except (SearchError, LatticeError) as error:
        return _Made(utterance, None, problem=str(error))
    return _Made(utterance, made, searcher.narrowed(states) or made.beam < word_lattice.within(states.beam))


def _words_at(
    config: SearchConfig,
    lattice: LatticeConfig,
    settings: Sequence[SearchConfig],
    loaded: _Loaded,
    item: tuple[str, np.ndarray],
) -> list[tuple[str, ...]]:
    return LatticeSearcher(loaded.graph, config, lattice).words_at(*item, settings)


def _lattice(
    config: SearchConfig,
    lattice: LatticeConfig,
    word_lattice: WordLatticeConfig | None,
    loaded: _Loaded,
    item: tuple[str, np.ndarray],
) -> LatticeSummary:
    return LatticeSearcher(loaded.graph, config, lattice).summarise(*item, word_lattice)
