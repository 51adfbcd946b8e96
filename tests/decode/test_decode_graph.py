"""Graphs against brute force: every word sequence, pronunciation, pause and segmentation, without composing models."""

import itertools
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from lhuc_asr.base.errors import GraphError, LanguageModelError
from lhuc_asr.decode.components import grammar_fst
from lhuc_asr.decode.graph import DecodingGraph, build_graph
from lhuc_asr.decode.search import SearchConfig, Searcher
from lhuc_asr.hmm.states import HmmState
from lhuc_asr.hmm.topology import MonophoneTopology
from lhuc_asr.hmm.transcript import transcript_graph
from lhuc_asr.hmm.viterbi import align
from lhuc_asr.lang.lexicon import Lexicon, WordTable
from lhuc_asr.lang.phones import SILENCE, PhoneSet

PHONES = PhoneSet.of(["A", "B", "C"])
# Two homophones, a prefix of another word, and a word with two pronunciations, one of which is rare.
LEXICON = Lexicon(
    {"ab": (("A", "B"),), "bee": (("B",),), "be": (("B",),), "a": (("A",), ("A", "C"))},
    PHONES,
    silence_probability=0.3,
    probabilities={("a", ("A", "C")): 0.4},
)
# Everything survives: the search is then exact Viterbi.
EXACT = SearchConfig(beam=1e5, max_active=1_000_000, min_active=0, acoustic_scale=1.0)
# Minimization rounds the cost of each arc to 1/1024; no path here has over 40 arcs.
TOLERANCE = 40 / 2048


@dataclass(frozen=True)
class TwoStatePhones:
    """Speech phones of two states, silence of one; their pdfs depend on the phones around them."""

    context_width: int
    central_position: int
    pdf_count: int = 7
    phones: PhoneSet = PHONES

    def states(self, window: tuple[str, ...]) -> tuple[HmmState, ...]:
        centre = window[self.central_position]
        if centre == SILENCE:
            return (HmmState(0, 0.8),)
        around = sum(ord(phone[0]) if phone else 1 for phone in window)
        return tuple(HmmState(1 + (around + k) % (self.pdf_count - 1), 0.3 + 0.2 * k) for k in range(2))


@dataclass(frozen=True)
class Ngrams:
    """Random n-gram costs: they need not sum to one for a search to have an optimum."""

    cost: dict[tuple[str, ...], float]
    backoff: dict[tuple[str, ...], float]
    order: int

    @classmethod
    def random(cls, words: tuple[str, ...], order: int, rng: np.random.Generator) -> "Ngrams":
        cost = {(word,): rng.uniform(0.5, 3.0) for word in (*words, "</s>")}
        grams = [*cost, ("<s>",)]
        for _ in range(order - 1):
            histories = [gram for gram in grams if gram[-1] != "</s>" and len(gram) == len(grams[-1])]
            grams = [(*h, w) for h in histories for w in (*words, "</s>") if rng.random() < 0.5]
            cost |= {gram: rng.uniform(0.2, 2.0) for gram in grams}
        backoff = {
            gram: rng.uniform(-0.3, 1.5) for gram in [*cost, ("<s>",)] if len(gram) < order and gram[-1] != "</s>"
        }
        return cls(cost, backoff, order)

    def write(self, path: Path) -> None:
        lines = ["", "\\data\\"]
        by_order = [[gram for gram in [*self.cost, ("<s>",)] if len(gram) == n + 1] for n in range(self.order)]
        lines += [f"ngram {n}={len(grams)}" for n, grams in enumerate(by_order, start=1)]
        for n, grams in enumerate(by_order, start=1):
            lines += ["", f"\\{n}-grams:"]
            for gram in grams:
                log10 = -self.cost.get(gram, 99 * math.log(10)) / math.log(10)
                weight = f"\t{-self.backoff[gram] / math.log(10)}" if gram in self.backoff else ""
                lines.append(f"{log10}\t{' '.join(gram)}{weight}")
        path.write_text("\n".join([*lines, "", "\\end\\", ""]))

    def sentence_cost(self, words: tuple[str, ...]) -> float:
        """The least cost over all ways to back off, as a search may back off where it need not."""
        paths = {("<s>",): 0.0}
        for word in (*words, "</s>"):
            for history in sorted(paths, key=len, reverse=True):
                while history:
                    shorter = history[1:]
                    cost = paths[history] + self.backoff.get(history, 0.0)
                    paths[shorter] = min(paths.get(shorter, math.inf), cost)
                    history = shorter
            following: dict[tuple[str, ...], float] = {}
            for history, cost in paths.items():
                gram = (*history, word)
                if gram in self.cost:
                    kept = gram[-(self.order - 1) :]
                    following[kept] = min(following.get(kept, math.inf), cost + self.cost[gram])
            paths = following
        return min(paths.values())


