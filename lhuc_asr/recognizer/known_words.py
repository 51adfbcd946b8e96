"""Known words placed in time by a Viterbi alignment with their pronunciations and optional silence between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from lhuc_asr.base.errors import CorpusError
from lhuc_asr.hmm.topology import ContextDependency
from lhuc_asr.hmm.transcript import transcript_graph
from lhuc_asr.hmm.viterbi import align
from lhuc_asr.lang.coverage import aligned_words
from lhuc_asr.lang.lexicon import Lexicon, list_words


@dataclass(frozen=True)
class PlacedPhone:
    """A phone and its frames.

    Attributes:
        phone: The phone.
        first, end: First frame of the phone, and the frame after its last.
    """

    phone: str
    first: int
    end: int


@dataclass(frozen=True)
class PlacedWords:
    """Words and their frames.

    Attributes:
        spans: First frame of each word, and the frame after its last.
        phones: The phones of each word, in the variant that fits best.
        pdfs: The pdf of each frame, shape (T,), int32.
    """

    spans: tuple[tuple[int, int], ...]
    phones: tuple[tuple[PlacedPhone, ...], ...]
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
    phone_of = graph.phone[path.states]  # (T,), never the same for two phones that follow each other
    borders = [0, *(np.flatnonzero(np.diff(phone_of)) + 1).tolist(), len(phone_of)]
    phones: list[list[PlacedPhone]] = [[] for _ in words]
    for first, end in pairwise(borders):
        word = int(graph.word[path.states[first]])
        if word >= 0:  # not silence
            phones[word].append(PlacedPhone(graph.phones[phone_of[first]], first, end))
    spans = tuple((each[0].first, each[-1].end) for each in phones)
    return PlacedWords(spans, tuple(map(tuple, phones)), path.pdfs)


def place_transcript(
    title: str, transcript: Sequence[str], log_likelihoods: np.ndarray, lexicon: Lexicon, topology: ContextDependency
) -> tuple[tuple[str, ...], PlacedWords]:
    """Align a recording's transcript with its frames.

    Args:
        title: Name of the recording in messages.
        transcript: Words of the recording; a tag that the lexicon lacks is silence.
        log_likelihoods: Log p(x | pdf), shape (T, K).
        lexicon: Pronunciations.
        topology: States of the phones.

    Returns:
        The words that have frames, as the transcript spells them; and the frames.

    Raises:
        CorpusError: A word is not in the lexicon, the transcript has no words, or the recording is too short for it.
    """
    # A word as it is written, and as the lexicon has it.
    pairs = [(word, known) for word in transcript for known in aligned_words([word], lexicon)]
    if missing := lexicon.missing(known for _, known in pairs):
        raise CorpusError(f"{title}: {list_words(missing, 'not in the lexicon')}; correct the transcript")
    if not pairs:
        raise CorpusError(f"{title}: its transcript has no words; write them, or leave the recording out")
    placed = place([known for _, known in pairs], log_likelihoods, lexicon, topology)
    if placed is None:
        raise CorpusError(f"{title}: too short for its transcript; correct the transcript")
    return tuple(word for word, _ in pairs), placed
