"""The vocabulary of a recognizer and its language model."""

import pytest
from ngram_oracle import random_text

from lhuc_asr.base.errors import LanguageModelError
from lhuc_asr.lang.kneser_ney import estimate
from lhuc_asr.lang.language_model import LanguageModelConfig, estimate_language_model, select_vocabulary
from lhuc_asr.lang.pruning import prune


@pytest.fixture
def text(tmp_path):
    first, second = tmp_path / "first.txt", tmp_path / "second.txt"
    first.write_text("b b b c c\n\n")
    second.write_text("d d a a spoken\n")
    return first, second


def test_without_text_the_vocabulary_is_what_was_spoken():
    assert select_vocabulary({"B", "A"}, LanguageModelConfig(vocabulary=1)) == ["A", "B"]


@pytest.mark.parametrize(
    ("size", "vocabulary"),
    [
        (1, ["SPOKEN", "UNSEEN"]),  # spoken words are all in, whatever the size
        (3, ["SPOKEN", "UNSEEN", "B"]),
        (5, ["SPOKEN", "UNSEEN", "B", "A", "C"]),  # A, C and D are equally frequent
        (99, ["SPOKEN", "UNSEEN", "B", "A", "C", "D"]),
    ],
)
def test_spoken_words_come_before_the_most_frequent_words_of_the_text(text, size, vocabulary):
    config = LanguageModelConfig(text=text, vocabulary=size)
    assert select_vocabulary({"UNSEEN", "SPOKEN"}, config) == vocabulary


def test_a_vocabulary_of_nothing_is_refused(tmp_path):
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(LanguageModelError, match=r"empty\.txt: expected sentences, found no word; name other files"):
        select_vocabulary(set(), LanguageModelConfig(text=(tmp_path / "empty.txt",)))


def test_the_sentences_of_all_files(text):
    assert list(LanguageModelConfig(text=text).sentences()) == [tuple("BBBCC"), ("D", "D", "A", "A", "SPOKEN")]


@pytest.mark.parametrize("threshold", [0.0, 1e-3])
def test_the_model_is_estimated_over_the_words_and_pruned(threshold):
    sentences, words = random_text(1), ("<unk>", "W1", "W2", "W3")
    model = estimate_language_model(sentences, words, LanguageModelConfig(order=3, prune=threshold))
    expected = prune(estimate(sentences, 3, words, keep_unknown=True), threshold)
    assert model.symbols == expected.symbols == ("<s>", "</s>", *words)
    assert model.order == 3
    assert [len(table) for table in model.tables] == [len(table) for table in expected.tables]
    assert model.log_prob(["W1", "W2"]) == pytest.approx(expected.log_prob(["W1", "W2"]))


def test_words_outside_the_lexicon_are_not_predicted_without_the_unknown_word():
    model = estimate_language_model(random_text(1), ("W1", "W2"), LanguageModelConfig())
    assert model.symbols == ("<s>", "</s>", "W1", "W2")
