"""ARPA files: written and read again, read as kaldilm reads them, damaged ones refused."""

import math
from collections import defaultdict

import kaldilm
import pytest
from ngram_oracle import assert_sums_to_one, random_text

from lhuc_asr.base.errors import LanguageModelError
from lhuc_asr.lang.arpa import read_arpa, write_arpa
from lhuc_asr.lang.kneser_ney import estimate
from lhuc_asr.lang.lexicon import WordTable
from lhuc_asr.lang.pruning import prune


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
        ("\\data\\", "", r"lm\.arpa:\d+: expected a line \\data\\, found none; not an ARPA"),
        ("ngram 1=4\nngram 2=2\n", "", r"lm\.arpa:\d+: expected ngram 1=COUNT"),
        ("ngram 2=2", "ngram 3=2", r"lm\.arpa:5: expected the number of 2-grams"),
        ("ngram 2=2", "ngram 2=3", r"lm\.arpa:17: \\data\\ promises 3 2-grams, found 2"),
        ("\\2-grams:", "\\3-grams:", r"lm\.arpa:13: expected the section \\2-grams:, found '\\\\3-grams:'"),
        ("-0.4 B", "-0,4 B", r"lm\.arpa:10: expected a finite number, found '-0,4'"),
        ("-0.4 B", "-inf B", r"lm\.arpa:10: expected a finite number, found '-inf'"),
        ("-0.4 B", "0.4 B", r"lm\.arpa:10: expected a log-probability of at most 0, found 0\.4"),
        ("-0.4 B", "-0.4 B -0.1 C", r"lm\.arpa:10: expected a log-probability, 1 words .* found 4 fields"),
        ("-0.4 B", "-0.4", r"lm\.arpa:10: .* found 1 fields"),
        ("-0.4 B", "-0.4 A", r"lm\.arpa:11: the unigram 'A' occurs twice"),
        ("-0.5\t</s>", "-0.5\tC", r"lm\.arpa:\d+: expected the unigrams <s> and </s>, found no </s>"),
        ("-0.1 A </s>", "-0.1 C </s>", r"lm\.arpa:14: the word 'C' is not among the unigrams"),
        ("-0.1 A </s>", "-0.1 <s> A", r"lm\.arpa:15: this n-gram occurs twice"),
        ("\n\\end\\\n", "", r"lm\.arpa:15: expected \\end\\, found ''; the file is incomplete"),
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