def phone_sequences(words: tuple[str, ...], lexicon: Lexicon) -> Iterator[tuple[tuple[str, ...], float]]:
    """Every choice of pronunciations and pauses, with their costs."""
    pause, no_pause = -math.log(lexicon.silence_probability), -math.log(1 - lexicon.silence_probability)
    for variants in itertools.product(*(lexicon.pronunciations[word] for word in words)):
        spelt = -sum(math.log(lexicon.probability(*each)) for each in zip(words, variants, strict=True))
        for pauses in itertools.product((False, True), repeat=len(words) + 1):
            phones: tuple[str, ...] = (SILENCE,) * pauses[0]
            for variant, paused in zip(variants, pauses[1:], strict=True):
                phones += variant + (SILENCE,) * paused
            yield phones, spelt + sum(pause if paused else no_pause for paused in pauses)


def segmentations(frames: int, parts: int) -> Iterator[tuple[int, ...]]:
    for cuts in itertools.combinations(range(1, frames), parts - 1):
        yield tuple(b - a for a, b in itertools.pairwise((0, *cuts, frames)))


def brute_force(lexicon, ngrams, dependency, scores, penalty=0.0):
    """Cost of the best path for each (words, pdfs of the frames)."""
    costs: dict[tuple[tuple[str, ...], tuple[int, ...]], float] = {}
    frames = len(scores)
    left, right = dependency.central_position, dependency.context_width - 1 - dependency.central_position
    for count in range(frames // 2 + 1):
        for words in itertools.product(lexicon.words, repeat=count):
            word_cost = ngrams.sentence_cost(words) + penalty * count
            for phones, pause_cost in phone_sequences(words, lexicon):
                padded = ("",) * left + phones + ("",) * right
                windows = [padded[i : i + dependency.context_width] for i in range(len(phones))]
                states = [state for window in windows for state in dependency.states(window)]
                if not 0 < len(states) <= frames:
                    continue
                for lengths in segmentations(frames, len(states)):
                    path = [s for s, length in zip(states, lengths, strict=True) for _ in range(length)]
                    cost = word_cost + pause_cost - sum(scores[t, s.pdf] for t, s in enumerate(path))
                    cost -= sum(
                        (length - 1) * math.log(s.self_loop) + math.log(1 - s.self_loop)
                        for s, length in zip(states, lengths, strict=True)
                    )
                    key = (words, tuple(s.pdf for s in path))
                    costs[key] = min(costs.get(key, math.inf), cost)
    return costs


@pytest.mark.parametrize(("width", "central", "order"), [(1, 0, 2), (2, 1, 2), (3, 1, 3)])
@pytest.mark.parametrize("penalty", [0.0, 1.3])
def test_search_finds_the_brute_force_optimum(tmp_path, width, central, order, penalty):
    rng = np.random.default_rng(width)
    dependency = TwoStatePhones(width, central)
    ngrams = Ngrams.random(LEXICON.words, order, rng)
    ngrams.write(tmp_path / "lm.arpa")
    graph = build_graph(LEXICON, tmp_path / "lm.arpa", dependency, tmp_path / "graph")
    searcher = Searcher(graph, EXACT.model_copy(update={"insertion_penalty": penalty}))
    sentences = set()
    for frames in (1, 3, 6, 6, 6):
        scores = rng.normal(scale=2.0, size=(frames, dependency.pdf_count)).astype(np.float32)
        costs = brute_force(LEXICON, ngrams, dependency, scores, penalty)
        hypothesis = searcher.search("u", scores)
        assert hypothesis.reached_final
        assert hypothesis.cost == pytest.approx(min(costs.values()), abs=TOLERANCE)
        own_cost = costs[hypothesis.words, tuple(hypothesis.pdfs.tolist())]
        assert hypothesis.cost == pytest.approx(own_cost, abs=TOLERANCE)
        sentences.add(hypothesis.words)
    assert len(sentences) > 1


def test_a_path_costs_what_its_models_say(tmp_path):
    """One word in one way: the LM, two choices of no silence, and each state's costs of leaving and staying."""
    lexicon = Lexicon({"a": (("A",),)}, PHONES, silence_probability=0.3)
    arpa = "\\data\\\nngram 1=3\n\n\\1-grams:\n-99 <s>\n-0.4 </s>\n-0.25 a\n\n\\end\\\n"
    (tmp_path / "lm.arpa").write_text(arpa)
    topology = MonophoneTopology.initial(PHONES)
    graph = build_graph(lexicon, tmp_path / "lm.arpa", topology, tmp_path / "graph")
    scores = np.full((5, topology.pdf_count), -50.0, np.float32)
    first = topology.first_pdf["A"]
    alignment = [first, first, first, first + 1, first + 2]
    scores[np.arange(5), alignment] = -1.0
    hypothesis = Searcher(graph, EXACT).search("u", scores)
    expected = 0.65 * math.log(10) - 2 * math.log(0.7) - 3 * math.log(0.25) - 2 * math.log(0.75) + 5 * 1.0
    assert hypothesis.words == ("a",)
    assert hypothesis.pdfs.tolist() == alignment
    assert hypothesis.cost == pytest.approx(expected, abs=TOLERANCE)


def test_the_graph_of_a_transcript_has_the_states_of_the_search(tmp_path):
    """Known words, placed by a graph of their own: the windows across borders of words and pauses are the same."""
    lexicon = Lexicon({"ab": (("A", "B"),), "c": (("C",),)}, PHONES, silence_probability=0.3)
    dependency = TwoStatePhones(3, 1)
    Ngrams.random(lexicon.words, 2, np.random.default_rng(0)).write(tmp_path / "lm.arpa")
    searcher = Searcher(build_graph(lexicon, tmp_path / "lm.arpa", dependency, tmp_path / "graph"), EXACT)
    rng = np.random.default_rng(1)
    lengths = set()
    for _ in range(12):
        scores = rng.normal(scale=2.0, size=(16, dependency.pdf_count)).astype(np.float32)
        hypothesis = searcher.search("u", scores)
        if hypothesis.words:
            (path,) = align([transcript_graph(hypothesis.words, lexicon, dependency)], [scores])
            assert path is not None
            assert path.pdfs.tolist() == hypothesis.pdfs.tolist()
            lengths.add(len(hypothesis.words))
    assert len(lengths) > 1


def test_the_graph_of_a_transcript_weighs_transitions_as_the_search_does(tmp_path):
    """Pauses and pronunciations weigh as much as in the search, and staying in a state is scaled as there."""
    shares = {("ab", ("A", "B")): 0.8, ("ab", ("B",)): 0.2}
    lexicon = Lexicon({"ab": (("A", "B"), ("B",)), "c": (("C",),)}, PHONES, 0.1, shares)
    rng = np.random.default_rng(0)
    topology = MonophoneTopology(PHONES, rng.uniform(0.05, 0.95, size=MonophoneTopology.initial(PHONES).pdf_count))
    Ngrams.random(lexicon.words, 1, rng).write(tmp_path / "lm.arpa")
    graph = build_graph(lexicon, tmp_path / "lm.arpa", topology, tmp_path / "graph", transition_scale=0.3)
    searcher = Searcher(graph, EXACT.model_copy(update={"acoustic_scale": 0.2}))
    for _ in range(20):
        scores = rng.normal(scale=4.0, size=(30, topology.pdf_count)).astype(np.float32)
        hypothesis = searcher.search("u", scores)
        (path,) = align([transcript_graph(hypothesis.words, lexicon, topology, 0.3)], [np.float32(0.2) * scores])
        assert path is not None
        assert path.pdfs.tolist() == hypothesis.pdfs.tolist()


@pytest.fixture
def bigram(tmp_path) -> Path:
    Ngrams.random(LEXICON.words, 2, np.random.default_rng(0)).write(tmp_path / "lm.arpa")
    return tmp_path / "lm.arpa"


@pytest.fixture
def graph(tmp_path, bigram) -> DecodingGraph:
    return build_graph(LEXICON, bigram, MonophoneTopology.initial(PHONES), tmp_path / "graph")


def test_labels_of_monophones_are_pdfs_also_where_a_phone_is_in_no_word(tmp_path, bigram):
    lexicon = LEXICON.restricted_to(["be", "ab"])
    topology = MonophoneTopology.initial(PHONES)
    graph = build_graph(lexicon, bigram, topology, tmp_path / "graph")
    assert graph.label_pdf.tolist() == list(range(topology.pdf_count))
    assert graph.label_pdf.dtype == np.int32


def test_labels_tell_states_apart_that_share_a_pdf(tmp_path, bigram):
    graph = build_graph(LEXICON, bigram, TwoStatePhones(3, 1), tmp_path / "graph")
    assert len(graph.label_pdf) > graph.pdf_count
    assert set(graph.label_pdf) == set(range(graph.pdf_count))


def test_building_twice_gives_the_same_bytes(tmp_path, bigram):
    for name in ("one", "two"):
        build_graph(LEXICON, bigram, TwoStatePhones(3, 1), tmp_path / name)
    for file in ("HCLG.fst", "words.txt", "graph.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_other_files_of_the_folder_stay_and_the_graph_loads_again(tmp_path, bigram):
    built = build_graph(LEXICON, bigram, MonophoneTopology.initial(PHONES), tmp_path)
    loaded = DecodingGraph.load(tmp_path)
    assert bigram.exists()
    assert loaded.words == built.words == ("<eps>", "a", "ab", "be", "bee", "#0", "<s>", "</s>")
    assert (loaded.states, loaded.arcs, loaded.context_width) == (built.states, built.arcs, 1)


def test_words_of_only_one_side_are_left_out_and_logged(tmp_path, bigram, caplog):
    lexicon = Lexicon({"be": (("B",),), "sea": (("C",),)}, PHONES)
    build_graph(lexicon, bigram, MonophoneTopology.initial(PHONES), tmp_path / "graph")
    assert "3 words without pronunciation: a ab bee" in caplog.text
    assert "lacks 1 words of the lexicon: sea" in caplog.text


def test_no_word_in_common_is_an_error(tmp_path, bigram):
    lexicon = Lexicon({"BE": (("B",),)}, PHONES)
    with pytest.raises(GraphError, match=r"lm\.arpa: none of its 4 words \(a ab be bee\).*\(BE\).*same case"):
        build_graph(lexicon, bigram, MonophoneTopology.initial(PHONES), tmp_path / "graph")


def test_other_phones_than_the_models_are_an_error(tmp_path, bigram):
    topology = MonophoneTopology.initial(PhoneSet.of(["A", "X"]))
    with pytest.raises(GraphError, match=r"\(SIL A B C\) are not the acoustic model's \(SIL A X\)"):
        build_graph(LEXICON, bigram, topology, tmp_path / "graph")


def test_two_probabilities_of_staying_for_one_state_are_an_error(tmp_path, bigram):
    class Contradiction(TwoStatePhones):
        def states(self, window):
            return (HmmState(0, 0.5 if window[0] else 0.6),)

    with pytest.raises(GraphError, match=r"state 0 of \w+ with pdf 0 has two probabilities of staying"):
        build_graph(LEXICON, bigram, Contradiction(3, 1), tmp_path / "graph")


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda text: text[: text.index("\\2-grams")], r":12: expected the section \\2-grams:"),
        (lambda text: text.replace("\\end\\", ""), "the file is incomplete"),
        (lambda text: text.replace("grams:\n-", "grams:\nx", 1), ":7: expected a finite number"),
        (lambda text: "", "not an ARPA language model"),
        (lambda text: text.replace("\t<s>", "\t<q>", 1), "found no <s>"),
    ],
)
def test_a_malformed_arpa_file_is_named(tmp_path, bigram, damage, complaint):
    bigram.write_text(damage(bigram.read_text()))
    with pytest.raises(LanguageModelError, match=rf"lm\.arpa.*{complaint}"):
        build_graph(LEXICON, bigram, MonophoneTopology.initial(PHONES), tmp_path / "graph")


