"""Random state lattices of a few frames, and all paths of a lattice one by one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lhuc_asr.decode.lattice import NO_PDF, Lattice
from lhuc_asr.decode.word_lattice import WordLattice

WORDS = ("<eps>", "A", "B", "C")
PDFS, SCALE = 3, 0.5
EVERYTHING = 1e6


@dataclass(frozen=True)
class Path:
    """A path from the start to an end."""

    words: tuple[int, ...]
    pdfs: tuple[int, ...]
    graph_cost: float
    log_likelihood: float

    @property
    def cost(self) -> float:
        return self.graph_cost - SCALE * self.log_likelihood


def random_lattice(seed: int, frames: int = 3, words: int = 3, reached_final: bool = True) -> Lattice:
    """A state lattice with at least one path, with arcs that take a frame and such that take none.

    Some costs are drawn from few values, so that paths are equally good. Some nodes are on no path.
    """
    rng = np.random.default_rng(seed)
    while True:
        scores = rng.normal(scale=2.0, size=(frames, PDFS)).astype(np.float32)
        frame = np.repeat(np.arange(frames + 1), [1 + rng.integers(2), *rng.integers(1, 4, size=frames)])
        nodes = len(frame)
        rows = []
        for source in range(nodes):
            for target in range(source + 1, nodes):
                step = frame[target] - frame[source]
                if step > 1 or rng.random() < (0.2 if step else 0.5):
                    continue
                pdf = int(rng.integers(PDFS)) if step else NO_PDF
                word = int(rng.choice([0, *range(words + 1)]))
                cost = float(rng.choice([0.0, 1.0, rng.normal()]))
                rows.append((source, target, pdf, word, cost, scores[frame[source], pdf] if step else 0.0))
        if not rows:
            continue
        final = np.full(nodes, np.inf)
        last = np.flatnonzero(frame == frames)
        final[rng.choice(last, size=rng.integers(1, len(last) + 1), replace=False)] = float(rng.random())
        source, target, pdf, word, cost, score = (np.array(column) for column in zip(*rows, strict=True))
        lattice = Lattice(
            frame.astype(np.int32), final, source.astype(np.int32), target.astype(np.int32), pdf.astype(np.int32),
            word.astype(np.int32), cost.astype(np.float32), score.astype(np.float32),
            SCALE, reached_final, EVERYTHING, 100,
        )  # fmt: skip
        if all_paths(lattice):
            return lattice


def all_paths(lattice: Lattice) -> list[Path]:
    """Every path of a state lattice."""
    return _walk(lattice, [() if pdf == NO_PDF else (int(pdf),) for pdf in lattice.pdf])


def all_word_paths(lattice: WordLattice) -> list[Path]:
    """Every path of a word lattice."""
    return _walk(lattice, [tuple(each.tolist()) for each in np.split(lattice.pdf, lattice.offset[1:-1])])


def best_of_words(paths: list[Path]) -> dict[tuple[int, ...], Path]:
    """The best path of each word sequence."""
    best: dict[tuple[int, ...], Path] = {}
    for path in sorted(paths, key=lambda path: path.cost):
        best.setdefault(path.words, path)
    return best


def _walk(lattice: Lattice | WordLattice, pdfs: list[tuple[int, ...]]) -> list[Path]:
    paths = []
    stack: list[tuple[int, Path]] = [(0, Path((), (), 0.0, 0.0))]
    while stack:
        node, path = stack.pop()
        if np.isfinite(lattice.final[node]):
            ended = path.graph_cost + float(lattice.final[node])
            paths.append(Path(path.words, path.pdfs, ended, path.log_likelihood))
        for arc in np.flatnonzero(lattice.source == node):
            word = int(lattice.word[arc])
            onwards = Path(
                (*path.words, word) if word else path.words,
                path.pdfs + pdfs[arc],
                path.graph_cost + float(lattice.graph_cost[arc]),
                path.log_likelihood + float(lattice.log_likelihood[arc]),
            )
            stack.append((int(lattice.target[arc]), onwards))
    return paths
