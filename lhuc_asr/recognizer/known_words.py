"""Known words placed in time by a Viterbi alignment with their pronunciations and optional silence between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lhuc_asr.hmm.topology import ContextDependency
from lhuc_asr.hmm.transcript import transcript_graph
from lhuc_asr.hmm.viterbi import align
from lhuc_asr.lang.lexicon import Lexicon


@dataclass(frozen=True)
class PlacedWords:
    """Words and their frames.

    Attributes:
        spans: First frame of each word, and the frame after its last.
        pdfs: The pdf of each frame, shape (T,), int32.
    """

    spans: tuple[tuple[int, int], ...]
    pdfs: np.ndarray


def place(
    words: Sequence[str], log_likelihoods: np.ndarray, lexicon: Lexicon, topology: ContextDependency
) -> PlacedWords | None:
    """Align words with frames.

    Args:
        words: At least one word, all of them in the lexicon.
        log_likelihoods: Log p(x | pdf), shape (T, K).
        lexicon: Pronunciations.
        topology: States of the phones.

    Returns:
        The words' frames; None if there are too few frames.
    """
    graph = transcript_graph(words, lexicon, topology)
    (path,) = align([graph], [log_likelihoods])
    if path is None:
        return None
    word_of = graph.word[path.states]  # (T,), ascending, -1 in silence
    spans = []
    for index in range(len(words)):
        frames = np.flatnonzero(word_of == index)
        spans.append((int(frames[0]), int(frames[-1]) + 1))
    return PlacedWords(tuple(spans), path.pdfs)
