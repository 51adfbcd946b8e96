"""Estimation of n-gram models, against direct formulas over dictionaries."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ngram_oracle import Oracle, assert_sums_to_one, contexts, random_text, texts

from lhuc_asr.base.errors import LanguageModelError
from lhuc_asr.lang.kneser_ney import FALLBACK_DISCOUNTS, discounts, estimate
from lhuc_asr.lang.pruning import prune


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("keep_unknown", [False, True])
def test_estimate_agrees_with_direct_formulas(order, keep_unknown):
    text = random_text(order)
    vocabulary = [*sorted({w for words in text for w in words})[:-1], "UNSEEN"]
    model = estimate(text, order, vocabulary, keep_unknown=keep_unknown)
    oracle = Oracle(text, order, vocabulary, keep_unknown)
    assert all(oracle.discount[n] != (0, *FALLBACK_DISCOUNTS) for n in range(2, order + 1))
    assert set(model.symbols) == oracle.predicted | {"<s>"}
    for context in contexts(sorted(oracle.predicted - {"</s>"}), order):
        for word in oracle.predicted:
            expected = oracle.probability(context, word)
            assert math.exp(model.score(context, word)) == pytest.approx(expected, rel=1e-9)


@settings(max_examples=60)
@given(texts, st.integers(1, 4), st.booleans(), st.sampled_from([(1, 1, 1, 1), (1, 1, 2, 2), (1, 2, 2, 3)]))
def test_tiny_texts_agree_with_direct_formulas(text, order, keep_unknown, min_counts):
    vocabulary = ("A", "B", "UNSEEN")
    options = {"keep_unknown": keep_unknown, "min_counts": min_counts[:order]}
    try:
        model = estimate(text, order, vocabulary, **options)
    except LanguageModelError:
        # Every n-gram has an unknown word.
        assert not keep_unknown
        assert not any({"A", "B"} & set(words) for words in text) or order > 1
        return
    oracle = Oracle(text, order, vocabulary, **options)
    for words in text:
        sentence = ["<s>", *(w if w in vocabulary else "<unk>" for w in words), "</s>"]
        for i in range(1, len(sentence)):
            if sentence[i] in oracle.predicted:
                expected = oracle.probability(sentence[max(0, i - order + 1) : i], sentence[i])
                assert math.exp(model.score(sentence[:i], sentence[i])) == pytest.approx(expected, rel=1e-9)


@settings(max_examples=40)
@given(texts, st.integers(1, 3), st.sampled_from([(1, 1, 1), (1, 1, 2), (1, 2, 2)]), st.floats(0, 0.5))
def test_probabilities_sum_to_one(text, order, min_counts, threshold):
    model = estimate(text, order, min_counts=min_counts[:order])
    assert_sums_to_one(model)
    assert_sums_to_one(prune(model, threshold))


def test_a_bigram_by_hand():
    # Too little text: discounts 0.5 and 1. Bigrams <s> A (2), A </s> (1), A B (1), B </s> (1). Words are
    # counted by what comes before: A 1 (after <s>), B 1, </s> 2, so p(A) = 0.5 / 4 + (0.5 + 0.5 + 1) / 4 / 3.
    model = estimate([["A"], ["A", "B"]], 2)
    p_a = 0.5 / 4 + 0.5 / 3
    assert math.exp(model.score([], "A")) == pytest.approx(p_a)
    assert math.exp(model.score(["<s>"], "A")) == pytest.approx((2 - 1) / 2 + 1 / 2 * p_a)
    assert math.exp(model.score(["B"], "A")) == pytest.approx(0.5 * p_a)


def test_discounts():
    # n1..n4 = 40, 20, 10, 5: Y = 40 / 80.
    counts = np.repeat([0, 1, 2, 3, 4, 9], [7, 40, 20, 10, 5, 3])
    assert discounts(counts, 2) == pytest.approx([0, 1 - 2 * 0.5 * 0.5, 2 - 3 * 0.5 * 0.5, 3 - 4 * 0.5 * 0.5])
    assert discounts(np.array([1, 1, 2, 4]), 2) == pytest.approx([0, *FALLBACK_DISCOUNTS])
    # Far more n-grams counted three times than twice: D(2) would be negative.
    assert discounts(np.repeat([1, 2, 3], [10, 2, 30]), 2) == pytest.approx([0, *FALLBACK_DISCOUNTS])


def test_unknown_words():
    text = [["A", "X", "B"], ["A", "B"]]
    closed = estimate(text, 2, ["A", "B"])
    assert closed.symbols == ("<s>", "</s>", "A", "B")
    assert closed.score(["A"], "X") == -math.inf
    assert closed.log_prob(["A", "X"]) == -math.inf
    # No bigram reaches across the unknown word, so B after it is what it is without a history.
    assert closed.score(["A", "X"], "B") == closed.score([], "B")
    score = closed.score_text([["A", "X"]])
    assert (score.predicted, score.unknown) == (2, 1)
    assert score.log_prob == pytest.approx(closed.score(["<s>"], "A") + closed.score(["X"], "</s>"))

    # The text's own <unk> is not a word either.
    assert estimate([["A", "<unk>", "B"], ["A", "B"]], 2).symbols == closed.symbols
    for table, same in zip(estimate([["A", "<unk>", "B"], ["A", "B"]], 2).tables, closed.tables, strict=True):
        assert np.array_equal(table.log_prob, same.log_prob)

    open_ = estimate(text, 2, ["A", "B"], keep_unknown=True)
    assert open_.symbols == ("<s>", "</s>", "<unk>", "A", "B")
    assert open_.score(["A"], "X") == open_.score(["A"], "<unk>") > open_.score(["B"], "<unk>")


def test_words_are_sorted_whatever_the_text_order():
    assert estimate([["C", "A"], ["B"]], 1).symbols == ("<s>", "</s>", "A", "B", "C")
    one = estimate([["C", "A"], ["B"]], 2)
    other = estimate([["C", "A"], ["B"]], 2, ["A", "B", "C"])
    for table, same in zip(one.tables, other.tables, strict=True):
        assert np.array_equal(table.keys, same.keys)
        assert np.array_equal(table.log_prob, same.log_prob)


def test_min_counts_leave_rare_ngrams_out():
    model = estimate(random_text(2), 3, min_counts=(1, 2, 4))
    full = Oracle(random_text(2), 3, {w for words in random_text(2) for w in words})
    for length, least in ((2, 2), (3, 4)):
        frequent = sum(1 for g, c in full.raw.items() if len(g) == length and c >= least)
        assert len(model.tables[length - 1]) == frequent


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([["A"]], 5), "order: expected 1 to 4, found 5"),
        (([["A"]], 0), "order: expected 1 to 4, found 0"),
        (([], 2), "the text is empty"),
        (([["X"]], 2, ["A"]), "within the vocabulary"),
        ((["A B"], 2), "sentence 1: expected a sequence of words, found the string 'A B'"),
        (([["A"], ["<s>", "A"]], 2), "sentence 2: expected words, found the reserved symbol '<s>'"),
        (([["A"]], 2, ["A", "#0"]), "vocabulary: expected words, found reserved symbols .* take them out: '#0'"),
        (([["A", "B C", ""]], 2), "vocabulary: .*white space; take them out: '' 'B C'"),
    ],
)
def test_estimate_refuses(arguments, message):
    with pytest.raises(LanguageModelError, match=message):
        estimate(*arguments)


@pytest.mark.parametrize("min_counts", [(1,), (2, 2), (1, 2, 1)])
def test_estimate_refuses_min_counts(min_counts):
    with pytest.raises(LanguageModelError, match="min_counts: expected"):
        estimate([["A"]], max(2, len(min_counts)), min_counts=min_counts)
