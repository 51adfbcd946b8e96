"""Pruning of n-gram models, against relative entropies by enumeration."""

import math

import numpy as np
import pytest
from ngram_oracle import assert_sums_to_one, random_text

from lhuc_asr.base.errors import LanguageModelError
from lhuc_asr.lang.kneser_ney import estimate
from lhuc_asr.lang.pruning import prune, relative_entropies


def history_probability(model, history):
    first = "</s>" if history[0] == "<s>" else history[0]
    rest = sum(model.score(history[:i], history[i]) for i in range(1, len(history)))
    return math.exp(model.score([], first) + rest)


@pytest.mark.parametrize(("order", "length"), [(2, 2), (3, 3), (3, 2)])
def test_relative_entropy_by_enumeration(order, length):
    model = estimate(random_text(6, sentences=60, vocabulary=5), order)
    entropies = relative_entropies(model, length)
    predicted = [symbol for symbol in model.symbols if symbol != "<s>"]
    ngrams = [tuple(model.symbols[i] for i in row) for row in np.stack(model.columns_of(length), axis=1)]
    for removed, entropy in zip(ngrams, entropies, strict=True):
        history = removed[:-1]
        own = {ngram[-1] for ngram in ngrams if ngram[:-1] == history} - {removed[-1]}
        p = {w: math.exp(model.score(history, w)) for w in predicted}
        lower = {w: math.exp(model.score(history[1:], w)) for w in predicted}
        alpha = (1 - sum(p[w] for w in own)) / (1 - sum(lower[w] for w in own))
        without = {w: p[w] if w in own else alpha * lower[w] for w in predicted}
        divergence = sum(p[w] * math.log(p[w] / without[w]) for w in predicted)
        expected = history_probability(model, history) * divergence
        assert entropy == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_pruning_takes_the_least_important_bigrams():
    text = random_text(7, vocabulary=30)
    model = estimate(text, 2)
    rises = np.expm1(relative_entropies(model, 2))
    threshold = float(np.median(rises))
    pruned = prune(model, threshold)
    assert np.array_equal(pruned.tables[1].keys, model.tables[1].keys[rises >= threshold])
    assert model.perplexity(text) < pruned.perplexity(text) < estimate(text, 1).perplexity(text)


def test_pruning_with_threshold_zero_changes_nothing():
    model = estimate(random_text(8), 3)
    pruned = prune(model, 0.0)
    assert [len(table) for table in pruned.tables] == [len(table) for table in model.tables]
    assert pruned.perplexity(random_text(9)) == pytest.approx(model.perplexity(random_text(9)), rel=1e-9)


def test_pruning_keeps_what_longer_ngrams_begin_with():
    pruned = prune(estimate(random_text(8), 3), 1e-3)
    assert len(pruned.tables[2]) > 0
    bigrams = set(zip(*(column.tolist() for column in pruned.columns_of(2)), strict=True))
    trigrams = zip(*(column.tolist() for column in pruned.columns_of(3)), strict=True)
    assert {trigram[:2] for trigram in trigrams} <= bigrams
    assert_sums_to_one(pruned)


@pytest.mark.parametrize("threshold", [-1e-9, math.nan])
def test_pruning_refuses_a_negative_threshold(threshold):
    with pytest.raises(LanguageModelError, match="pruning threshold: expected 0 or more"):
        prune(estimate([["A"]], 2), threshold)
