"""How well a language model fits a text, and whether that text was in what it was estimated from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from lhuc_asr.lang.histories import HistoryModel
from lhuc_asr.lang.ngram import NgramModel
from lhuc_asr.lang.tags import without_tags
from lhuc_asr.lang.text import UNKNOWN

# So many words in a row hardly ever occur twice by chance.
LENGTH = 8


@dataclass(frozen=True)
class TextFit:
    """A text under a language model.

    Attributes:
        words: Number of words, without tags.
        unknown: Number of those that the model does not have, and that cannot be recognised.
        perplexity: Perplexity for each word that it has and each end of a sentence; None for a text without words. A
            model with ``<unk>`` predicts unknown words too, as that.
    """

    words: int
    unknown: int
    perplexity: float | None

    def __str__(self) -> str:
        """The figures for a log line."""
        if self.perplexity is None:
            return "no words"
        share = 100 * self.unknown / self.words
        return f"perplexity {self.perplexity:.1f}, {share:.2f} % of {self.words} words out of vocabulary"


def text_fit(model: NgramModel | HistoryModel, transcripts: Iterable[Sequence[str]]) -> TextFit:
    """The fit of a model to transcripts, each a sequence of words; tags do not count."""
    sentences = [spoken for words in transcripts if (spoken := without_tags(words))]
    if not sentences:
        return TextFit(0, 0, None)
    known = model.ids.keys() - {UNKNOWN}
    unknown = sum(word not in known for words in sentences for word in words)
    return TextFit(sum(map(len, sentences)), unknown, model.score_text(sentences).perplexity)


def shared_sequences(
    text: Iterable[Sequence[str]], transcripts: Iterable[Sequence[str]], length: int = LENGTH
) -> tuple[int, int]:
    """Number of different sequences of ``length`` words in transcripts that a text has too, and number of all of them.

    Args:
        text: Sentences, each a sequence of words.
        transcripts: The same.
        length: Number of words in a row.

    Example:
        >>> shared_sequences([["THE", "CAT", "SAT"]], [["A", "CAT", "SAT"]], length=2)
        (1, 2)
    """
    wanted = {each for words in transcripts for each in _sequences(tuple(words), length)}
    return len({each for words in text for each in _sequences(tuple(words), length) if each in wanted}), len(wanted)


def _sequences(words: tuple[str, ...], length: int) -> Iterator[tuple[str, ...]]:
    return (words[first : first + length] for first in range(len(words) - length + 1))
