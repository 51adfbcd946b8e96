"""Beam search over a decoding graph: from the scores of an utterance to its best path.

The search is kaldi-decoder's FasterDecoder: Viterbi over the active states, pruned by a beam and by their
number (the token passing of S. Young et al., 1989). It holds Python's global lock, so that ``decode/pool.py``
searches a corpus in worker processes.
"""

from __future__ import annotations

import logging
from typing import Annotated

import kaldi_decoder
import kaldifst
import numpy as np
from pydantic import Field, model_validator

from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.errors import SearchError
from lhuc_asr.decode.const_fst import LARGEST_COST
from lhuc_asr.decode.graph import DecodingGraph
from lhuc_asr.decode.hypothesis import Hypothesis

logger = logging.getLogger(__name__)

AcousticScale = Annotated[float, Field(gt=0.0, le=1000.0)]
InsertionPenalty = Annotated[float, Field(ge=-10_000.0, le=10_000.0)]


class SearchConfig(StrictModel):
    """Options of the search: its width, and the weights of acoustic and language model.

    Attributes:
        beam: Maximum difference in cost between a path and the best one of its frame; others are dropped.
        max_active: Maximum number of states of the graph that stay active from one frame to the next.
        min_active: Minimum number of these states, whatever the beam.
        acoustic_scale: Factor on log-likelihoods; neighbouring frames are not independent, as an HMM assumes.
        insertion_penalty: Cost added to each word.
    """

    beam: float = Field(13.0, gt=0.0, le=1_000_000.0)
    max_active: int = Field(7000, gt=1, le=100_000_000)
    min_active: int = Field(20, ge=0, le=100_000_000)
    acoustic_scale: AcousticScale = 0.1
    insertion_penalty: InsertionPenalty = 0.0

    @model_validator(mode="after")
    def _active_in_order(self) -> SearchConfig:
        if self.min_active >= self.max_active:
            raise ValueError(f"min_active ({self.min_active}) must be less than max_active ({self.max_active})")
        return self


class Searcher:
    """Searches one graph with one configuration."""

    def __init__(self, graph: DecodingGraph, config: SearchConfig) -> None:
        self.graph = graph
        self.config = config
        self._fst = graph.fst(config.insertion_penalty)
        self._gather = not np.array_equal(graph.label_pdf, np.arange(graph.pdf_count))

    def search(self, utterance: str, log_likelihoods: np.ndarray) -> Hypothesis:
        """The best path for one utterance.

        If the search finds no path that ends a sentence, it is repeated twice as wide. If it fails again, the best
        incomplete path is taken; the log and the hypothesis record it. The hypothesis of an utterance without frames is
        empty, at cost 0.

        Args:
            utterance: Id of the utterance.
            log_likelihoods: Natural log of p(x|pdf), up to a constant in each frame, shape (T, K), float32.

        Raises:
            SearchError: The scores do not fit the graph, are not finite, or every path was lost.
        """
        scaled = self._scaled(utterance, log_likelihoods)
        if len(scaled) == 0:
            return Hypothesis(utterance, (), (), 0.0, False)
        decodable = kaldi_decoder.DecodableCtc(scaled)
        decoder = self._decode(decodable, widen=1)
        if not decoder.reached_final():
            logger.info("%s: no path within beam %g ends a sentence; widened", utterance, self.config.beam)
            decoder = self._decode(decodable, widen=2)
        reached_final = decoder.reached_final()
        if not reached_final:
            logger.warning("%s: no path ends a sentence; the best incomplete path was taken", utterance)
        succeeded, path = decoder.get_best_path()
        if not succeeded:
            raise SearchError(
                f"{utterance}: the search lost every path within beam {2 * self.config.beam:g}; "
                "widen the beam of the search, or check whether the scores are far from those of other utterances"
            )
        return self._read(utterance, path, len(log_likelihoods), reached_final)

    def begin(self, utterance: str) -> RunningSearch:
        """A search of an utterance whose scores come in parts."""
        return RunningSearch(self, utterance)

    def _scaled(self, utterance: str, log_likelihoods: np.ndarray) -> np.ndarray:
        """The scores as kaldi-decoder takes them, shape (T, labels)."""
        scaled = scaled_scores(utterance, log_likelihoods, self.graph.pdf_count, self.config.acoustic_scale)
        return np.ascontiguousarray(scaled[:, self.graph.label_pdf]) if self._gather else scaled

    def _decoder(self, widen: int) -> kaldi_decoder.FasterDecoder:
        options = kaldi_decoder.FasterDecoderOptions(
            beam=widen * self.config.beam,
            max_active=widen * self.config.max_active,
            min_active=self.config.min_active,
        )
        return kaldi_decoder.FasterDecoder(self._fst, options)

    def _decode(self, decodable: kaldi_decoder.DecodableCtc, widen: int) -> kaldi_decoder.FasterDecoder:
        decoder = self._decoder(widen)
        decoder.decode(decodable)
        return decoder

    def _read(self, utterance: str, path: kaldifst.Lattice, frames: int, reached_final: bool) -> Hypothesis:
        labels: list[int] = []
        words: list[str] = []
        word_frames: list[int] = []
        # The bindings cannot iterate over a lattice's arcs. A line is "from to input output [cost]", in the
        # order of the path; the last one, of the final state, is shorter.
        for line in path.to_str().splitlines():
            fields = line.split()
            if len(fields) < 4:
                continue
            if output := int(fields[3]):
                words.append(self.graph.words[output])
                word_frames.append(min(len(labels), frames - 1))
            if label := int(fields[2]):
                labels.append(label)
        weight = kaldifst.get_linear_symbol_sequence(path)[3]
        pdfs = self.graph.label_pdf[np.array(labels) - 1]
        cost = weight.value1 + weight.value2
        return Hypothesis(utterance, tuple(words), tuple(word_frames), cost, reached_final, pdfs)


