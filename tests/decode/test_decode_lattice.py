"""Lattices against an enumeration of all paths, on small random graphs with epsilons and negative costs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest

from lhuc_asr.base.errors import SearchError
from lhuc_asr.decode.const_fst import ArcTable
from lhuc_asr.decode.graph import GRAPH_FILE, DecodingGraph
from lhuc_asr.decode.lattice import (
    NO_PDF,
    best_path,
    forward_backward,
    frame_posteriors,
    word_confidences,
    word_frames,
)
from lhuc_asr.decode.lattice_search import LatticeConfig, LatticeSearcher
from lhuc_asr.decode.search import SearchConfig

WORDS = ("<eps>", "a", "b", "c")
PDFS, LABELS, STATES = 4, 5, 6
SCALE = 0.5
EVERYTHING = 1e6


@dataclass(frozen=True)
class Enumeration:
    """All complete paths of T frames through a graph: steps (frame, arc) and costs, by depth-first search."""

    table: ArcTable
    label_pdf: np.ndarray
    scores: np.ndarray

    @cached_property
    def paths(self) -> list[tuple[list[tuple[int, int]], float]]:
        paths = []
        frames = len(self.scores)

        def walk(state: int, frame: int, steps: list[tuple[int, int]], cost: float) -> None:
            if frame == frames and np.isfinite(self.table.final[state]):
                paths.append((steps, cost + float(self.table.final[state])))
            for index in np.flatnonzero(self.table.source == state):
                arc = self.table.arcs[index]
                taken = int(arc["input"] > 0)
                if frame + taken > frames:
                    continue
                acoustic = SCALE * float(self.scores[frame, self.pdf(index)]) if taken else 0.0
                walk(
                    int(arc["target"]), frame + taken, [*steps, (frame, int(index))],
                    cost + float(arc["cost"]) - acoustic,
                )  # fmt: skip

        walk(self.table.start, 0, [], 0.0)
        return paths

    def pdf(self, arc: int) -> int:
        return int(self.label_pdf[self.table.arcs["input"][arc] - 1])

    @cached_property
    def log_total(self) -> float:
        return float(np.logaddexp.reduce([-cost for _, cost in self.paths]))

    @cached_property
    def probabilities(self) -> np.ndarray:
        return np.exp([-cost - self.log_total for _, cost in self.paths])

    def described(self, step: tuple[int, int]) -> tuple[int, int, int, float]:
        """A step as an arc of the lattice: frame, pdf, word, graph cost."""
        frame, index = step
        arc = self.table.arcs[index]
        pdf = self.pdf(index) if arc["input"] > 0 else NO_PDF
        return frame, pdf, int(arc["output"]), float(arc["cost"])

    def latest_words(self, steps: list[tuple[int, int]]) -> tuple[list[int], list[list[int]]]:
        """The latest word after each frame, and the words emitted in each frame."""
        latest, emitted = 0, [[] for _ in range(len(self.scores))]
        after = []
        for frame, index in steps:
            word = int(self.table.arcs["output"][index])
            if word:
                latest = word
                emitted[min(frame, len(self.scores) - 1)].append(word)
            if self.table.arcs["input"][index] > 0:
                after.append(latest)
        return after, emitted


def random_case(seed: int, folder: Path, frames: int = 4) -> tuple[DecodingGraph, Enumeration]:
    """A graph with at least one complete path of so many frames and pdfs shared by labels, and scores."""
    rng = np.random.default_rng(seed)
    while True:
        arcs = []
        for source in range(STATES):
            for _ in range(2):
                label = int(rng.integers(1, LABELS + 1))
                arcs.append((source, label, int(rng.choice([0, 0, 1, 2, 3])), rng.normal(), int(rng.integers(STATES))))
            if source + 1 < STATES and rng.random() < 0.6:
                target = int(rng.integers(source + 1, STATES))
                arcs.append((source, 0, int(rng.choice([0, 0, 1, 2])), rng.normal(), target))
        final = {int(state): float(rng.random()) for state in rng.choice(STATES, 2, replace=False)}
        # Shuffled numbers: epsilons lead to lower states as well as to higher ones.
        number = rng.permutation(STATES)
        shuffled = [(int(number[s]), i, o, float(np.float32(c)), int(number[t])) for s, i, o, c, t in arcs]
        table = ArcTable.of(shuffled, {int(number[s]): c for s, c in final.items()}, start=int(number[0]))
        label_pdf = rng.integers(PDFS, size=LABELS).astype(np.int32)
        scores = rng.normal(scale=3.0, size=(frames, PDFS)).astype(np.float32)
        enumeration = Enumeration(table, label_pdf, scores)
        if enumeration.paths and len(table.final) == STATES:
            break
    table.write(folder / GRAPH_FILE)
    return DecodingGraph(folder, WORDS, label_pdf, PDFS, 1, STATES, len(table.arcs)), enumeration


def searcher(graph: DecodingGraph, beam: float = EVERYTHING, **bounds: int) -> LatticeSearcher:
    search = SearchConfig(beam=EVERYTHING, max_active=1000, acoustic_scale=SCALE)
    return LatticeSearcher(graph, search, LatticeConfig(beam=beam, **bounds))


SEEDS = range(25)


@pytest.mark.parametrize("seed", SEEDS)
def test_arcs_have_the_posteriors_of_the_paths_through_them(seed, tmp_path):
    graph, every = random_case(seed, tmp_path)
    lattice = searcher(graph).search("u", every.scores)
    occupancy = forward_backward(lattice)
    assert occupancy.log_total == pytest.approx(every.log_total, abs=1e-5)
    expected: dict[tuple, float] = {}
    for (steps, _), probability in zip(every.paths, every.probabilities, strict=True):
        for step in steps:
            key = every.described(step)
            expected[key] = expected.get(key, 0.0) + probability
    posteriors: dict[tuple, float] = {}
    arcs = zip(lattice.frame[lattice.source], lattice.pdf, lattice.word, lattice.graph_cost, occupancy.arc, strict=True)
    for frame, pdf, word, cost, posterior in arcs:
        key = (int(frame), int(pdf), int(word), float(cost))
        posteriors[key] = posteriors.get(key, 0.0) + posterior
    assert posteriors == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("beam", [0.5, 2.0, 5.0])
def test_the_lattice_beam_keeps_the_arcs_of_the_paths_within_it_and_no_others(seed, beam, tmp_path):
    graph, every = random_case(seed, tmp_path)
    lattice = searcher(graph, beam).search("u", every.scores)
    limit = min(cost for _, cost in every.paths) + beam
    expected = {every.described(step) for steps, cost in every.paths if cost <= limit for step in steps}
    arcs = zip(
        lattice.frame[lattice.source].tolist(), lattice.pdf.tolist(), lattice.word.tolist(),
        lattice.graph_cost.tolist(), strict=True,
    )  # fmt: skip
    assert set(arcs) == expected
    assert np.all(lattice.source < lattice.target)
    assert np.all(np.diff(lattice.source) >= 0)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_best_path_is_the_best_of_all_also_where_the_lattice_is_narrow(seed, tmp_path):
    graph, every = random_case(seed, tmp_path)
    steps, cost = min(every.paths, key=lambda path: path[1])
    for beam in (0.01, EVERYTHING):
        lattice = searcher(graph, beam).search("u", every.scores)
        path, best_cost = best_path(lattice)
        assert best_cost == pytest.approx(cost, abs=1e-5)
        assert [every.described(step) for step in steps] == [
            (lattice.frame[lattice.source[arc]], lattice.pdf[arc], lattice.word[arc], lattice.graph_cost[arc])
            for arc in path
        ]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("candidates", [2, PDFS + 3])
def test_frames_have_the_posteriors_of_their_pdfs(seed, candidates, tmp_path):
    graph, every = random_case(seed, tmp_path)
    lattice = searcher(graph).search("u", every.scores)
    frames = frame_posteriors(lattice, forward_backward(lattice), candidates)
    expected = np.zeros((len(every.scores), PDFS))
    for (steps, _), probability in zip(every.paths, every.probabilities, strict=True):
        for frame, index in steps:
            if every.table.arcs["input"][index] > 0:
                expected[frame, every.pdf(index)] += probability
    top = -np.sort(-expected, axis=1)[:, :candidates]
    width = frames.pdf.shape[1]
    assert width <= candidates
    np.testing.assert_allclose(frames.posterior, top[:, :width] / top.sum(axis=1, keepdims=True), atol=1e-5)
    rows, columns = np.nonzero(frames.posterior > 1e-4)
    np.testing.assert_allclose(
        expected[rows, frames.pdf[rows, columns]] / top.sum(axis=1)[rows],
        frames.posterior[rows, columns],
        atol=1e-5,
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_words_are_as_probable_as_the_paths_that_have_them_at_that_time(seed, tmp_path):
    graph, every = random_case(seed, tmp_path)
    lattice = searcher(graph).search("u", every.scores)
    path, _ = best_path(lattice)
    steps, _ = min(every.paths, key=lambda path: path[1])
    frames = len(every.scores)
    spoken = [(int(every.table.arcs["output"][i]), min(f, frames - 1)) for f, i in steps]
    spoken = [(word, frame) for word, frame in spoken if word]
    expected = []
    for number, (word, begin) in enumerate(spoken):
        end = spoken[number + 1][1] if number + 1 < len(spoken) else frames
        latest = np.zeros(frames)
        emitted = 0.0
        for (other, _), probability in zip(every.paths, every.probabilities, strict=True):
            after, at = every.latest_words(other)
            latest += probability * (np.array(after) == word)
            emitted += probability * at[begin].count(word)
        expected.append(min(1.0, max([emitted, *latest[begin:end]])))
    assert word_frames(lattice, path).tolist() == [frame for _, frame in spoken]
    np.testing.assert_allclose(word_confidences(lattice, forward_backward(lattice), path), expected, atol=1e-5)


def test_a_graph_whose_paths_end_too_early_loses_them_all(tmp_path):
    table = ArcTable.of([(0, 1, 0, 0.0, 1)], {1: 0.0})
    table.write(tmp_path / GRAPH_FILE)
    graph = DecodingGraph(tmp_path, WORDS, np.array([0], np.int32), 1, 1, 2, 1)
    with pytest.raises(SearchError, match="u: the search lost every path"):
        searcher(graph).search("u", np.zeros((2, 1), np.float32))
