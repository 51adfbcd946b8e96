"""Modified Kneser-Ney smoothing, interpolated: n-gram models from text.

Chen and Goodman, "An empirical study of smoothing techniques for language modeling", Computer Speech and
Language 13 (1999), section 3:

    p(w | h) = (c(hw) - D(c(hw))) / c(h.) + gamma(h) p(w | h'),    gamma(h) = sum_w D(c(hw)) / c(h.)

At the highest order c is the count in the text; below, the number of different words seen before hw, except
for n-grams that begin with <s>, which nothing precedes: these keep their counts. The unigrams are
interpolated with the uniform distribution, so that each word of the vocabulary has a probability, seen or not.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lhuc_asr.base.errors import LanguageModelError
from lhuc_asr.lang.ngram import (
    BEGIN_ID,
    LOG_NEVER,
    NONE,
    NgramModel,
    NgramTable,
    encode,
    keep_rows,
)
from lhuc_asr.lang.text import SENTENCE_BEGIN, SENTENCE_END, UNKNOWN, is_reserved

logger = logging.getLogger(__name__)

HIGHEST_ORDER = 4
# D(1), D(2), D(3 and more) for a text that is too small to estimate them; KenLM's --discount_fallback is the same.
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)


def estimate(
    sentences: Iterable[Sequence[str]],
    order: int,
    vocabulary: Iterable[str] | None = None,
    *,
    min_counts: Sequence[int] | None = None,
    keep_unknown: bool = False,
) -> NgramModel:
    """Estimate an n-gram model from text.

    Args:
        sentences: The text, each sentence a sequence of words without ``<s>`` and ``</s>``.
        order: Length of the longest n-grams, 1 to 4.
        vocabulary: The words to predict, each of which gets a probability; by default the words of the text.
        min_counts: Minimum number of occurrences of an n-gram with a probability of its own, for each length: 1 for
            unigrams, and not falling with length; by default 1. The probability of rarer n-grams goes to the
            back-off of their histories.
        keep_unknown: Whether words outside the vocabulary are counted, and later predicted, as ``<unk>``. If not,
            n-grams do not extend across such words.

    Raises:
        LanguageModelError: The text is empty, has no n-gram within the vocabulary, or an argument is invalid.
    """
    if not 1 <= order <= HIGHEST_ORDER:
        raise LanguageModelError(f"order: expected 1 to {HIGHEST_ORDER}, found {order}")
    min_counts = tuple(min_counts or (1,) * order)
    if len(min_counts) != order or min_counts[0] != 1 or list(min_counts) != sorted(min_counts):
        raise LanguageModelError(
            f"min_counts: expected {order} numbers that do not fall, the first 1, found {min_counts}"
        )
    symbols, ids = _number(sentences, vocabulary, keep_unknown)
    counts = _count(ids, order, len(symbols))
    if not counts[0].adjusted.any():
        raise LanguageModelError(
            "the text is empty, or none of its words is within the vocabulary; give more text, or another vocabulary"
        )

    # The empty n-gram, below the unigrams: uniform over all symbols but <s>, which is never predicted.
    probability = np.array([1.0 / (len(symbols) - 1)])
    tables: list[NgramTable] = []
    kept: list[np.ndarray] = []
    for length, (count, min_count) in enumerate(zip(counts, min_counts, strict=True), start=1):
        keep = (count.raw >= min_count) | (length == 1)
        probability, gamma = _interpolate(
            count, keep, discounts(count.adjusted, length), count.keys // len(symbols), probability
        )
        if tables:
            tables[-1] = replace(tables[-1], log_backoff=np.log(gamma))
        tables.append(NgramTable(count.keys, np.log(probability), np.zeros(len(probability))))
        kept.append(keep)
    tables[0].log_prob[BEGIN_ID] = LOG_NEVER
    model = NgramModel(symbols, keep_rows(tables, kept, len(symbols)))
    logger.info("estimated n-grams: %s", " + ".join(str(len(table)) for table in model.tables))
    return model


def discounts(counts: np.ndarray, length: int) -> np.ndarray:
    """The discounts D(0) = 0, D(1), D(2) and D(3 and more), from the counts of n-grams.

    All three are ``FALLBACK_DISCOUNTS``, and that is logged, if no n-gram was counted once, twice or three times, or a
    discount is not positive. This happens in small or artificial texts.

    Args:
        counts: Counts of the n-grams of one length, int64, shape (N,).
        length: That length, for the log.

    Returns:
        The discounts, shape (4,).
    """
    n1, n2, n3, n4 = (float(np.count_nonzero(counts == count)) for count in (1, 2, 3, 4))
    if min(n1, n2, n3) > 0:
        y = n1 / (n1 + 2.0 * n2)
        estimated = np.array([0.0, 1.0 - 2.0 * y * n2 / n1, 2.0 - 3.0 * y * n3 / n2, 3.0 - 4.0 * y * n4 / n3])
        if np.all(estimated[1:] > 0.0):
            return estimated
    logger.info(
        "%d-grams: too little text for discounts (counted once to four times: %d %d %d %d), using %s",
        *(length, n1, n2, n3, n4, FALLBACK_DISCOUNTS),
    )
    return np.array([0.0, *FALLBACK_DISCOUNTS])


@dataclass(frozen=True)
class _Counts:
    """The n-grams of one length in a text.

    Attributes:
        keys: Keys as in ``NgramTable``, shape (N,).
        raw: Numbers of occurrences, shape (N,).
        adjusted: Counts that are discounted: numbers of occurrences or of different words before, shape (N,).
        suffix: Row of each n-gram without its oldest word in the table of shorter n-grams, shape (N,).
    """

    keys: np.ndarray
    raw: np.ndarray
    adjusted: np.ndarray
    suffix: np.ndarray


def _interpolate(
    count: _Counts, keep: np.ndarray, discount: np.ndarray, history: np.ndarray, lower: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """p(w | h) of the n-grams of one length, and gamma(h) of their histories.

    Args:
        count: Counts of the n-grams.
        keep: Whether each n-gram has a probability of its own, shape (N,).
        discount: The discounts D, shape (4,).
        history: Row of each n-gram's history among the M n-grams that are one word shorter, shape (N,).
        lower: Probabilities of the shorter n-grams, shape (M,).

    Returns:
        p, shape (N,), and gamma, shape (M,).
    """
    discounted = np.where(keep, count.adjusted - discount[np.minimum(count.adjusted, 3)], 0.0)
    total = np.bincount(history, weights=count.adjusted, minlength=len(lower))
    freed = np.bincount(history, weights=count.adjusted - discounted, minlength=len(lower))
    # A history that is never followed by a word backs off with weight one.
    gamma = np.divide(freed, total, out=np.ones(len(lower)), where=total > 0)
    share = np.divide(discounted, total[history], out=np.zeros(len(history)), where=total[history] > 0)
    return share + gamma[history] * lower[count.suffix], gamma


def _number(
    sentences: Iterable[Sequence[str]], vocabulary: Iterable[str] | None, keep_unknown: bool
) -> tuple[tuple[str, ...], np.ndarray]:
    """The symbols of the model, and the text as their numbers, shape (T,)."""
    special = [SENTENCE_BEGIN, SENTENCE_END] + [UNKNOWN] * keep_unknown
    if vocabulary is not None:
        symbols = (*special, *sorted(set(vocabulary) - {UNKNOWN}))
        _check_words(symbols[len(special) :])
        numbers = {symbol: number for number, symbol in enumerate(symbols)}
        unknown = numbers.get(UNKNOWN, NONE)
        return symbols, encode(sentences, lambda word: numbers.get(word, unknown))

    # Words get numbers in the order of the text, and then those of their sorted order.
    numbers = {symbol: number for number, symbol in enumerate(special)}
    unknown = numbers.get(UNKNOWN, NONE)
    ids = encode(sentences, lambda word: unknown if word == UNKNOWN else numbers.setdefault(word, len(numbers)))
    symbols = (*special, *sorted(numbers.keys() - set(special)))
    _check_words(symbols[len(special) :])
    renumber = np.empty(len(symbols), dtype=np.int32)
    renumber[[numbers[symbol] for symbol in symbols]] = np.arange(len(symbols))
    return symbols, np.where(ids == NONE, ids, renumber[ids])


def _check_words(words: Sequence[str]) -> None:
    strange = [repr(word) for word in words if is_reserved(word) or word.split() != [word]]
    if strange:
        raise LanguageModelError(
            f"vocabulary: expected words, found reserved symbols or white space; take them out: {' '.join(strange)}"
        )


def _count(ids: np.ndarray, order: int, vocabulary: int) -> list[_Counts]:
    """Count the n-grams of each length up to ``order`` in an encoded text."""
    raw = np.bincount(ids[ids != NONE], minlength=vocabulary)
    levels = [(np.arange(vocabulary), raw, np.zeros(vocabulary, dtype=np.int64))]
    # Row of the n-gram that ends at each position, NONE if there is none.
    rows = ids.astype(np.int64)
    for _ in range(1, order):
        histories = np.roll(rows, 1)
        valid = (histories != NONE) & (ids != NONE) & (ids != BEGIN_ID)
        keys, inverse, raw = np.unique(
            histories[valid] * vocabulary + ids[valid], return_inverse=True, return_counts=True
        )
        suffix = np.zeros(len(keys), dtype=np.int64)
        suffix[inverse] = rows[valid]
        rows = np.full(len(ids), NONE, dtype=np.int64)
        rows[valid] = inverse
        levels.append((keys, raw, suffix))

    counts = []
    initial = np.arange(vocabulary) == BEGIN_ID
    for length, (keys, raw, suffix) in enumerate(levels, start=1):
        if length > 1:
            initial = initial[keys // vocabulary]
        if length == order:
            adjusted = raw.copy()
        else:
            before = np.bincount(levels[length][2], minlength=len(keys))
            adjusted = np.where(initial, raw, before)
        if length == 1:
            adjusted[BEGIN_ID] = 0  # <s> is given, never predicted
        counts.append(_Counts(keys, raw, adjusted, suffix))
    return counts