class RunningSearch:
    """A search that goes on as scores come, and has a best path at any time.

    Args:
        searcher: The search.
        utterance: Id of the utterance.
    """

    def __init__(self, searcher: Searcher, utterance: str) -> None:
        self._searcher, self._utterance = searcher, utterance
        self._decoder = searcher._decoder(widen=1)
        self._decoder.init_decoding()
        self._frames = 0

    def advance(self, log_likelihoods: np.ndarray) -> None:
        """Search on.

        Args:
            log_likelihoods: Scores of the next frames, as ``Searcher.search`` takes them, shape (T, K).

        Raises:
            SearchError: The scores do not fit the graph, or are not finite.
        """
        scaled = self._searcher._scaled(self._utterance, log_likelihoods)
        if len(scaled):
            self._decoder.advance_decoding(kaldi_decoder.DecodableCtc(scaled, self._frames))
            self._frames += len(scaled)

    def best(self) -> Hypothesis:
        """The best path of the frames so far: one that ends a sentence, if there is any, and else an incomplete one.

        Raises:
            SearchError: Every path was lost.
        """
        if not self._frames:
            return Hypothesis(self._utterance, (), (), 0.0, False)
        reached_final = self._decoder.reached_final()
        succeeded, path = self._decoder.get_best_path()
        if not succeeded:
            raise SearchError(f"{self._utterance}: the search lost every path; widen the beam of the search")
        return self._searcher._read(self._utterance, path, self._frames, reached_final)


def scaled_scores(utterance: str, log_likelihoods: np.ndarray, pdf_count: int, acoustic_scale: float) -> np.ndarray:
    """Scores as a search takes them: of the right shape, scaled, no larger than a graph's costs, (T, K), float32.

    Args:
        utterance: Id of the utterance.
        log_likelihoods: Scores, to be of shape (T, K).
        pdf_count: Number of pdfs, K.
        acoustic_scale: Factor on the scores.

    Raises:
        SearchError: The scores are not of shape (T, K), or not finite, or so large that sums of them are inexact.
    """
    if log_likelihoods.ndim != 2 or log_likelihoods.shape[1] != pdf_count:
        raise SearchError(
            f"{utterance}: scores of shape {log_likelihoods.shape}, expected (frames, "
            f"{pdf_count}); network and graph belong to different models; rebuild the graph"
        )
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is found below
        scaled = np.ascontiguousarray(log_likelihoods * np.float32(acoustic_scale), np.float32)
    usable = np.abs(scaled) <= LARGEST_COST  # not so for NaN
    if not usable.all():
        frame = int(np.flatnonzero(~usable.all(axis=1))[0])
        raise SearchError(
            f"{utterance}: scores of frame {frame} are not finite, or beyond {LARGEST_COST:g}, at acoustic scale "
            f"{acoustic_scale:g}; check the features of that frame, the network and the scale"
        )
    return scaled
