"""Perplexity and unknown words of a text, and sequences that it shares with another."""

import math

import numpy as np
import pytest

from lhuc_asr.lang.ngram import NgramModel, NgramTable
from lhuc_asr.lang.text_fit import TextFit, shared_sequences, text_fit

# p(A) = 1/2, p(</s>) = 1/4, p(<unk>) = 1/4.
UNIGRAMS = NgramTable(np.arange(4), np.log([1e-9, 1 / 4, 1 / 4, 1 / 2]), np.zeros(4))
MODEL = NgramModel(("<s>", "</s>", "<unk>", "A"), (UNIGRAMS,))


def test_perplexity_is_over_words_and_sentence_ends():
    fit = text_fit(MODEL, [("A", "<NOISE>", "A"), ("A", "B")])
    assert (fit.words, fit.unknown) == (4, 1)
    assert fit.perplexity == pytest.approx(math.exp(-math.log(0.5**3 * 0.25**3) / 6))
    assert str(fit) == "perplexity 2.8, 25.00 % of 4 words out of vocabulary"


def test_a_model_without_unknown_words_leaves_them_out():
    ends_and_a = NgramTable(np.arange(3), np.log([1e-9, 1 / 4, 3 / 4]), np.zeros(3))
    fit = text_fit(NgramModel(("<s>", "</s>", "A"), (ends_and_a,)), [("A", "B")])
    assert (fit.words, fit.unknown) == (2, 1)
    assert fit.perplexity == pytest.approx(math.exp(-math.log(0.75 * 0.25) / 2))


def test_noises_alone_are_no_words():
    assert text_fit(MODEL, [("<NOISE>",)]) == TextFit(0, 0, None)


def test_sequences_are_counted_once_and_do_not_cross_sentences():
    transcripts = [["A", "B", "C", "D"], ["X", "A", "B", "C"], ["A"]]
    assert shared_sequences([["A", "B", "C"], ["A", "B", "C"], ["B", "C"], ["D", "X"]], transcripts, 3) == (1, 3)
    assert shared_sequences([["A", "B", "C", "D", "X", "A", "B", "C"]], transcripts, 3) == (3, 3)
    assert shared_sequences([], [["A"] * 7]) == (0, 0)
