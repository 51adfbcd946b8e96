"""Texts, and an oracle for n-gram models: direct formulas over dictionaries."""

import itertools
import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import strategies as st

WORDS = ("A", "B", "C", "D")

texts = st.lists(st.lists(st.sampled_from(WORDS), max_size=6), min_size=1, max_size=12).filter(any)


def random_text(seed, sentences=300, vocabulary=8):
    """Sentences of a random Markov chain with Zipf-like words: all counts-of-counts are there."""
    random = np.random.default_rng(seed)
    successors = random.permuted(np.tile(np.arange(vocabulary), (vocabulary, 1)), axis=1)
    weights = 1.0 / np.arange(1, vocabulary + 1) ** 1.5
    text = []
    for _ in range(sentences):
        word, words = 0, []
        for _ in range(random.integers(1, 9)):
            word = random.choice(successors[word], p=weights / weights.sum())
            words.append(f"W{word}")
        text.append(words)
    return text


class Oracle:
    """Interpolated modified Kneser-Ney by the formulas of Chen and Goodman (1999), n-gram by n-gram."""

    def __init__(self, text, order, vocabulary, keep_unknown=False, min_counts=None):
        self.order = order
        self.min_counts = min_counts or (1,) * order
        self.predicted = {*vocabulary, "</s>"} | ({"<unk>"} if keep_unknown else set())
        self.raw = Counter()
        for words in text:
            sentence = ["<s>", *(w if w in vocabulary else "<unk>" for w in words), "</s>"]
            for n in range(1, order + 1):
                for i in range(len(sentence) - n + 1):
                    ngram = tuple(sentence[i : i + n])
                    if keep_unknown or "<unk>" not in ngram:
                        self.raw[ngram] += 1
        before = Counter(ngram[1:] for ngram in self.raw)
        self.count = {}
        for ngram, raw in self.raw.items():
            if ngram != ("<s>",):
                highest_or_first = len(ngram) == order or ngram[0] == "<s>"
                self.count[ngram] = raw if highest_or_first else before[ngram]
        self.discount = {n: self._discounts(n) for n in range(1, order + 1)}
        self.after = defaultdict(set)
        for ngram in self.count:
            self.after[ngram[:-1]].add(ngram[-1])

    def _discounts(self, n):
        n1, n2, n3, n4 = (sum(1 for g, c in self.count.items() if len(g) == n and c == k) for k in (1, 2, 3, 4))
        if n1 and n2 and n3:
            y = n1 / (n1 + 2 * n2)
            d = (0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
            if min(d[1:]) > 0:
                return d
        return (0, 0.5, 1.0, 1.5)

    def probability(self, context, word):
        context = tuple(context)[-(self.order - 1) :] if self.order > 1 else ()
        n = len(context) + 1
        lower = self.probability(context[1:], word) if context else 1 / len(self.predicted)
        total = sum(self.count[(*context, w)] for w in self.after[context])
        if total == 0:
            return lower
        discounted = {}
        for w in self.after[context]:
            c = self.count[(*context, w)]
            rare = n > 1 and self.raw[(*context, w)] < self.min_counts[n - 1]
            discounted[w] = 0 if rare else c - self.discount[n][min(c, 3)]
        gamma = sum(self.count[(*context, w)] - d for w, d in discounted.items()) / total
        return discounted.get(word, 0) / total + gamma * lower


def contexts(words, order):
    """All contexts a model of an order can tell apart, with and without the beginning of a sentence."""
    for length in range(order):
        for context in itertools.product(words, repeat=length):
            yield context
            if length < order - 1:
                yield ("<s>", *context)


def assert_sums_to_one(model, tolerance=1e-9):
    predicted = [symbol for symbol in model.symbols if symbol != "<s>"]
    for context in contexts([w for w in predicted if w != "</s>"], model.order):
        assert sum(math.exp(model.score(context, w)) for w in predicted) == pytest.approx(1, abs=tolerance)
