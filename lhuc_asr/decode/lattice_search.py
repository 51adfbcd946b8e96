"""Lattice search: from the scores of an utterance to its lattice, in bounded time and memory."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.errors import SearchBoundError, SearchError
from lhuc_asr.decode.graph import DecodingGraph
from lhuc_asr.decode.hypothesis import Hypothesis, likeness
from lhuc_asr.decode.lattice import (
    NO_PDF,
    FramePosteriors,
    Lattice,
    best_path,
    forward_backward,
    frame_posteriors,
    word_confidences,
    word_frames,
)
from lhuc_asr.decode.search import SearchConfig, scaled_scores
from lhuc_asr.decode.token_passing import LEAST_BEAM, TokenArcs, Tokens, arcs_within, pass_tokens
from lhuc_asr.decode.word_lattice import WordLattice, WordLatticeConfig, determinized

logger = logging.getLogger(__name__)

# Factors on the acoustic scale under which the words of a lattice's best path are looked for again.
PERTURBED_SCALES = (0.7, 1.4)


class LatticeConfig(StrictModel):
    """Options of lattices.

    Attributes:
        beam: Maximum difference in cost between a path of the lattice and the best one.
        max_arcs: Maximum number of arcs for each frame, on average, of about 100 bytes each; the beam is narrowed
            where there are more.
        max_tokens: Maximum number of tokens of all frames together, of 20 bytes each; where there are more, the
            utterance is searched again with half as many active states.
        candidates: Number of pdfs whose posteriors are kept for each frame, the most probable ones.
    """

    beam: float = Field(8.0, ge=LEAST_BEAM, le=1_000_000.0)
    max_arcs: int = Field(1000, ge=20, le=1_000_000)
    max_tokens: int = Field(10_000_000, ge=1000, le=1_000_000_000)
    candidates: int = Field(8, ge=1, le=10_000)


def check_beams(lattice: LatticeConfig, word_lattice: WordLatticeConfig) -> None:
    """Refuse options of a word lattice that its state lattice cannot fulfil.

    Raises:
        ValueError: The beam of the word lattice is wider than that of the state lattice.
    """
    if word_lattice.beam is not None and word_lattice.beam > lattice.beam:
        raise ValueError(
            f"word_lattice.beam {word_lattice.beam:g} is wider than lattice.beam {lattice.beam:g}, of its paths; "
            "raise lattice.beam, or lower word_lattice.beam"
        )


@dataclass(frozen=True, eq=False)
class LatticeSummary:
    """The best path and the posteriors of an utterance's lattice.

    Attributes:
        hypothesis: Best path, with the confidences of its words.
        frames: Posteriors of each frame's most probable pdfs.
        arcs: Number of arcs of the lattice.
        narrowed: Whether the bounds of time and memory made the lattice smaller than was asked for.
        agreement: How far the words stay when the acoustic scale is multiplied by each of ``PERTURBED_SCALES``: twice
            the number of words that both have in the same order, over the number of both together; the mean over the
            scales, 1 without words.
        word_lattice: The word lattice, if it was asked for.
    """

    hypothesis: Hypothesis
    frames: FramePosteriors
    arcs: int
    narrowed: bool
    agreement: float
    word_lattice: WordLattice | None = None


class LatticeSearcher:
    """Searches one graph with one configuration."""

    def __init__(self, graph: DecodingGraph, search: SearchConfig, lattice: LatticeConfig) -> None:
        self.graph = graph
        self.config = search
        self.lattice_config = lattice
        self._packed = graph.packed(search.insertion_penalty)

    def search(self, utterance: str, log_likelihoods: np.ndarray) -> Lattice:
        """The paths within the lattice beam.

        As in ``Searcher``, the search is repeated twice as wide if it finds no path that ends a sentence. If it fails
        again, the lattice is made of the incomplete paths.

        Args:
            utterance: Id of the utterance.
            log_likelihoods: Natural log of p(x|pdf), up to a constant in each frame, shape (T, K), float32; T is at
                least 1.

        Raises:
            SearchError: The scores do not fit the graph or are not finite, or every path was lost.
            SearchBoundError: The utterance is too long for the narrowest search.
        """
        scores = scaled_scores(utterance, log_likelihoods, self.graph.pdf_count, self.config.acoustic_scale)
        if len(scores) == 0:
            raise SearchError(f"{utterance}: an utterance without frames has no lattice; leave it out")
        max_active = self.config.max_active
        while (lattice := self._search(utterance, log_likelihoods, scores, max_active)) is None:
            max_active //= 2
            if max_active <= max(self.config.min_active, 1):
                raise SearchBoundError(
                    f"{utterance}: with {max_active} active states its {len(log_likelihoods)} frames still take more "
                    f"than {self.lattice_config.max_tokens} tokens or {self.lattice_config.max_arcs} arcs per frame; "
                    "cut the recording, raise the lattice's bounds, or lower the search's min_active"
                )
        if self.narrowed(lattice):
            logger.warning(
                "%s: lattice narrowed to stay within its bounds: beam %.3g (asked for %g), %d active states (asked for "
                "%d); check whether the scores are flat",
                utterance,
                lattice.beam,
                self.lattice_config.beam,
                max_active,
                self.config.max_active,
            )
        return lattice

    def narrowed(self, lattice: Lattice) -> bool:
        """Whether a lattice is smaller than was asked for."""
        return lattice.beam < self.lattice_config.beam or lattice.max_active < self.config.max_active

    def summarise(
        self, utterance: str, log_likelihoods: np.ndarray, word_lattice: WordLatticeConfig | None = None
    ) -> LatticeSummary:
        """The best path, the confidences of its words and the posteriors of the frames; all empty without frames.

        Args:
            utterance: Id of the utterance.
            log_likelihoods: Natural log of p(x|pdf), up to a constant in each frame, shape (T, K), float32.
            word_lattice: Options of the word lattice; None to make none.

        Raises:
            SearchError: As from ``search``.
            LatticeError: The bounds are too narrow for any word lattice.
        """
        if len(log_likelihoods) == 0:
            scaled_scores(utterance, log_likelihoods, self.graph.pdf_count, self.config.acoustic_scale)
            frames = FramePosteriors(np.zeros((0, 1), np.int32), np.zeros((0, 1), np.float32))
            return LatticeSummary(Hypothesis(utterance, (), (), 0.0, False), frames, 0, False, 1.0)
        lattice = self.search(utterance, log_likelihoods)
        occupancy = forward_backward(lattice)
        path, cost = best_path(lattice)
        pdfs, words = lattice.pdf[path], lattice.word[path]
        hypothesis = Hypothesis(
            utterance,
            tuple(self.graph.words[word] for word in words[words > 0]),
            tuple(word_frames(lattice, path).tolist()),
            cost,
            lattice.reached_final,
            pdfs[pdfs != NO_PDF],
            tuple(word_confidences(lattice, occupancy, path).tolist()),
        )
        frames = frame_posteriors(lattice, occupancy, self.lattice_config.candidates)
        agreement = self._agreement(lattice, words[words > 0])
        words_only = None if word_lattice is None else determinized(utterance, lattice, word_lattice)
        return LatticeSummary(hypothesis, frames, len(lattice.source), self.narrowed(lattice), agreement, words_only)

    def _agreement(self, lattice: Lattice, words: np.ndarray) -> float:
        """How far the words of the best path stay under other scales; see ``LatticeSummary``."""
        ratios = []
        for factor in PERTURBED_SCALES:
            path, _ = best_path(lattice.rescored(factor * lattice.acoustic_scale, 0.0))
            other = lattice.word[path]
            ratios.append(likeness(words.tolist(), other[other > 0].tolist()))
        return float(np.mean(ratios))

    def words_at(
        self, utterance: str, log_likelihoods: np.ndarray, settings: Sequence[SearchConfig]
    ) -> list[tuple[str, ...]]:
        """The words that searches with other scales and penalties find, as far as they are in this search's lattice.

        Args:
            utterance: Id of the utterance.
            log_likelihoods: Natural log of p(x|pdf), up to a constant in each frame, shape (T, K), float32.
            settings: Searches whose scales and penalties are tried; their widths do not count.

        Raises:
            SearchError: As from ``search``.
        """
        if len(log_likelihoods) == 0:
            return [()] * len(settings)
        lattice = self.search(utterance, log_likelihoods)
        spoken = []
        for each in settings:
            added = each.insertion_penalty - self.config.insertion_penalty
            path, _ = best_path(lattice.rescored(each.acoustic_scale, added))
            words = lattice.word[path]
            spoken.append(tuple(self.graph.words[word] for word in words[words > 0]))
        return spoken

    def _search(
        self, utterance: str, log_likelihoods: np.ndarray, scores: np.ndarray, max_active: int
    ) -> Lattice | None:
        """The lattice of a search with ``max_active`` states; None where it takes too many tokens or arcs."""
        config, bounds = self.config, self.lattice_config
        for widen in (1, 2):
            tokens = pass_tokens(
                self._packed, scores, widen * config.beam, widen * max_active, config.min_active, bounds.max_tokens
            )
            if len(tokens.state) > bounds.max_tokens:
                return None
            if not tokens.complete:
                raise SearchError(f"{utterance}: the search lost every path; build the graph from the network's phones")
            ends = self._packed.final[tokens.state[tokens.first[len(scores)] :]].astype(np.float64)
            reached_final = bool(np.isfinite(ends).any())
            if reached_final:
                break
            if widen == 1:
                logger.info("%s: no path within beam %g ends a sentence; widened", utterance, config.beam)
        if not reached_final:
            logger.warning("%s: no path ends a sentence; the best incomplete paths were taken", utterance)
            ends[:] = 0.0
        arcs = arcs_within(self._packed, scores, tokens, ends, bounds.beam, bounds.max_arcs * len(scores))
        if not arcs.complete:
            return None
        return self._assemble(tokens, arcs, ends, log_likelihoods, reached_final, max_active)

    def _assemble(
        self,
        tokens: Tokens,
        arcs: TokenArcs,
        ends: np.ndarray,
        log_likelihoods: np.ndarray,
        reached_final: bool,
        max_active: int,
    ) -> Lattice:
        """Number the tokens at the ends of arcs, and look up the labels and costs of the arcs."""
        graph, frames = self._packed, len(log_likelihoods)
        used, ranks = np.unique(np.concatenate([arcs.source, arcs.target]), return_inverse=True)
        source, target = np.split(ranks.astype(np.int32), 2)
        frame = (np.searchsorted(tokens.first, used, side="right") - 1).astype(np.int32)
        final = np.full(len(used), np.inf)
        last = tokens.first[frames]
        final[frame == frames] = ends[used[frame == frames] - last]

        taking = arcs.arc >= 0
        pdf = np.full(len(source), NO_PDF, np.int32)
        log_likelihood = np.zeros(len(source), np.float32)
        word, graph_cost = np.empty(len(source), np.int32), np.empty(len(source), np.float32)
        through, free = arcs.arc[taking], -1 - arcs.arc[~taking]
        pdf[taking] = graph.pdf[through]
        log_likelihood[taking] = log_likelihoods[frame[source[taking]], pdf[taking]]
        word[taking], word[~taking] = graph.word[through], graph.epsilon_word[free]
        graph_cost[taking], graph_cost[~taking] = graph.cost[through], graph.epsilon_cost[free]
        return Lattice(
            frame, final, source, target, pdf, word, graph_cost, log_likelihood,
            self.config.acoustic_scale, reached_final, arcs.beam, max_active,
        )  # fmt: skip
