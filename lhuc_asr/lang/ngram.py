"""Back-off n-gram language models: tables, probabilities of words in context, perplexity.

A model of order n holds, for each length up to n, the n-grams that have a probability of their own; the
probability of any other is the back-off weight of its history times the probability in the shorter history:

    p(w | h) = p*(w | h)                if hw is in the model,
               alpha(h) p(w | h')       otherwise, where h' is h without its oldest word

with alpha(h) = 1 if h is not in the model. Millions of n-grams are kept in arrays, never in dictionaries. The key of
an n-gram is one integer, made of the row of its first n - 1 words in the table of shorter n-grams and the number of its
last word. Tables are sorted by key. Logarithms are natural.

Estimation is in ``kneser_ney``, files are in ``arpa``, and making a model smaller is in ``pruning``.
"""

from __future__ import annotations

import logging
import math
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lhuc_asr.base.errors import LanguageModelError
from lhuc_asr.lang.text import UNKNOWN, is_reserved

logger = logging.getLogger(__name__)

# Every model's first two symbols; the row of a word in the table of unigrams is its number.
BEGIN_ID = 0
END_ID = 1
# In arrays of word numbers: no word, or a word outside the vocabulary. In arrays of rows: not in the model.
NONE = -1

# The ARPA format has no logarithm of zero: -99 (base 10) marks <s>, which is never predicted.
LOG_NEVER = -99.0 * math.log(10.0)


@dataclass(frozen=True)
class NgramTable:
    """The n-grams of one length.

    Attributes:
        keys: Row of the history x vocabulary size + number of the last word, strictly ascending, int64, shape (N,).
        log_prob: Log-probability of the last word given the words before, shape (N,).
        log_backoff: Log back-off weight of the whole n-gram as a history, shape (N,); 0 if it is not a history.
    """

    keys: np.ndarray
    log_prob: np.ndarray
    log_backoff: np.ndarray

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class TextScore:
    """The score of a text under a model; words outside the vocabulary are not predicted, but counted.

    Attributes:
        log_prob: Sum of the log-probabilities of the predicted words and sentence ends.
        predicted: Number of predicted words and sentence ends.
        unknown: Number of words outside the vocabulary.
    """

    log_prob: float
    predicted: int
    unknown: int

    @classmethod
    def of(cls, log_probs: np.ndarray) -> TextScore:
        """The score of a text with these log-probabilities, -inf for words outside the vocabulary, shape (N,).

        Raises:
            LanguageModelError: The text is empty.
        """
        if not len(log_probs):
            raise LanguageModelError("no sentences to score; pass at least one")
        possible = np.isfinite(log_probs)
        return cls(float(log_probs[possible].sum()), int(possible.sum()), int((~possible).sum()))

    @property
    def perplexity(self) -> float:
        """The exponential of the mean negative log-probability of a predicted word or sentence end."""
        return math.exp(-self.log_prob / self.predicted)


