"""The words that a pass over a new speaker's recordings gives the next one: from a search, or from transcripts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import numpy as np

from lhuc_asr.adapt.two_pass import Scores
from lhuc_asr.base.errors import CorpusError
from lhuc_asr.base.runlog import progress
from lhuc_asr.decode.hypothesis import Hypothesis
from lhuc_asr.decode.lattice_search import LatticeConfig, LatticeSummary
from lhuc_asr.decode.pool import SearchPool
from lhuc_asr.decode.search import SearchConfig
from lhuc_asr.hmm.topology import ContextDependency
from lhuc_asr.lang.lexicon import Lexicon
from lhuc_asr.recognizer.known_words import place_transcript
from lhuc_asr.recognizer.recordings import OnBad, usable

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class SearchedFirstPass:
    """A ``FirstPass`` that searches the recordings.

    Attributes:
        scores: Computes the pass's scores of all utterances.
        count: Number of utterances.
        pool: Pool that searches the decoding graph.
        search: Options of the search.
        lattice: Options of the lattices.
        title: Name of the pass in the display of its progress.
        confidences: Confidence of each word that was found, by the utterance's id; 1 on a best path. The pass fills it.
        found_words: These words, by the utterance's id. The pass fills it.
    """

    scores: Callable[[], Iterator[Scores]]
    count: int
    pool: SearchPool
    search: SearchConfig
    lattice: LatticeConfig
    title: str = "first pass"
    confidences: dict[str, tuple[float, ...]] = field(default_factory=dict)
    found_words: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def best_paths(self) -> Mapping[str, np.ndarray]:
        """The pdf of each frame on the best path, of one search however often they are asked for."""
        return self._paths

    @cached_property
    def _paths(self) -> Mapping[str, np.ndarray]:
        hypotheses = list(self._watched(self.pool.search_all(self.scores(), self.search)))
        self._note(hypotheses)
        return {best.utterance: best.pdfs for best in hypotheses}

    def lattices(self) -> Iterable[LatticeSummary]:
        """Confidences and posteriors of each piece, of one search however often they are asked for."""
        return self._summaries

    @cached_property
    def _summaries(self) -> list[LatticeSummary]:
        summaries = list(self._watched(self.pool.lattices_all(self.scores(), self.search, self.lattice)))
        self._note([summary.hypothesis for summary in summaries])
        return summaries

    def references(self) -> Mapping[str, np.ndarray]:
        """Refuse: the words are not known, and no model is exported with a pass that adapts on reference transcripts.

        Raises:
            CorpusError: Always.
        """
        raise CorpusError("the recordings have no transcripts; give them: --transcripts FILE")

    def _note(self, hypotheses: Sequence[Hypothesis]) -> None:
        """Keep the words' confidences, and warn if no word was found in any recording."""
        for best in hypotheses:
            self.confidences[best.utterance] = best.confidences or (1.0,) * len(best.words)
            self.found_words[best.utterance] = best.words
        if not any(hypothesis.words for hypothesis in hypotheses):
            logger.warning("the %s found no word in the recordings; adapting to them will hardly help", self.title)

    def _watched(self, results: Iterable[ResultT]) -> Iterator[ResultT]:
        return progress(results, self.title, self.count)


@dataclass(frozen=True)
class KnownTranscripts:
    """A ``FirstPass`` of recordings whose words are known: the words are aligned, and nothing is searched.

    Attributes:
        scores: Computes the pass's scores of all utterances, each a whole recording.
        recording_of: Name of each utterance's recording, by the utterance's id.
        transcripts: Words of each recording, by its name.
        lexicon: Pronunciations.
        topology: States of the phones.
        on_bad: What happens to recordings that do not fit their transcripts.
        unfit: Names of these recordings, which later passes leave out. The pass adds to them.
        confidences: 1 for each word that was aligned, by the utterance's id. The pass fills it.
        found_words: These words, by the utterance's id. The pass fills it.
    """

    scores: Callable[[], Iterator[Scores]]
    recording_of: Mapping[str, str]
    transcripts: Mapping[str, Sequence[str]]
    lexicon: Lexicon
    topology: ContextDependency
    on_bad: OnBad = None
    unfit: set[str] = field(default_factory=set)
    confidences: dict[str, tuple[float, ...]] = field(default_factory=dict)
    found_words: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def best_paths(self) -> Mapping[str, np.ndarray]:
        """The same as ``references``: nothing is searched."""
        return self.references()

    def lattices(self) -> Iterable[LatticeSummary]:
        """Refuse: nothing is searched.

        Raises:
            CorpusError: Always.
        """
        raise CorpusError("the recordings have transcripts and are not searched; leave the transcripts out")

    def references(self) -> Mapping[str, np.ndarray]:
        """The pdf of each frame along the transcripts, which are aligned once.

        Raises:
            CorpusError: A recording does not fit its transcript, and ``on_bad`` is None.
        """
        return self._aligned

    @cached_property
    def _aligned(self) -> Mapping[str, np.ndarray]:
        pdfs = {}
        for utterance, scores in self.scores():
            recording = self.recording_of[utterance]
            if recording in self.unfit:
                continue
            self.unfit.add(recording)
            with usable(recording, self.on_bad):
                words = self.transcripts[recording]
                spoken, placed = place_transcript(recording, words, scores, self.lexicon, self.topology)
                pdfs[utterance], self.confidences[utterance] = placed.pdfs, (1.0,) * len(placed.spans)
                self.found_words[utterance] = spoken
                self.unfit.remove(recording)
        return pdfs
