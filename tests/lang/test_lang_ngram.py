"""Estimation, scoring, ARPA files and pruning, against direct formulas over dictionaries."""

import itertools
import math
from collections import Counter, defaultdict

import kaldilm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lhuc_asr.base.errors import LanguageModelError
from lhuc_asr.lang.arpa import read_arpa, write_arpa
from lhuc_asr.lang.kneser_ney import FALLBACK_DISCOUNTS, discounts, estimate
from lhuc_asr.lang.lexicon import WordTable
from lhuc_asr.lang.pruning import prune, relative_entropies

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


@settings(max_examples=60, deadline=None)
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


@settings(max_examples=40, deadline=None)
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

    # The text's own <unk> is no word either.
    assert estimate([["A", "<unk>", "B"], ["A", "B"]], 2).symbols == closed.symbols
    for table, same in zip(estimate([["A", "<unk>", "B"], ["A", "B"]], 2).tables, closed.tables, strict=True):
        assert np.array_equal(table.log_prob, same.log_prob)

    open_ = estimate(text, 2, ["A", "B"], keep_unknown=True)
    assert open_.symbols == ("<s>", "</s>", "<unk>", "A", "B")
    assert open_.score(["A"], "X") == open_.score(["A"], "<unk>") > open_.score(["B"], "<unk>")


def test_log_prob_and_perplexity_add_up():
    text = random_text(5, sentences=50)
    model = estimate(text, 3)
    by_hand = 0.0
    for words in text:
        sentence = ["<s>", *words, "</s>"]
        by_hand += sum(model.score(sentence[:i], sentence[i]) for i in range(1, len(sentence)))
    assert sum(model.log_prob(words) for words in text) == pytest.approx(by_hand)
    predicted = sum(len(words) + 1 for words in text)
    assert model.perplexity(text) == pytest.approx(math.exp(-by_hand / predicted))


def test_perplexity_logs_unknown_words(caplog):
    estimate([["A"]], 2).perplexity([["A", "X", "Y"]])
    assert "leaves out 2 words" in caplog.text


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
        (([["A"], ["<s>", "A"]], 2), "sentence 2: holds the reserved symbol '<s>'"),
        (([["A"]], 2, ["A", "#0"]), "vocabulary: reserved symbols, .* take them out: '#0'"),
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


# ARPA files


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_arpa_round_trip(tmp_path, order):
    text, held_out = random_text(1), random_text(9, sentences=40)
    model = estimate(text, order, keep_unknown=True)
    path = tmp_path / "lm.arpa"
    write_arpa(path, model)
    again = read_arpa(path)
    assert again.symbols == model.symbols
    assert again.perplexity(held_out) == pytest.approx(model.perplexity(held_out), rel=1e-6)
    assert_sums_to_one(again, tolerance=1e-5)
    lines = path.read_text().splitlines()
    assert lines[:2] == ["\\data\\", f"ngram 1={len(model.symbols)}"]
    assert lines[-1] == "\\end\\"
    assert next(line for line in lines if "\t<s>" in line).startswith("-99\t<s>")


class Acceptor:
    """The FST text of kaldilm, walked as a back-off model: #0 only where there is no arc for the word."""

    def __init__(self, text, words):
        self.words, self.arcs, self.final = words, defaultdict(dict), {}
        lines = [line.split() for line in text.splitlines() if line.strip()]
        self.start = int(lines[0][0])
        for fields in lines:
            if len(fields) > 2:
                source, target, label = (int(field) for field in fields[:3])
                assert label not in self.arcs[source]
                self.arcs[source][label] = (target, float(fields[4]) if len(fields) > 4 else 0.0)
            else:
                self.final[int(fields[0])] = float(fields[1]) if len(fields) > 1 else 0.0

    def cost(self, words):
        state, cost = self.start, 0.0
        if 0 in self.arcs[state]:
            state, cost = self.arcs[state][0]
        for word in words:
            while self.words.ids[word] not in self.arcs[state]:
                state, backoff = self.arcs[state][self.words.ids["#0"]]
                cost += backoff
            state, step = self.arcs[state][self.words.ids[word]]
            cost += step
        while state not in self.final:
            state, backoff = self.arcs[state][self.words.ids["#0"]]
            cost += backoff
        return cost + self.final[state]


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("threshold", [0.0, 1e-3])
def test_kaldilm_gives_the_same_costs(tmp_path, order, threshold):
    text = random_text(3, sentences=120)
    model = prune(estimate(text, order, sorted({w for words in text for w in words} | {"UNSEEN"})), threshold)
    table = WordTable(model.symbols[2:])
    write_arpa(tmp_path / "lm.arpa", model)
    table.save(tmp_path / "words.txt")
    fst = kaldilm.arpa2fst(
        input_arpa=str(tmp_path / "lm.arpa"),
        disambig_symbol="#0",
        read_symbol_table=str(tmp_path / "words.txt"),
        max_order=order,
    )
    acceptor = Acceptor(fst, table)
    for words in (*random_text(4, sentences=40), ["UNSEEN", "W1", "UNSEEN"], ["W0"] * 5):
        assert acceptor.cost(words) == pytest.approx(-model.log_prob(words), rel=1e-4)


