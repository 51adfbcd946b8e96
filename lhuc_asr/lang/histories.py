"""The histories that a back-off model tells apart, for compiled loops that go word by word.

A history is the longest suffix of the words so far that the model has as an n-gram and that makes a difference: an
n-gram that no longer one continues, and whose back-off weight is one, predicts what its own suffix predicts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from lhuc_asr.base.compiled import compiled
from lhuc_asr.lang.ngram import BEGIN_ID, NONE, NgramModel, TextScore, encode
from lhuc_asr.lang.text import UNKNOWN

# The history of no words.
EMPTY = -1


class Histories(NamedTuple):
    """The n-grams of all lengths in one table of G rows, the shorter first; a history is a row, or EMPTY.

    Attributes:
        first: Row of the first n-gram of each length, and the end, shape (order + 1,), int64.
        length: Length of each n-gram, shape (G,), int8.
        keys: Row of the first words in the table of their length x vocabulary size + last word, shape (G,), int64.
        log_prob, log_backoff: As in ``NgramTable``, shape (G,), float64.
        shorter: History of each n-gram without its oldest word, shape (G,), int64.
        history: History of all words of each n-gram, shape (G,), int64.
        words: Vocabulary size.
    """

    first: np.ndarray
    length: np.ndarray
    keys: np.ndarray
    log_prob: np.ndarray
    log_backoff: np.ndarray
    shorter: np.ndarray
    history: np.ndarray
    words: int

    @classmethod
    def of(cls, model: NgramModel) -> Histories:
        """The histories of a model."""
        tables, words = model.tables, len(model.symbols)
        first = np.concatenate([[0], np.cumsum([len(table) for table in tables])]).astype(np.int64)
        shorter, history = np.full(first[-1], EMPTY), np.full(first[-1], EMPTY)
        for length, table in enumerate(tables, start=1):
            rows = np.arange(first[length - 1], first[length])
            # The suffixes of each n-gram, from the shortest to the longest that is in the model.
            columns = model.columns_of(length) if length > 1 else []
            for taken in range(1, length):
                suffix = model.rows_of(columns[length - taken :])
                in_model = suffix != NONE
                shorter[rows[in_model]] = history[first[taken - 1] + suffix[in_model]]
            differs = np.zeros(len(table), np.bool_)
            if length < len(tables):
                differs = table.log_backoff != 0.0
                differs[np.unique(tables[length].keys // words)] = True
            history[rows] = np.where(differs, rows, shorter[rows])
        return cls(
            first,
            np.repeat(np.arange(1, len(tables) + 1, dtype=np.int8), np.diff(first)),
            np.concatenate([table.keys for table in tables]).astype(np.int64),
            np.concatenate([table.log_prob for table in tables]).astype(np.float64),
            np.concatenate([table.log_backoff for table in tables]).astype(np.float64),
            shorter,
            history,
            words,
        )


@dataclass(frozen=True, eq=False)
class HistoryModel:
    """A back-off model by its histories.

    Attributes:
        symbols: As of the n-gram model: ``<s>``, ``</s>``, ``<unk>`` if the model predicts it, and the words.
        histories: The histories.
    """

    symbols: tuple[str, ...]
    histories: Histories

    @classmethod
    def of(cls, model: NgramModel) -> HistoryModel:
        """An n-gram model by its histories."""
        return cls(model.symbols, Histories.of(model))

    @cached_property
    def ids(self) -> dict[str, int]:
        """Number of each symbol."""
        return {symbol: number for number, symbol in enumerate(self.symbols)}

    def score_text(self, sentences: Iterable[Sequence[str]]) -> TextScore:
        """Log-probability of sentences, each a sequence of words; see ``NgramModel.score_text``.

        Raises:
            LanguageModelError: The text is empty, or a sentence holds ``<s>`` or ``</s>``.
        """
        unknown = self.ids.get(UNKNOWN, NONE)
        ids = encode(sentences, lambda word: self.ids.get(word, unknown))
        return TextScore.of(_log_probs(self.histories, ids)[ids != BEGIN_ID])


@compiled
def predict(model: Histories, history: int, word: int) -> tuple[float, int]:
    """Natural log p(word | history), and the history with the word.

    Args:
        model: The model.
        history: A history: EMPTY, ``model.history`` of ``<s>`` at the beginning of a sentence, or what this function
            returned.
        word: Number of the word in the model.
    """
    log_prob, shorter = 0.0, np.int64(history)
    while shorter != EMPTY:
        length = model.length[shorter]
        key = (shorter - model.first[length - 1]) * model.words + word
        low, high = model.first[length], model.first[length + 1]
        row = low + np.searchsorted(model.keys[low:high], key)
        if row < high and model.keys[row] == key:
            return log_prob + model.log_prob[row], int(model.history[row])
        log_prob += model.log_backoff[shorter]
        shorter = model.shorter[shorter]
    return log_prob + model.log_prob[word], int(model.history[word])


@compiled
def _log_probs(model: Histories, ids: np.ndarray) -> np.ndarray:
    """Natural log-probability of each word of sentences as ``encode`` gives them, shape (T,), and 0 of each begin."""
    log_probs = np.zeros(len(ids))
    history = EMPTY
    for position in range(len(ids)):
        word = ids[position]
        if word == BEGIN_ID:
            history = int(model.history[BEGIN_ID])
        elif word == NONE:
            log_probs[position], history = -np.inf, EMPTY
        else:
            log_probs[position], history = predict(model, history, word)
    return log_probs