@dataclass(frozen=True)
class NgramModel:
    """A back-off n-gram model.

    Attributes:
        symbols: ``<s>``, ``</s>``, ``<unk>`` if the model predicts it, and the words.
        tables: The unigrams, the bigrams, and so on: one table for each length.
    """

    symbols: tuple[str, ...]
    tables: tuple[NgramTable, ...]

    @property
    def order(self) -> int:
        """Length of the longest n-grams."""
        return len(self.tables)

    @cached_property
    def ids(self) -> dict[str, int]:
        """Number of each symbol."""
        return {symbol: number for number, symbol in enumerate(self.symbols)}

    def score(self, context: Sequence[str], word: str) -> float:
        """Natural log p(word | context); -inf for a word outside the vocabulary of a model without ``<unk>``.

        Args:
            context: The words before, oldest first, with ``<s>`` at the beginning of the sentence; only the last
                ``order - 1`` words count.
            word: A word or ``</s>``.
        """
        unknown = self.ids.get(UNKNOWN, NONE)
        numbers = [self.ids.get(w, unknown) for w in (*context, word)]
        return float(self.score_ngrams([np.array([i]) for i in numbers[-self.order :]])[0])

    def log_prob(self, words: Sequence[str]) -> float:
        """Natural log-probability of a sentence and its end; -inf if it has a word that cannot occur."""
        return float(self._score_text(self._encode([words])).sum())

    def score_text(self, sentences: Iterable[Sequence[str]]) -> TextScore:
        """Log-probability of sentences, each a sequence of words.

        Raises:
            LanguageModelError: The text is empty, or a sentence holds ``<s>`` or ``</s>``.
        """
        return TextScore.of(self._score_text(self._encode(sentences)))

    def perplexity(self, sentences: Iterable[Sequence[str]]) -> float:
        """Perplexity per word, sentence ends included; words outside the vocabulary are left out, with a warning.

        Raises:
            LanguageModelError: The text is empty, or a sentence holds ``<s>`` or ``</s>``.
        """
        score = self.score_text(sentences)
        if score.unknown:
            logger.warning("perplexity leaves out %d words outside the vocabulary", score.unknown)
        return score.perplexity

    def score_ngrams(self, columns: Sequence[np.ndarray]) -> np.ndarray:
        """Natural log p(last word | words before) of many n-grams at once.

        Args:
            columns: Word numbers, oldest first, at most ``order`` columns of shape (N,). A ``NONE`` ends the
                history; a last word of ``NONE`` has the log-probability -inf.

        Returns:
            Log-probabilities, shape (N,).
        """
        word = columns[-1]
        log_prob = take(self.tables[0].log_prob, word, -math.inf)
        for length in range(2, len(columns) + 1):
            history = self.rows_of(columns[-length:-1])
            row = self.find(length, history, word)
            backed_off = take(self.tables[length - 2].log_backoff, history, 0.0) + log_prob
            log_prob = np.where(row == NONE, backed_off, take(self.tables[length - 1].log_prob, row, 0.0))
        return log_prob

    def rows_of(self, columns: Sequence[np.ndarray]) -> np.ndarray:
        """Rows of many n-grams in the table of their length, shape (N,); ``NONE`` for those not in the model."""
        rows = columns[0]
        for length, words in enumerate(columns[1:], start=2):
            rows = self.find(length, rows, words)
        return rows

    def find(self, length: int, history: np.ndarray, word: np.ndarray) -> np.ndarray:
        """Rows of n-grams in the table of their length, shape (N,), from the rows of their histories and last words."""
        keys = self.tables[length - 1].keys
        wanted = history.astype(np.int64) * len(self.symbols) + word
        rows = np.searchsorted(keys, wanted)
        known = (history != NONE) & (word != NONE) & (rows < len(keys))
        known[known] = keys[rows[known]] == wanted[known]
        return np.where(known, rows, NONE)

    def columns_of(self, length: int) -> list[np.ndarray]:
        """The words of every n-gram of one length, oldest first, each column of shape (N,)."""
        columns: list[np.ndarray] = []
        rows = np.arange(len(self.tables[length - 1]))
        for table in reversed(self.tables[:length]):
            rows, word = np.divmod(table.keys[rows], len(self.symbols))
            columns.insert(0, word)
        return columns

    def _encode(self, sentences: Iterable[Sequence[str]]) -> np.ndarray:
        unknown = self.ids.get(UNKNOWN, NONE)
        return encode(sentences, lambda word: self.ids.get(word, unknown))

    def _score_text(self, ids: np.ndarray) -> np.ndarray:
        columns = [previous_words(ids, distance) for distance in range(self.order - 1, 0, -1)]
        scores: np.ndarray = self.score_ngrams([*columns, ids])[ids != BEGIN_ID]
        return scores


def encode(sentences: Iterable[Sequence[str]], number_of: Callable[[str], int]) -> np.ndarray:
    """Sentences as one array of word numbers, each between ``BEGIN_ID`` and ``END_ID``, int32, shape (T,).

    Raises:
        LanguageModelError: A sentence is a string, or holds ``<s>`` or another reserved symbol.
    """
    ids = array("i")
    for index, words in enumerate(sentences, start=1):
        if isinstance(words, str):
            raise LanguageModelError(f"sentence {index}: expected a sequence of words, found the string {words!r}")
        ids.append(BEGIN_ID)
        for word in words:
            # The first letter decides for nearly all of millions of words.
            if word[:1] in "<#" and is_reserved(word):
                raise LanguageModelError(
                    f"sentence {index}: expected words, found the reserved symbol {word!r}; take it out: "
                    "sentences get their begin and end here"
                )
            ids.append(number_of(word))
        ids.append(END_ID)
    return np.frombuffer(ids, dtype=np.int32) if ids else np.empty(0, dtype=np.int32)


def previous_words(ids: np.ndarray, distance: int) -> np.ndarray:
    """The word ``distance`` positions before each word of a sentence, shape (T,); ``NONE`` before the sentence."""
    position = np.arange(len(ids))
    begin = np.maximum.accumulate(np.where(ids == BEGIN_ID, position, 0))
    words = np.full(len(ids), NONE, dtype=ids.dtype)
    words[distance:] = ids[: len(ids) - distance]
    words[position - begin < distance] = NONE
    return words


def take(values: np.ndarray, rows: np.ndarray, default: float) -> np.ndarray:
    """``values[rows]``, shape (N,), with ``default`` for rows that are ``NONE``."""
    taken = np.full(len(rows), default)
    known = rows != NONE
    taken[known] = values[rows[known]]
    return taken


def keep_rows(tables: Sequence[NgramTable], kept: Sequence[np.ndarray], vocabulary: int) -> tuple[NgramTable, ...]:
    """The tables with some of their rows; the histories of rows that are kept must be kept too.

    Args:
        tables: One table for each length.
        kept: Boolean mask of the rows of each table; all unigrams are kept.
        vocabulary: Number of symbols.
    """
    result = [tables[0]]
    for table, mask, histories_kept in zip(tables[1:], kept[1:], kept, strict=False):
        new_row = np.cumsum(histories_kept) - 1
        history, word = np.divmod(table.keys[mask], vocabulary)
        keys = new_row[history] * vocabulary + word
        result.append(NgramTable(keys, table.log_prob[mask], table.log_backoff[mask]))
    return tuple(result)