GOOD = """a comment before

\\data\\
ngram 1=4
ngram 2=2

\\1-grams:
-99\t<s>\t-0.3
-0.5\t</s>
-0.4 B
-0.6 A -0.2

\\2-grams:
-0.1 A </s>
-0.2\t<s> A

\\end\\
"""


def test_read_arpa_by_hand(tmp_path):
    path = tmp_path / "lm.arpa"
    path.write_text(GOOD)
    model = read_arpa(path)
    ln10 = math.log(10)
    assert model.symbols == ("<s>", "</s>", "A", "B")
    assert model.log_prob(["A"]) == pytest.approx((-0.2 - 0.1) * ln10)
    assert model.log_prob(["B", "A"]) == pytest.approx((-0.3 - 0.4 - 0.6 - 0.1) * ln10)
    assert model.score(["A"], "B") == pytest.approx((-0.2 - 0.4) * ln10)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\\data\\", "", r"lm\.arpa:\d+: no line \\data\\; not an ARPA"),
        ("ngram 1=4\nngram 2=2\n", "", r"lm\.arpa:\d+: expected ngram 1=COUNT"),
        ("ngram 2=2", "ngram 3=2", r"lm\.arpa:5: expected the number of 2-grams"),
        ("ngram 2=2", "ngram 2=3", r"lm\.arpa:17: \\data\\ promises 3 2-grams, found 2"),
        ("\\2-grams:", "\\3-grams:", r"lm\.arpa:13: expected the section \\2-grams:, found '\\\\3-grams:'"),
        ("-0.4 B", "-0,4 B", r"lm\.arpa:10: expected a finite number, found '-0,4'"),
        ("-0.4 B", "-inf B", r"lm\.arpa:10: expected a finite number, found '-inf'"),
        ("-0.4 B", "0.4 B", r"lm\.arpa:10: found the positive log-probability 0\.4"),
        ("-0.4 B", "-0.4 B -0.1 C", r"lm\.arpa:10: expected a log-probability, 1 words .* found 4 fields"),
        ("-0.4 B", "-0.4", r"lm\.arpa:10: .* found 1 fields"),
        ("-0.4 B", "-0.4 A", r"lm\.arpa:11: the unigram 'A' is there twice"),
        ("-0.5\t</s>", "-0.5\tC", r"lm\.arpa:\d+: no unigram </s>"),
        ("-0.1 A </s>", "-0.1 C </s>", r"lm\.arpa:14: the word 'C' is not among the unigrams"),
        ("-0.1 A </s>", "-0.1 <s> A", r"lm\.arpa:15: this n-gram is there twice"),
        ("\n\\end\\\n", "", r"lm\.arpa:15: expected \\end\\, found ''; the file is not whole"),
    ],
)
def test_malformed_arpa(tmp_path, old, new, message):
    path = tmp_path / "lm.arpa"
    assert old in GOOD
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(LanguageModelError, match=message):
        read_arpa(path)


def test_arpa_without_a_history(tmp_path):
    path = tmp_path / "lm.arpa"
    trigram = GOOD.replace("ngram 2=2", "ngram 2=2\nngram 3=1").replace("\\end\\", "\\3-grams:\n-0.1 B A B\n\n\\end\\")
    path.write_text(trigram)
    with pytest.raises(LanguageModelError, match=r"lm\.arpa:19: the history 'B A' is not among the 2-grams"):
        read_arpa(path)


# Pruning


def history_probability(model, history):
    first = "</s>" if history[0] == "<s>" else history[0]
    rest = sum(model.score(history[:i], history[i]) for i in range(1, len(history)))
    return math.exp(model.score([], first) + rest)


@pytest.mark.parametrize(("order", "length"), [(2, 2), (3, 3), (3, 2)])
def test_relative_entropy_by_enumeration(order, length):
    model = estimate(random_text(6, sentences=60, vocabulary=5), order)
    found = relative_entropies(model, length)
    predicted = [symbol for symbol in model.symbols if symbol != "<s>"]
    ngrams = [tuple(model.symbols[i] for i in row) for row in np.stack(model.columns_of(length), axis=1)]
    for removed, entropy in zip(ngrams, found, strict=True):
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
