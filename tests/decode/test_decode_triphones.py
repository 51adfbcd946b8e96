"""Graphs of tied triphones: against monophone graphs of the same language, in both directions, and against aligning."""

import itertools
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from lhuc_asr.decode.const_fst import ArcTable
from lhuc_asr.decode.graph import GRAPH_FILE, DecodingGraph, build_graph
from lhuc_asr.decode.search import SearchConfig, Searcher
from lhuc_asr.hmm.topology import ContextDependency, MonophoneTopology
from lhuc_asr.hmm.transcript import transcript_graph
from lhuc_asr.hmm.tree import LEFT, RIGHT, ContextTree, Leaf, Split
from lhuc_asr.hmm.tree_building import TreeConfig, build_tree
from lhuc_asr.hmm.tree_statistics import TreeStatistics
from lhuc_asr.hmm.triphone import TriphoneTopology
from lhuc_asr.hmm.viterbi import align
from lhuc_asr.lang.lexicon import Lexicon
from lhuc_asr.lang.phones import SILENCE, PhoneSet

# Homophones, a prefix of another word, variants, a word of one phone, and a probability.
LEXICON = Lexicon(
    {"ab": (("A", "B"),), "bee": (("B",),), "be": (("B",),), "a": (("A",), ("A", "C")), "cab": (("C", "A", "B"),)},
    PhoneSet.of("ABC"),
    silence_probability=0.3,
    probabilities={("a", ("A", "C")): 0.4},
)
POSITIONED = LEXICON.with_word_positions()
EXACT = SearchConfig(beam=1e5, max_active=1_000_000, min_active=0, acoustic_scale=1.0)
# Minimization rounds the cost of each arc to 1/1024, and no path here has over 80 arcs.
TOLERANCE = 80 / 2048


def random_tree(phones: PhoneSet, generator: np.random.Generator, depth: int) -> ContextTree:
    """Trees of random questions, one for each state of a phone, so that a pdf tells its phone and position."""
    nodes: dict[int, Split | Leaf] = {pdf: Leaf(pdf) for pdf in range(5 * len(phones.silence))}
    roots = {name: tuple(range(5 * index, 5 * index + 5)) for index, name in enumerate(phones.silence)}
    waiting: list[tuple[int, int]] = []
    count = len(nodes)
    for name in phones.speech:
        roots[name] = (count, count + 1, count + 2)
        waiting += [(root, depth) for root in roots[name]]
        count += 3
    pdfs = itertools.count(len(nodes))
    while waiting:
        number, levels = waiting.pop(0)
        if not levels:
            nodes[number] = Leaf(next(pdfs))
            continue
        size = int(generator.integers(1, len(phones.names)))
        some = frozenset(generator.choice(phones.names, size, replace=False).tolist())
        nodes[number] = Split(int(generator.choice([LEFT, RIGHT])), some, count, count + 1)
        waiting += [(count, levels - 1), (count + 1, levels - 1)]
        count += 2
    return ContextTree(roots, tuple(nodes[number] for number in range(count)))


def triphones(seed: int, lexicon: Lexicon) -> TriphoneTopology:
    tree = random_tree(lexicon.phones, np.random.default_rng(seed), 3)
    return TriphoneTopology.initial(lexicon.phones, tree)


def write_bigram(path: Path, words: tuple[str, ...], seed: int) -> Path:
    """A bigram with random costs, in which not every pair of words is listed."""
    generator = np.random.default_rng(seed)
    unigrams = [f"{-generator.uniform(0.3, 1.5):.4f}\t{word}\t{-generator.uniform(0, 0.5):.4f}" for word in words]
    pairs = [pair for pair in itertools.product(("<s>", *words), (*words, "</s>")) if generator.random() < 0.5]
    bigrams = [f"{-generator.uniform(0.1, 1.0):.4f}\t{' '.join(pair)}" for pair in pairs]
    header = ["", "\\data\\", f"ngram 1={len(words) + 2}", f"ngram 2={len(pairs)}", ""]
    sections = ["\\1-grams:", "-99\t<s>\t-0.2", "-0.7\t</s>", *unigrams, "", "\\2-grams:", *bigrams, ""]
    path.write_text("\n".join([*header, *sections, "\\end\\", ""]))
    return path


def both_graphs(tmp_path: Path, seed: int, lexicon: Lexicon) -> list[tuple[DecodingGraph, ContextDependency]]:
    arpa = write_bigram(tmp_path / "lm.arpa", lexicon.words, seed)
    topologies: list[ContextDependency] = [MonophoneTopology.initial(lexicon.phones), triphones(seed, lexicon)]
    return [(build_graph(lexicon, arpa, each, tmp_path / each.kind), each) for each in topologies]


# A way to say a sentence: its words, and the pdfs of its states.
SaidPath = tuple[tuple[str, ...], tuple[int, ...]]


def accepted(graph: DecodingGraph, longest: int, words: tuple[str, ...] | None = None) -> dict[SaidPath, float]:
    """All paths of a graph that stay in no state, with their least costs, by depth-first search.

    Args:
        graph: The graph.
        longest: Number of states at most.
        words: Only the paths of this sentence; None for all.
    """
    table = ArcTable.read(graph.folder / GRAPH_FILE)
    leaving = defaultdict(list)
    for source, (label, word, cost, target) in zip(table.source.tolist(), table.arcs.tolist(), strict=True):
        if source != target:
            leaving[source].append((label, word, cost, target))
    paths: dict[SaidPath, float] = {}
    stack: list[tuple[int, tuple[str, ...], tuple[int, ...], float]] = [(table.start, (), (), 0.0)]
    while stack:
        state, said, pdfs, cost = stack.pop()
        if math.isfinite(table.final[state]) and (words is None or said == words):
            key = (said, pdfs)
            paths[key] = min(paths.get(key, math.inf), cost + float(table.final[state]))
        for label, word, more, target in leaving[state]:
            now = (*said, graph.words[word]) if word else said
            states = (*pdfs, int(graph.label_pdf[label - 1])) if label else pdfs
            if len(states) <= longest and (words is None or now == words[: len(now)]):
                stack.append((target, now, states, cost + more))
    return paths


