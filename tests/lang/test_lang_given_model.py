"""Language models of others: SRILM's and KenLM's files, restricted, cut, and refused where they do not sum to one."""

import gzip
import itertools
import math

import numpy as np
import pytest
from ngram_oracle import random_text

from lhuc_asr.base.errors import LanguageModelError
from lhuc_asr.lang.arpa import arpa_order, read_arpa, write_arpa
from lhuc_asr.lang.given_model import likeliest_words, read_given_model, restricted
from lhuc_asr.lang.kneser_ney import estimate
from lhuc_asr.lang.language_model import LanguageModelConfig, given_language_model, select_vocabulary
from lhuc_asr.lang.ngram import LOG_NEVER

# p(a) = 1/2, p(b) = 1/4, p(</s>) = 1/4; p(b | a) = 1/2. The other half after a goes to the back-off: w (1 - 1/4).
HALF, QUARTER, WEIGHT = math.log10(1 / 2), math.log10(1 / 4), math.log10(2 / 3)
SRILM = f"""
\\data\\
ngram 1=4
ngram 2=1

\\1-grams:
{QUARTER:.7f}\t</s>
-99\t<s>
{HALF:.7f}\ta\t{WEIGHT:.7f}
{QUARTER:.7f}\tb

\\2-grams:
{HALF:.7f}\ta b

\\end\\
"""
# The same with an unknown word in the place of b, as KenLM writes it: <s> has the logarithm 0, and weights are written.
KENLM = f"""\\data\\
ngram 1=4
ngram 2=1

\\1-grams:
{QUARTER:.7f}\t<unk>\t0
0\t<s>\t0
{QUARTER:.7f}\t</s>\t0
{HALF:.7f}\ta\t{WEIGHT:.7f}

\\2-grams:
{HALF:.7f}\ta <unk>

\\end\\
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "lm.arpa.gz"
    path.write_bytes(gzip.compress(SRILM.encode()))
    return path


def test_srilm(path):
    model = read_given_model(path)
    assert arpa_order(path) == 2
    assert set(model.symbols) == {"<s>", "</s>", "A", "B"}
    assert math.exp(model.score(["A"], "B")) == pytest.approx(1 / 2)
    assert math.exp(model.score(["A"], "A")) == pytest.approx(2 / 3 * 1 / 2)
    assert math.exp(model.score(["B"], "A")) == pytest.approx(1 / 2)


@pytest.mark.parametrize("unknown", ["<unk>", "<UNK>"])
def test_kenlm(tmp_path, unknown):
    path = tmp_path / "lm.arpa"
    path.write_text(KENLM.replace("<unk>", unknown))
    model = read_given_model(path)
    assert math.exp(model.score(["A"], "<unk>")) == pytest.approx(1 / 2)
    assert math.exp(model.score(["<unk>"], "never heard")) == pytest.approx(1 / 4)
    assert model.tables[0].log_prob[model.ids["<s>"]] == LOG_NEVER
    assert restricted(model, ["A"], path).symbols == ("<s>", "</s>", "A")
    assert "<unk>" in restricted(model, ["A", "<unk>"], path).symbols


def test_a_cut_model_is_a_model(tmp_path):
    path = tmp_path / "lm.arpa"
    write_arpa(path, estimate(random_text(2), 3))
    for order in (1, 2):
        model = read_given_model(path, order)  # its sums are checked
        assert model.order == order
        assert math.fsum(math.exp(model.score(["W1", "W2"], word)) for word in model.symbols[1:]) == pytest.approx(1.0)
    with pytest.raises(LanguageModelError, match=r"a model of order 3, expected at least 4; lower lm\.order"):
        read_arpa(path, 4)


def test_restricted_to_some_words_the_rest_is_as_it_was(tmp_path):
    model = estimate(random_text(2), 3)
    words = [word for word in model.symbols[2:] if word != "W1"]
    some = restricted(model, words, tmp_path)
    assert some.symbols == tuple(symbol for symbol in model.symbols if symbol != "W1")
    pairs = list(itertools.product(words[:6], repeat=2))
    for (first, second), word in itertools.product(pairs, [*words[:6], "</s>"]):
        assert some.score([first, second], word) == model.score([first, second], word)
    assert np.all(np.diff(some.tables[2].keys) > 0)
    with pytest.raises(LanguageModelError, match=r"none of its \d+ words \(W0 .*\) is in the lexicon \(CAT DOG"):
        restricted(model, ["DOG", "CAT"], tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            f"{HALF:.7f}\ta\t",
            f"{math.log(1 / 2):.7f}\ta\t",
            r"its unigrams sum to 0\.703, expected 1, in logarithms of",
        ),
        (f"{QUARTER:.7f}\tb", f"{HALF:.7f}\tb", r"its unigrams sum to 1\.25, expected 1"),
        (f"{WEIGHT:.7f}", "0.0", r"the probabilities after 'A' sum to 1\.25, expected 1; estimate it again, or renorm"),
        ("\tb\n", "\tA\n", r"'A' and 'a' are one word here, 'A'; estimate the model from text in one case"),
        ("\\data\\", "{", r"not an ARPA language model"),
    ],
)
def test_what_is_refused(tmp_path, old, new, message):
    path = tmp_path / "lm.arpa"
    assert old in SRILM
    path.write_text(SRILM.replace(old, new).replace("a b\n", "a A\n" if new == "\tA\n" else "a b\n"))
    with pytest.raises(LanguageModelError, match=message):
        read_given_model(path)


def test_the_vocabulary_is_the_spoken_words_and_the_likeliest(path, tmp_path):
    config = LanguageModelConfig(arpa=path, vocabulary=2)
    assert likeliest_words(path) == ["A", "B"]
    assert select_vocabulary(["ZOO"], config) == ["ZOO", "A"]
    assert select_vocabulary(["A"], config) == ["A", "B"]


def test_the_given_model_is_restricted_and_pruned(path):
    model = given_language_model(["A", "B", "ZOO"], LanguageModelConfig(arpa=path))
    assert model.symbols == ("<s>", "</s>", "A", "B")
    assert [len(table) for table in model.tables] == [4, 1]
    pruned = given_language_model(["A", "B"], LanguageModelConfig(arpa=path, prune=0.9))
    assert [len(table) for table in pruned.tables] == [4, 0]


def test_a_text_beside_a_model_is_refused(path):
    with pytest.raises(ValueError, match="arpa is a finished model, and none is estimated from text; leave one"):
        LanguageModelConfig(arpa=path, text=(path,))
