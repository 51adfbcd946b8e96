"""Log-probabilities and perplexities of sentences."""

import math

import pytest
from ngram_oracle import random_text

from lhuc_asr.lang.kneser_ney import estimate


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