def phones_of(pdfs: tuple[int, ...], monophones: MonophoneTopology) -> tuple[str, ...]:
    """The phones of a path through monophones that stays in no state."""
    phone_of = {pdf: phone for phone, pdf in monophones.first_pdf.items()}
    return tuple(phone_of[pdf] for pdf in pdfs if pdf in phone_of)


def as_triphones(
    paths: dict[SaidPath, float], monophones: MonophoneTopology, tri: ContextDependency
) -> dict[SaidPath, float]:
    """The paths of a monophone graph with the pdfs that triphones have in their places."""
    changed: dict[SaidPath, float] = {}
    for (words, pdfs), cost in paths.items():
        padded = ("", *phones_of(pdfs, monophones), "")
        windows = zip(padded, padded[1:], padded[2:], strict=False)
        changed[words, tuple(state.pdf for window in windows for state in tri.states(window))] = cost
    assert len(changed) == len(paths)
    return changed


@pytest.mark.parametrize("lexicon", [LEXICON, POSITIONED], ids=["plain", "word positions"])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_language_is_that_of_the_monophone_graph(tmp_path, lexicon, seed):
    """All short sentences with every pause and pronunciation: the same ones, at the same costs, in their triphones."""
    (mono_graph, mono), (tri_graph, tri) = both_graphs(tmp_path, seed, lexicon)
    assert isinstance(mono, MonophoneTopology)
    expected = as_triphones(accepted(mono_graph, 14), mono, tri)
    paths = accepted(tri_graph, 14)
    assert len({words for words, _ in paths}) > 50
    assert paths.keys() == expected.keys()
    assert all(paths[path] == pytest.approx(expected[path], abs=TOLERANCE) for path in paths)


@pytest.mark.parametrize("lexicon", [LEXICON, POSITIONED], ids=["plain", "word positions"])
def test_random_sentences_are_accepted_by_both_graphs_or_by_neither(tmp_path, lexicon):
    (mono_graph, mono), (tri_graph, tri) = both_graphs(tmp_path, 3, lexicon)
    assert isinstance(mono, MonophoneTopology)
    generator = np.random.default_rng(0)
    for _ in range(6):
        words = tuple(generator.choice(lexicon.words, 4).tolist())
        expected = as_triphones(accepted(mono_graph, 80, words), mono, tri)
        paths = accepted(tri_graph, 80, words)
        assert len(paths) >= 2**5  # a pause, or none, before, between and after four words
        assert paths.keys() == expected.keys()
        assert all(paths[path] == pytest.approx(expected[path], abs=TOLERANCE) for path in paths)


def test_a_search_takes_the_states_of_the_transcript_that_it_finds(tmp_path):
    _, (graph, topology) = both_graphs(tmp_path, 4, LEXICON)
    generator = np.random.default_rng(1)
    sentences = set()
    for _ in range(12):
        scores = generator.normal(scale=2.0, size=(30, topology.pdf_count)).astype(np.float32)
        hypothesis = Searcher(graph, EXACT).search("u", scores)
        (path,) = align([transcript_graph(hypothesis.words, LEXICON, topology)], [scores])
        assert path is not None
        assert path.pdfs.tolist() == hypothesis.pdfs.tolist()
        sentences.add(hypothesis.words)
    assert len(sentences) > 5


def test_words_whose_triphones_were_never_seen_are_decoded(tmp_path):
    """A tree from sentences of "ab" alone; every triphone of "cab", and of words next to each other, is new."""
    generator = np.random.default_rng(5)
    ids = LEXICON.phones.ids
    pauses = [SILENCE, "A", "B", SILENCE, "C", SILENCE]  # C was seen between pauses only
    rows = []
    for left, phone, right in zip(pauses, pauses[1:], pauses[2:], strict=False):
        rows += [(ids[left], ids[phone], ids[right], position) for position in range(5 if phone == SILENCE else 3)]
    contexts = np.unique(np.array(rows, np.int32), axis=0)
    means = 5 * generator.normal(size=(len(contexts), 3))
    sums = np.concatenate([np.full((len(contexts), 1), 100.0), 100 * means, 100 * (means**2 + 1)], axis=1)
    tree = build_tree(TreeStatistics(contexts, sums), LEXICON.phones, TreeConfig(leaves=40)).tree
    topology = TriphoneTopology.initial(LEXICON.phones, tree)
    graph = build_graph(LEXICON, write_bigram(tmp_path / "lm.arpa", LEXICON.words, 5), topology, tmp_path / "graph")
    for words in [("cab",), ("cab", "cab"), ("ab", "cab", "a")]:
        padded = ("", *(phone for word in words for phone in LEXICON.pronunciations[word][0]), "")
        windows = zip(padded, padded[1:], padded[2:], strict=False)
        pdfs = [state.pdf for window in windows for state in topology.states(window)]
        scores = np.full((2 * len(pdfs), topology.pdf_count), -50.0, np.float32)
        scores[np.arange(len(scores)), np.repeat(pdfs, 2)] = 0.0
        hypothesis = Searcher(graph, EXACT).search("u", scores)
        assert hypothesis.words == words
        assert hypothesis.pdfs.tolist() == np.repeat(pdfs, 2).tolist()
