"""Small random lattices, and all of their paths one by one: the oracle of what is summed over paths."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lhuc_asr.nnet.denominator import DenominatorLattice, span_offsets
from lhuc_asr.nnet.lattice_objectives import Reference, pdf_classes
from lhuc_asr.nnet.lattice_store import LatticeStore, write_lattices

PDFS = 5
SILENCE = (1, 3)


def lattice_of(
    frame: list[int],
    arcs: list[tuple[int, int, float, list[int]]],
    final: dict[int, float],
) -> DenominatorLattice:
    """A lattice from its nodes' frames, its arcs (source, target, cost, pdfs) and the costs of its ends."""
    arcs = sorted(arcs, key=lambda arc: arc[0])
    frames = np.array(frame, np.int32)
    source, target = (np.array([arc[end] for arc in arcs], np.int32) for end in (0, 1))
    costs = np.full(len(frame), np.inf)
    costs[list(final)] = list(final.values())
    pdf = np.array([pdf for arc in arcs for pdf in arc[3]], np.int32)
    graph_cost = np.array([arc[2] for arc in arcs], np.float64)
    return DenominatorLattice(frames, costs, source, target, graph_cost, pdf, span_offsets(frames, source, target))


def chain(pdfs: list[int], cost: float = 0.0) -> DenominatorLattice:
    """The lattice of one path, an arc a frame."""
    arcs = [(t, t + 1, cost, [pdf]) for t, pdf in enumerate(pdfs)]
    return lattice_of(list(range(len(pdfs) + 1)), arcs, {len(pdfs): 0.0})


@dataclass(frozen=True)
class World:
    """A lattice with the scores and the reference of its utterance."""

    lattice: DenominatorLattice
    logits: np.ndarray
    reference: Reference


def random_world(seed: int) -> World:
    """A lattice of up to 5 frames and 8 nodes, with arcs of none to all frames, loose ends and parallel arcs.

    The reference is that of a path, an arbitrary one, or has unknown frames.
    """
    draw = np.random.default_rng(seed)
    frames, nodes = int(draw.integers(1, 6)), int(draw.integers(2, 9))
    frame = sorted([0, frames, *draw.integers(0, frames + 1, nodes - 2).tolist()])
    pairs = [(0, nodes - 1)] if draw.random() < 0.5 else [(0, nodes - 1)] * 2
    pairs += [tuple(sorted(draw.choice(nodes, 2, replace=False).tolist())) for _ in range(draw.integers(0, 12))]
    arcs = [(a, b, float(draw.normal()), draw.integers(0, PDFS, frame[b] - frame[a]).tolist()) for a, b in pairs]
    ends = [node for node in range(1, nodes) if frame[node] == frames]
    final = {node: float(draw.normal()) for node in ends if node == nodes - 1 or draw.random() < 0.5}
    lattice = lattice_of(frame, arcs, final)
    pdf = draw.integers(0, PDFS, frames).astype(np.int32)
    kind = draw.integers(3)
    if kind == 0:
        paths = list(paths_of(lattice))
        pdf = np.array(pdfs_of(lattice, paths[draw.integers(len(paths))]), np.int32)
    elif kind == 1:
        pdf[draw.random(frames) < 0.4] = -1
    return World(lattice, draw.normal(0.0, 2.0, (frames, PDFS)), Reference(pdf, pdf_classes(PDFS, SILENCE)))


def paths_of(lattice: DenominatorLattice, node: int = 0) -> Iterator[list[int]]:
    """The arcs of each path from a node to an end."""
    if np.isfinite(lattice.final[node]):
        yield []
    for arc in np.flatnonzero(lattice.source == node).tolist():
        for rest in paths_of(lattice, int(lattice.target[arc])):
            yield [arc, *rest]


def pdfs_of(lattice: DenominatorLattice, path: list[int]) -> list[int]:
    """The pdf of each frame of a path."""
    return [pdf for arc in path for pdf in lattice.pdf[lattice.offsets[arc] : lattice.offsets[arc + 1]].tolist()]


def is_right(pdf: int, reference: int) -> bool:
    """Whether a pdf is the reference's, or both are silence."""
    return pdf == reference or (pdf in SILENCE and reference in SILENCE)


def path_scores(world: World, log_likelihoods: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log weight, number of right frames, and whether it is the reference, of each path."""
    weights, right, reference = [], [], []
    truth = world.reference.pdf.tolist()
    for path in paths_of(world.lattice):
        pdfs = pdfs_of(world.lattice, path)
        end = int(world.lattice.target[path[-1]]) if path else 0
        cost = sum(world.lattice.graph_cost[path]) + world.lattice.final[end]
        weights.append(sum(log_likelihoods[t, pdf] for t, pdf in enumerate(pdfs)) - cost)
        right.append(sum(is_right(*pair) for pair in zip(pdfs, truth, strict=True)))
        reference.append(all(pdf == known or known < 0 for pdf, known in zip(pdfs, truth, strict=True)))
    return torch.stack(weights), torch.tensor(right, dtype=torch.float64), torch.tensor(reference)


def store_of(folder: Path, lattices: Iterable[tuple[str, DenominatorLattice]], pdfs: int = PDFS) -> LatticeStore:
    """A store of lattices, written and opened."""
    write_lattices(folder, lattices, pdfs)
    return LatticeStore(folder)
