"""The hypothesis of an utterance, and its row of ``hypotheses.jsonl``."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Annotated, Any

import numpy as np
from pydantic import Field, ValidationError

from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.documents import Count, first_mistake
from lhuc_asr.base.errors import SearchError

# Number of decimals of a confidence in a row.
CONFIDENCE_DIGITS = 4


def likeness(words: Sequence[object], others: Sequence[object]) -> float:
    """Twice the number of words that both have in the same order, over the number of both together; 1 without words.

    The words are matched as difflib does, the longest run first.

    Example:
        >>> likeness(["a", "b", "c"], ["a", "c", "d"])
        0.6666666666666666
    """
    return SequenceMatcher(None, words, others, autojunk=False).ratio()


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """The best path through the graph for one utterance.

    Attributes:
        utterance: Id of the utterance.
        words: Words of the path, in order.
        word_frames: Frame at which the graph emits each word: near its start, but later where words share
            their first phones, and a phone earlier where phones have right context.
        cost: Graph cost plus scaled acoustic cost of the path, natural log.
        reached_final: Whether the path ends a sentence; if not, it is the best of the incomplete paths.
        pdfs: Pdf of each frame, shape (T,), int32; empty where the alignment is stored elsewhere.
        confidences: Probability of each word, 0 to 1; empty where there was no lattice.
    """

    utterance: str
    words: tuple[str, ...]
    word_frames: tuple[int, ...]
    cost: float
    reached_final: bool
    pdfs: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    confidences: tuple[float, ...] = ()

    @property
    def text(self) -> str:
        """The words with spaces between."""
        return " ".join(self.words)

    def frame_confidences(self) -> np.ndarray:
        """The confidence of each frame's word, shape (T,); all 0 where there are no words.

        The frames of a word begin where the graph emits it; those of the first word begin with the utterance.

        Raises:
            SearchError: The confidences or the alignment are missing.
        """
        if len(self.confidences) != len(self.words) or len(self.pdfs) == 0:
            raise SearchError(
                f"{self.utterance}: {len(self.confidences)} confidences of {len(self.words)} words, an alignment of "
                f"{len(self.pdfs)} frames; search for a lattice, which gives both"
            )
        if not self.words:
            return np.zeros(len(self.pdfs))
        lengths = np.diff([0, *self.word_frames[1:], len(self.pdfs)])
        return np.repeat(np.array(self.confidences), lengths)


def to_row(hypothesis: Hypothesis, speaker: str) -> dict[str, Any]:
    """The hypothesis as one object of ``hypotheses.jsonl``, without its alignment.

    Example:
        >>> to_row(Hypothesis("a-1", ("go", "on"), (3, 40), 812.5, True), speaker="a")["words"]
        'go on'
    """
    return {
        "utterance": hypothesis.utterance,
        "speaker": speaker,
        "words": hypothesis.text,
        "word_frames": list(hypothesis.word_frames),
        "cost": hypothesis.cost,
        "reached_final": hypothesis.reached_final,
        "confidences": [round(confidence, CONFIDENCE_DIGITS) for confidence in hypothesis.confidences],
    }


class _Row(StrictModel):
    """An object of ``hypotheses.jsonl``."""

    utterance: str
    speaker: str = ""
    words: str
    word_frames: list[Count]
    cost: float = Field(ge=-1e30, le=1e30)
    reached_final: bool
    confidences: list[Annotated[float, Field(ge=0.0, le=1.0)]] = Field(default_factory=list)


def from_row(row: dict[str, Any], pdfs: np.ndarray | None = None) -> Hypothesis:
    """The hypothesis of a row.

    Args:
        row: An object of ``hypotheses.jsonl``; it may lack confidences.
        pdfs: Pdf of each frame, shape (T,), where the alignment is known.

    Raises:
        SearchError: A key is missing, a value is of another kind, or the number of frames or of confidences is not
            that of the words.
    """
    missing = sorted({"utterance", "words", "word_frames", "cost", "reached_final"} - row.keys())
    if missing:
        raise SearchError(
            f"hypothesis of {row.get('utterance', 'an unknown utterance')}: {', '.join(missing)} missing; "
            "delete the file of hypotheses and decode again"
        )
    try:
        typed = _Row.model_validate(row, strict=True)
    except ValidationError as error:
        raise SearchError(
            f"hypothesis of {reprlib.repr(row['utterance'])}: {first_mistake(error)}; "
            "delete the file of hypotheses and decode again"
        ) from error
    words, frames = tuple(typed.words.split()), tuple(typed.word_frames)
    if list(frames) != sorted(frames):
        raise SearchError(
            f"hypothesis of {row['utterance']}: the frames of its words are not in order; delete the file of "
            "hypotheses and decode again"
        )
    if len(words) != len(frames):
        raise SearchError(
            f"hypothesis of {row['utterance']}: {len(words)} words, but {len(frames)} frames of words; "
            "delete the file of hypotheses and decode again"
        )
    confidences = tuple(typed.confidences)
    if len(confidences) not in (0, len(words)):
        raise SearchError(
            f"hypothesis of {row['utterance']}: {len(words)} words, but {len(confidences)} confidences; "
            "delete the file of hypotheses and decode again"
        )
    alignment = np.zeros(0, np.int32) if pdfs is None else pdfs
    return Hypothesis(typed.utterance, words, frames, typed.cost, typed.reached_final, alignment, confidences)
