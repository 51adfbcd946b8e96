"""Entropy pruning: leaving out the n-grams that change a model least.

Each n-gram is judged by itself: by the relative entropy D(p || p') between the model and the model without it, and by
exp(D) - 1, the relative rise of the perplexity.

The short n-grams of a Kneser-Ney model tell how many histories a word has, not how often it occurs. So the probability
p(h) of a history is only a rough estimate there, and pruning costs more than with another smoothing (Chelba, Brants,
Neveitt and Xu, Interspeech 2010). Several n-grams together may cost more than the sum of their own costs. Watch the
perplexity if the vocabulary is so small that nearly all of it follows a history.

Source: A. Stolcke, "Entropy-based pruning of backoff language models", DARPA Broadcast News Workshop 1998.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from lhuc_asr.base.errors import LanguageModelError
from lhuc_asr.lang.ngram import BEGIN_ID, END_ID, NgramModel, keep_rows

logger = logging.getLogger(__name__)

# A smaller probability than this, left for words without an n-gram, is a rounding error: every word has an n-gram.
_NOTHING_LEFT = 1e-9


def prune(model: NgramModel, threshold: float) -> NgramModel:
    """Leave out the n-grams whose removal raises the model's perplexity by less than a fraction ``threshold``.

    Unigrams stay, and so do the histories of longer n-grams that stay. Back-off weights are recomputed, so that the
    probabilities in every history sum to one again.

    Args:
        model: Any back-off model whose probabilities sum to one.
        threshold: For example 1e-7; 0 leaves the model as it is.

    Raises:
        LanguageModelError: The threshold is negative.
    """
    if not threshold >= 0.0:
        raise LanguageModelError(f"pruning threshold: expected 0 or more, found {threshold}; 0 keeps all n-grams")
    kept = [np.ones(len(table), dtype=bool) for table in model.tables]
    for length in range(model.order, 1, -1):
        important = np.expm1(relative_entropies(model, length)) >= threshold
        kept[length - 1] = important | _begins_longer(model, length, kept)
    tables = keep_rows(model.tables, kept, len(model.symbols))
    pruned = _with_backoffs(NgramModel(model.symbols, tables))
    logger.info(
        "pruned n-grams: %s of %s",
        " + ".join(str(len(table)) for table in pruned.tables),
        " + ".join(str(len(table)) for table in model.tables),
    )
    return pruned


def relative_entropies(model: NgramModel, length: int) -> np.ndarray:
    """D(p || p') for the removal of each n-gram of one length by itself, shape (N,).

    Args:
        model: The model.
        length: Length of the n-grams, 2 or more.
    """
    table, histories = model.tables[length - 1], model.tables[length - 2]
    history = table.keys // len(model.symbols)
    log_lower = model.score_ngrams(model.columns_of(length)[1:])
    p, lower = np.exp(table.log_prob), np.exp(log_lower)
    log_alpha = histories.log_backoff
    # Probability of the words without an n-gram in the history: in the shorter history, and in this one.
    lower_left = np.maximum(1.0 - np.bincount(history, weights=lower, minlength=len(histories)), 0.0)
    left = np.exp(log_alpha) * lower_left
    log_alpha, left, lower_left = log_alpha[history], left[history], lower_left[history]
    log_new_alpha = np.log((left + p) / (lower_left + lower))
    change = p * (log_lower + log_new_alpha - table.log_prob) + left * (log_new_alpha - log_alpha)
    p_history = np.exp(_log_prob_of_history(model, length - 1))[history]
    # Only rounding makes an entropy negative.
    entropies: np.ndarray = np.maximum(-p_history * change, 0.0)
    return entropies


def _log_prob_of_history(model: NgramModel, length: int) -> np.ndarray:
    """Log-probability of each n-gram of one length in a text, shape (N,)."""
    log_prob = model.tables[0].log_prob.copy()
    # As many sentences begin as end.
    log_prob[BEGIN_ID] = log_prob[END_ID]
    for table in model.tables[1:length]:
        log_prob = log_prob[table.keys // len(model.symbols)] + table.log_prob
    return log_prob


def _begins_longer(model: NgramModel, length: int, kept: list[np.ndarray]) -> np.ndarray:
    """Whether each n-gram of one length is the history of an n-gram that is kept, shape (N,)."""
    begins = np.zeros(len(model.tables[length - 1]), dtype=bool)
    if length < model.order:
        begins[model.tables[length].keys[kept[length]] // len(model.symbols)] = True
    return begins


def _with_backoffs(model: NgramModel) -> NgramModel:
    """The model with back-off weights that make probabilities sum to one, short histories first."""
    for length in range(2, model.order + 1):
        table, histories = model.tables[length - 1], model.tables[length - 2]
        history = table.keys // len(model.symbols)
        lower = np.exp(model.score_ngrams(model.columns_of(length)[1:]))
        left = 1.0 - np.bincount(history, weights=np.exp(table.log_prob), minlength=len(histories))
        lower_left = 1.0 - np.bincount(history, weights=lower, minlength=len(histories))
        some_left = (left > _NOTHING_LEFT) & (lower_left > _NOTHING_LEFT)
        log_backoff = histories.log_backoff.copy()
        log_backoff[some_left] = np.log(left[some_left]) - np.log(lower_left[some_left])
        tables = list(model.tables)
        tables[length - 2] = replace(histories, log_backoff=log_backoff)
        model = NgramModel(model.symbols, tuple(tables))
    return model