def test_what_kaldilm_aborts_on_is_an_error_and_not_the_end_of_the_process(tmp_path):
    (tmp_path / "lm.arpa").write_text("\\data\\\nngram 1=1\n\n\\1-grams:\nx a\n\n\\end\\\n")
    WordTable(("a",)).save(tmp_path / "words.txt")
    with pytest.raises(LanguageModelError, match=r"lm\.arpa: kaldilm cannot read it: line 5 .* logprob 'x'"):
        grammar_fst(tmp_path / "lm.arpa", tmp_path / "words.txt")


def test_a_missing_arpa_file_is_named(tmp_path):
    with pytest.raises(LanguageModelError, match=r"none\.arpa"):
        build_graph(LEXICON, tmp_path / "none.arpa", MonophoneTopology.initial(PHONES), tmp_path / "graph")


@pytest.mark.parametrize("name", ["HCLG.fst", "words.txt"])
def test_a_damaged_file_is_named(graph, name):
    path = graph.folder / name
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(GraphError, match=rf"{name}: damaged, or not from the same build.*delete .*graph\.json"):
        DecodingGraph.load(graph.folder)


@pytest.mark.parametrize("name", ["HCLG.fst", "words.txt", "graph.json"])
def test_a_missing_file_is_named(graph, name):
    (graph.folder / name).unlink()
    with pytest.raises(GraphError, match=rf"{name}: no such file; delete .* and rebuild the graph"):
        DecodingGraph.load(graph.folder)


@pytest.mark.parametrize("text", ["{", "[]", '{"sha256": {}}', '{"sha256": 3}'])
def test_a_damaged_description_is_named(graph, text):
    (graph.folder / "graph.json").write_text(text)
    with pytest.raises(GraphError, match=r"graph\.json: not a description of a graph"):
        DecodingGraph.load(graph.folder)


def test_a_failed_build_leaves_no_description_of_the_old_graph(graph, bigram):
    bigram.write_text("")
    with pytest.raises(LanguageModelError):
        build_graph(LEXICON, bigram, MonophoneTopology.initial(PHONES), graph.folder)
    with pytest.raises(GraphError, match=r"graph\.json: no such file"):
        DecodingGraph.load(graph.folder)


def test_searching_imports_no_torch():
    check = "import sys, lhuc_asr.decode.search; sys.exit('torch' in sys.modules)"
    subprocess.run(
        [sys.executable, "-c", check], check=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    )
