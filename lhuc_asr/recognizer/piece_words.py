"""The words of a recording's pieces, from their lattices: with confidences, and times as the phones lie."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from lhuc_asr.adapt.two_pass import Scores
from lhuc_asr.base.runlog import progress
from lhuc_asr.base.units import seconds_of
from lhuc_asr.decode.hypothesis import Hypothesis
from lhuc_asr.decode.lattice_search import LatticeSummary
from lhuc_asr.decode.search import SearchConfig
from lhuc_asr.decode.word_lattice import WordLatticeConfig
from lhuc_asr.recognizer.decoding import Decoding
from lhuc_asr.recognizer.known_words import place
from lhuc_asr.recognizer.loaded_model import LoadedModel
from lhuc_asr.recognizer.speech import CutRecording
from lhuc_asr.recognizer.transcript import PieceLattice, Word


@dataclass(frozen=True)
class PieceWords:
    """Searches the pieces of recordings.

    Attributes:
        model: The model.
    """

    model: LoadedModel

    def of(
        self, recording: CutRecording, decoding: Decoding | None, *, watched: bool, lattices: bool = False
    ) -> tuple[list[Word], list[PieceLattice]]:
        """The words of a recording, and the word lattices of its pieces if they are asked for.

        Args:
            recording: The recording.
            decoding: What it is decoded with; None where nothing in it is speech.
            watched: Whether the progress over its pieces is shown.
            lattices: Whether word lattices are made.
        """
        words: list[Word] = []
        made: list[PieceLattice] = []
        if not recording.pieces or decoding is None:
            return words, made
        speech = decoding.read(recording)
        pieces = {piece.id: piece for piece in speech.pieces}
        scores, search = decoding.scores(self.model, speech), decoding.plan.search
        summaries = self.lattices(scores, search, WordLatticeConfig() if lattices else None)
        for summary, matrix in progress(summaries, "search", len(pieces)) if watched else summaries:
            best = summary.hypothesis
            piece = pieces[best.utterance]
            words += self.placed(best, matrix, piece.start)
            if summary.word_lattice is not None:
                end = piece.start + piece.seconds
                made.append(PieceLattice(piece.start, end, summary.word_lattice, self.model.pool.graph.words))
        return words, made

    def lattices(
        self, scores: Iterable[Scores], search: SearchConfig, word_lattice: WordLatticeConfig | None = None
    ) -> Iterator[tuple[LatticeSummary, np.ndarray]]:
        """Each piece's lattice and scores (T, K); only the scores of the pieces in work are in memory."""
        in_work: deque[np.ndarray] = deque()

        def kept() -> Iterator[Scores]:
            for utterance, matrix in scores:
                in_work.append(matrix)
                yield utterance, matrix

        for summary in self.model.pool.lattices_all(kept(), search, self.model.description.lattice, word_lattice):
            yield summary, in_work.popleft()

    def placed(self, hypothesis: Hypothesis, scores: np.ndarray, start: float) -> list[Word]:
        """The words of a piece, with times in the recording, where the piece begins at ``start`` seconds."""
        if not hypothesis.words:
            return []
        placed = place(hypothesis.words, scores, self.model.lexicon, self.model.topology)
        if placed is None:  # a path that stops within a word has too few frames for it
            borders = [*hypothesis.word_frames, len(scores)]
            spans = tuple(pairwise(borders))
        else:
            spans = placed.spans
        return [
            Word(word, start + seconds_of(first), start + seconds_of(end), confidence)
            for word, (first, end), confidence in zip(hypothesis.words, spans, hypothesis.confidences, strict=True)
        ]
