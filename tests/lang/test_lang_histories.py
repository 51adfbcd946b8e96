"""Histories: word by word they give what the model gives for the whole context, and tell no more apart than needed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ngram_oracle import random_text

from lhuc_asr.lang.arpa import read_arpa
from lhuc_asr.lang.histories import EMPTY, Histories, HistoryModel, predict
from lhuc_asr.lang.kneser_ney import estimate
from lhuc_asr.lang.ngram import BEGIN_ID, END_ID
from lhuc_asr.lang.pruning import prune


def random_model(order, pruned, seed):
    model = estimate(random_text(seed, sentences=20), order)
    return prune(model, 0.01) if pruned else model


@settings(max_examples=30)
@given(st.integers(1, 4), st.booleans(), st.integers(0, 1000))
def test_word_by_word_the_probabilities_are_those_of_the_whole_context(order, pruned, seed):
    model = random_model(order, pruned, seed)
    histories = Histories.of(model)
    rng = np.random.default_rng(seed)
    for _ in range(10):
        words = [model.symbols[number] for number in rng.integers(2, len(model.symbols), size=6)]
        history, context = int(histories.history[BEGIN_ID]), ["<s>"]
        for word in words:
            log_prob, history = predict(histories, history, model.ids[word])
            assert log_prob == pytest.approx(model.score(context, word))
            context.append(word)
        assert predict(histories, history, END_ID)[0] == pytest.approx(model.score(context, "</s>"))


@settings(max_examples=30)
@given(st.integers(1, 4), st.booleans(), st.integers(0, 1000))
def test_a_text_has_the_score_that_the_model_gives_it(order, pruned, seed):
    """Words that the model does not have, sentences of which none is known, and empty ones included."""
    model = random_model(order, pruned, seed)
    rng = np.random.default_rng(seed)
    words = [*model.symbols[2:], "never", "heard"]
    text = [[words[i] for i in rng.integers(0, len(words), size=size)] for size in rng.integers(0, 9, size=20)]
    expected, score = model.score_text(text), HistoryModel.of(model).score_text(text)
    assert score.log_prob == pytest.approx(expected.log_prob)
    assert (score.predicted, score.unknown) == (expected.predicted, expected.unknown)


def test_a_unigram_model_has_one_history():
    histories = Histories.of(estimate([["A", "B"]], 1))
    assert int(histories.history[BEGIN_ID]) == EMPTY
    assert predict(histories, EMPTY, 2)[1] == EMPTY


def test_contexts_of_which_the_model_knows_the_same_are_one_history():
    model = estimate([["A", "B", "C"], ["B", "C"]], 3)
    histories = Histories.of(model)

    def after(*words):
        history = int(histories.history[BEGIN_ID])
        for word in words:
            _, history = predict(histories, history, model.ids[word])
        return history

    # The model has the bigrams "A B" and "B C", but neither "A C" nor "C C".
    assert after("C", "C") == after("A", "C") == after("C")
    assert after("A", "B") != after("C", "B")
    # Nothing of three words is a context of a trigram model.
    assert after("B", "C", "A", "B") == after("A", "B")


def test_a_history_without_a_weight_counts_where_an_ngram_continues_it(tmp_path):
    (tmp_path / "lm.arpa").write_text(
        "\\data\\\nngram 1=4\nngram 2=1\n\n\\1-grams:\n-99\t<s>\n-0.5\t</s>\n-0.5\tA\n-0.7\tB\n\n"
        "\\2-grams:\n-0.1\tA B\n\n\\end\\\n"
    )
    model = read_arpa(tmp_path / "lm.arpa")
    histories = Histories.of(model)
    _, after_a = predict(histories, EMPTY, model.ids["A"])
    assert predict(histories, after_a, model.ids["B"])[0] == pytest.approx(-0.1 * np.log(10.0))
    # Nothing continues "<s>" and "B".
    assert histories.history[BEGIN_ID] == EMPTY
    assert predict(histories, after_a, model.ids["B"])[1] == EMPTY
