"""A language model that others made, as SRILM and KenLM write it: checked before it is trusted.

Its words are spelt as those of transcripts and lexica are (``text.normalise``), and ``<UNK>`` is ``<unk>``. A file that
has natural logarithms, or that was put together wrongly, reads like any other; what shows it is the sums of its
probabilities.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np

from lhuc_asr.base.errors import LanguageModelError
from lhuc_asr.lang.arpa import read_arpa
from lhuc_asr.lang.ngram import BEGIN_ID, LOG_NEVER, NgramModel, NgramTable
from lhuc_asr.lang.tags import is_tag
from lhuc_asr.lang.text import SENTENCE_BEGIN, SENTENCE_END, UNKNOWN, is_reserved, normalise

logger = logging.getLogger(__name__)

# Sums of the probabilities after a history. Seven digits in a file leave them within a thousandth of one. Words that
# were taken out of a finished model make them smaller; nothing that is right makes them larger.
LARGEST_SUM = 1.01
SMALLEST_SUM = 0.9

RENORMALISE = "estimate it again, or renormalise it: ngram -lm IN -renorm -write-lm OUT (SRILM)"


def read_given_model(path: Path, order: int | None = None) -> NgramModel:
    """Read and check a language model.

    Args:
        path: ARPA file, plain or compressed.
        order: Length of the longest n-grams to read; None reads all.

    Raises:
        LanguageModelError: The file is not an ARPA file, two of its words are one in our spelling, or the probabilities
            after a history do not sum to one.
    """
    model = read_arpa(path, order)
    unigrams = model.tables[0]
    log_prob = unigrams.log_prob.copy()
    log_prob[BEGIN_ID] = LOG_NEVER  # KenLM writes 0 there
    tables = (replace(unigrams, log_prob=log_prob), *model.tables[1:])
    model = NgramModel(_spelt(model.symbols, path), tables)
    _check_sums(model, path)
    return model


def likeliest_words(path: Path) -> list[str]:
    """The words of a language model, the most probable first; tags and symbols are not among them.

    Raises:
        LanguageModelError: The file is not an ARPA file, or two of its words are one in our spelling.
    """
    model = read_arpa(path, order=1)
    words = _spelt(model.symbols, path)
    ranked = sorted(zip((-model.tables[0].log_prob).tolist(), words, strict=True))
    return [word for _, word in ranked if not is_tag(word) and not is_reserved(word)]


def restricted(model: NgramModel, words: Collection[str], path: Path) -> NgramModel:
    """The n-grams of a model that consist of some words only, with their probabilities as they are.

    Args:
        model: The model.
        words: The words; ``<unk>`` stays only if it is one of them.
        path: The model's file, for messages.

    Raises:
        LanguageModelError: The model has none of the words.
    """
    wanted = {SENTENCE_BEGIN, SENTENCE_END, *words}
    keeps = np.array([symbol in wanted for symbol in model.symbols])
    symbols = tuple(symbol for symbol in model.symbols if symbol in wanted)
    if len(symbols) == 2:
        others = [symbol for symbol in model.symbols if symbol not in (SENTENCE_BEGIN, SENTENCE_END)]
        raise LanguageModelError(
            f"{path}: none of its {len(others)} words ({' '.join(others[:5])} ...) is in the lexicon "
            f"({' '.join(sorted(words)[:5])} ...); check that both are of one language"
        )
    logger.info("%s: %d of %d words are in the lexicon", path, len(symbols) - 2, len(model.symbols) - 2)
    new_number = np.cumsum(keeps) - 1
    first = model.tables[0]
    tables = [NgramTable(np.arange(len(symbols)), first.log_prob[keeps], first.log_backoff[keeps])]
    kept, new_row = keeps, new_number
    for table in model.tables[1:]:
        history, word = np.divmod(table.keys, len(model.symbols))
        mask = kept[history] & keeps[word]
        keys = new_row[history[mask]] * len(symbols) + new_number[word[mask]]
        tables.append(NgramTable(keys, table.log_prob[mask], table.log_backoff[mask]))
        kept, new_row = mask, np.cumsum(mask) - 1
    return NgramModel(symbols, tuple(tables))


def _spelt(symbols: tuple[str, ...], path: Path) -> tuple[str, ...]:
    """The symbols in our spelling."""
    spelt: dict[str, str] = {}
    for symbol in symbols:
        own = UNKNOWN if symbol.lower() == UNKNOWN else symbol if is_reserved(symbol) else normalise(symbol)
        if own in spelt:
            raise LanguageModelError(
                f"{path}: {spelt[own]!r} and {symbol!r} are one word here, {own!r}; estimate the model from text "
                "in one case"
            )
        spelt[own] = symbol
    return tuple(spelt)


def _check_sums(model: NgramModel, path: Path) -> None:
    """Refuse a model whose probabilities do not sum to one after each history, the empty one among them."""
    total = float(np.exp(np.delete(model.tables[0].log_prob, BEGIN_ID)).sum())
    if not SMALLEST_SUM <= total <= LARGEST_SUM:
        raise LanguageModelError(
            f"{path}: the probabilities of its unigrams sum to {total:.3g}, expected 1, in logarithms of base 10; "
            f"{RENORMALISE}"
        )
    for length in range(2, model.order + 1):
        table, histories = model.tables[length - 1], model.tables[length - 2]
        history = table.keys // len(model.symbols)
        lower = np.exp(model.score_ngrams(model.columns_of(length)[1:]))
        own = np.bincount(history, weights=np.exp(table.log_prob), minlength=len(histories))
        left = np.maximum(1.0 - np.bincount(history, weights=lower, minlength=len(histories)), 0.0)
        sums = own + np.exp(histories.log_backoff) * left
        sums[own == 0.0] = 0.0  # never a history in the model: its weight is never used
        worst = int(np.argmax(sums))
        if sums[worst] > LARGEST_SUM:
            words = " ".join(model.symbols[column[worst]] for column in model.columns_of(length - 1))
            raise LanguageModelError(
                f"{path}: the probabilities after {words!r} sum to {sums[worst]:.3g}, expected 1; {RENORMALISE}"
            )
