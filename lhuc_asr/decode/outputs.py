"""The words of a word lattice: those of the best path or those of least risk, with another language model if asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import model_validator

from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.errors import LatticeBoundError, SearchBoundError
from lhuc_asr.decode.graph import DecodingGraph
from lhuc_asr.decode.hypothesis import Hypothesis
from lhuc_asr.decode.lattice import best_path
from lhuc_asr.decode.lattice_search import LatticeConfig, LatticeSearcher, check_beams
from lhuc_asr.decode.minimum_risk import least_risk
from lhuc_asr.decode.rescoring import Rescorer
from lhuc_asr.decode.search import SearchConfig, scaled_scores
from lhuc_asr.decode.word_lattice import WordLattice, WordLatticeConfig, determinized
from lhuc_asr.lang.arpa import read_arpa
from lhuc_asr.lang.histories import HistoryModel
from lhuc_asr.lang.history_store import read_histories


class LatticeOutput(StrictModel):
    """Which words are taken from a lattice, and how large it is.

    Attributes:
        words: ``best``, those of the best path, or ``least_risk``, those whose expected number of errors is smallest
            (minimum Bayes risk).
        lattice, word_lattice: Options of the state lattice, and of the word lattice that is made of it.
    """

    words: Literal["best", "least_risk"] = "best"
    lattice: LatticeConfig = LatticeConfig()
    word_lattice: WordLatticeConfig = WordLatticeConfig()

    @model_validator(mode="after")
    def _beams_fit(self) -> Self:
        check_beams(self.lattice, self.word_lattice)
        return self


@dataclass(frozen=True)
class Rescoring:
    """Places of two language models.

    Attributes:
        old: ARPA file of the model in the graph, whose scores are taken out.
        new: Folder of the histories of the model whose scores are put in.
    """

    old: Path
    new: Path

    def rescorer(self, graph: DecodingGraph) -> Rescorer:
        """What puts the new scores into the lattices of a graph.

        Raises:
            LanguageModelError: A model is missing or damaged.
        """
        return Rescorer(graph.words, HistoryModel.of(read_arpa(self.old)), read_histories(self.new))


def search_words(
    graph: DecodingGraph,
    search: SearchConfig,
    outputs: Sequence[tuple[LatticeOutput, Rescorer | None]],
    utterance: str,
    log_likelihoods: np.ndarray,
) -> list[Hypothesis | LatticeBoundError | SearchBoundError]:
    """The words of each output of an utterance's lattice; outputs with the same options of lattices share it.

    Args:
        graph: The graph.
        search: Options of the search.
        outputs: Which words are taken, and what puts another language model's scores into the lattice before; None to
            leave those of the graph.
        utterance: Id of the utterance.
        log_likelihoods: Natural log of p(x|pdf), up to a constant in each frame, shape (T, K), float32.

    Returns:
        A hypothesis of each output, or why its lattice takes too much memory or time; the pdfs and the cost of a
        hypothesis are those of the best path.

    Raises:
        SearchError: As from ``LatticeSearcher.search``, apart from its bounds.
        LatticeError: The lattice is empty, or a language model lacks one of its words.
    """
    if len(log_likelihoods) == 0:
        scaled_scores(utterance, log_likelihoods, graph.pdf_count, search.acoustic_scale)
        return [Hypothesis(utterance, (), (), 0.0, False) for _ in outputs]
    lattices: dict[tuple[LatticeConfig, WordLatticeConfig], WordLattice] = {}
    results: list[Hypothesis | LatticeBoundError | SearchBoundError] = []
    for output, rescorer in outputs:
        options = output.lattice, output.word_lattice
        try:
            if options not in lattices:
                states = LatticeSearcher(graph, search, output.lattice).search(utterance, log_likelihoods)
                lattices[options] = determinized(utterance, states, output.word_lattice)
            lattice = lattices[options] if rescorer is None else rescorer.rescored(utterance, lattices[options])
            results.append(words_of_lattice(utterance, lattice, graph, output))
        except (LatticeBoundError, SearchBoundError) as error:
            results.append(error)
    return results


def words_of_lattice(utterance: str, lattice: WordLattice, graph: DecodingGraph, output: LatticeOutput) -> Hypothesis:
    """The words of a word lattice; the pdfs and the cost are those of its best path.

    Raises:
        LatticeError: The lattice is of another vocabulary.
        LatticeBoundError: As from ``least_risk``.
    """
    path, cost = best_path(lattice)
    pdfs = lattice.pdfs_of(path)
    if output.words == "least_risk":
        likely = least_risk(utterance, lattice, graph.words)
        words, begins, confidences = likely.words, likely.begins, likely.confidences
    else:
        words, confidences = lattice.words_of(path, graph.words), ()
        begins = tuple(lattice.begin[path[lattice.word[path] > 0]].tolist())
    return Hypothesis(utterance, words, begins, cost, lattice.reached_final, pdfs, confidences)
