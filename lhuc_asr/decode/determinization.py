"""Determinization of state lattices: from each subset of states, one arc for each word.

After D. Povey et al., "Generating exact lattices in the WFST framework" (2012), section 4: subsets of (state, weight,
string), as in the power-set construction, with the pdfs of the frames as strings. Two things are done otherwise.

* Strings are kept from the first frame on. What those of a subset have in common ends at a place of the tree of
  strings, the subset's stem. Behind their stems, the strings of two subsets are taken for equal if sums of 64-bit
  numbers are equal, one number for each frame and pdf.
* Arcs are made in the order of the cost of the best path through them, known from a backward pass. When a bound of
  memory or time is met, all paths are there that cost less than the next arc's: to stop is to narrow the beam.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lhuc_asr.base.acyclic import costs_to_the_end
from lhuc_asr.base.compiled import compiled
from lhuc_asr.decode.heap import pop, push
from lhuc_asr.decode.lattice import NO_PDF, Lattice
from lhuc_asr.decode.pdf_strings import FULL, ROOT, PdfStrings, extended, shared
from lhuc_asr.decode.subsets import (
    ARCS,
    ELEMENTS,
    NOWHERE,
    SUBSETS,
    THE_END,
    WAITING,
    Subsets,
    known_subset,
)

# In place of a pair of word and target: an arc has no word.
NO_PAIR = -1
# Nodes that are passed over together where no path reaches any of them.
STRETCH = 64


class StateArcs(NamedTuple):
    """A state lattice of A arcs and N nodes, as the loops read it.

    Attributes:
        first: Index of each node's first arc, shape (N + 1,), int64.
        frame: Number of frames before each node, shape (N,), int32.
        source, target, pdf: As in ``Lattice``, shape (A,), int32.
        graph_cost, log_likelihood, cost: Parts of the cost of each arc, and the cost, shape (A,), float64.
        pair: Number of each arc's word and target among all such pairs, NO_PAIR without a word, shape (A,), int32.
        pair_word, pair_target: Word and target of each pair, ordered by word and target, shape (P,), int32.
        final: Cost of ending in each node, shape (N,), float64.
        rest: Cost of the best path from each node to an end, shape (N,), float64.
        scale: Acoustic scale.
    """

    first: np.ndarray
    frame: np.ndarray
    source: np.ndarray
    target: np.ndarray
    pdf: np.ndarray
    graph_cost: np.ndarray
    log_likelihood: np.ndarray
    cost: np.ndarray
    pair: np.ndarray
    pair_word: np.ndarray
    pair_target: np.ndarray
    final: np.ndarray
    rest: np.ndarray
    scale: float

    @classmethod
    def of(cls, lattice: Lattice) -> StateArcs:
        """The arcs of a lattice."""
        nodes = len(lattice.frame)
        spoken = lattice.word > 0
        keys = lattice.word[spoken].astype(np.int64) * nodes + lattice.target[spoken]
        pairs, numbers = np.unique(keys, return_inverse=True)
        pair = np.full(len(lattice.source), NO_PAIR, np.int32)
        pair[spoken] = numbers
        pair_word, pair_target = np.divmod(pairs, nodes)
        cost = -lattice.log_weight
        return cls(
            np.concatenate([[0], np.cumsum(np.bincount(lattice.source, minlength=nodes))]),
            lattice.frame,
            lattice.source,
            lattice.target,
            lattice.pdf,
            lattice.graph_cost.astype(np.float64),
            lattice.log_likelihood.astype(np.float64),
            cost,
            pair,
            pair_word.astype(np.int32),
            pair_target.astype(np.int32),
            lattice.final,
            costs_to_the_end(lattice.source, lattice.target, cost, lattice.final),
            float(lattice.acoustic_scale),
        )


class _Reached(NamedTuple):
    """What paths without a word reach from one subset, and the words behind; infinite and FULL where nothing is.

    Attributes:
        cost, graph_cost: Cost of the best path to each node from the subset's stem, and its graph cost, shape (N,).
        entered_by: Arc by which it enters the node, if not with an element of the subset, shape (N,).
        string: Its string, FULL until it is asked for, shape (N,).
        nodes: The nodes that were reached, in order, shape (N,).
        stretches: Whether a node of each stretch of nodes was reached, shape (N / STRETCH,), rounded up.
        pair_cost, pair_arc: Cost and last arc of the best path to each pair, shape (P,).
        pairs: The pairs that were reached, shape (P,).
    """

    cost: np.ndarray
    graph_cost: np.ndarray
    entered_by: np.ndarray
    string: np.ndarray
    nodes: np.ndarray
    stretches: np.ndarray
    pair_cost: np.ndarray
    pair_arc: np.ndarray
    pairs: np.ndarray


@compiled
def determinize(
    graph: StateArcs, strings: PdfStrings, subsets: Subsets, frames: int, beam: float, max_steps: int
) -> tuple[float, int]:
    """Fill in the subsets within a beam of the best path, and the arcs between them.

    Args:
        graph: The state lattice.
        strings: An empty tree.
        subsets: Empty subsets.
        frames: Number of frames, T.
        beam: Maximum difference in cost between the best path through an arc and the best path.
        max_steps: Maximum number of visits to arcs of the state lattice.

    Returns:
        Beam within which all paths are there: less than asked for where there was no room; and the number of steps.
    """
    nodes, pairs = len(graph.final), len(graph.pair_word)
    reached = _Reached(
        np.full(nodes, np.inf),
        np.empty(nodes),
        np.empty(nodes, np.int64),
        np.full(nodes, FULL, np.int64),
        np.empty(nodes, np.int64),
        np.zeros(nodes // STRETCH + 1, np.bool_),
        np.full(pairs, np.inf),
        np.empty(pairs, np.int64),
        np.empty(pairs, np.int64),
    )
    path = np.empty(nodes, np.int64)
    limit = graph.rest[0] + beam
    subsets.source[0], subsets.stem[0], subsets.high[0] = NOWHERE, ROOT, 1
    subsets.through[0] = graph.rest[0]
    subsets.counts[ELEMENTS] = subsets.counts[ARCS] = subsets.counts[WAITING] = 1
    steps = 0
    while subsets.counts[WAITING] > 0:
        arc = pop(subsets.heap, subsets.counts[WAITING], subsets.through)
        subsets.counts[WAITING] -= 1
        subset, slot = known_subset(strings, subsets, arc)
        if subset == NOWHERE:
            subset = subsets.counts[SUBSETS]
            subsets.maker[subset], subsets.final[subset] = arc, np.inf
            subsets.slots[slot] = subset + 1
            subsets.counts[SUBSETS] = subset + 1
            node_count, pair_count, looked_at = _reach(graph, strings, subsets, reached, arc, limit)
            steps += looked_at
            room = (
                steps <= max_steps
                and _end(graph, strings, subsets, reached, subset, node_count, frames, limit, path)
                and _leave(graph, strings, subsets, reached, subset, pair_count, path)
            )
            _forget(reached, node_count, pair_count)
            if not room:
                return subsets.through[arc] - graph.rest[0], steps
        subsets.target[arc] = subset
    return beam, steps


@compiled
def _reach(
    graph: StateArcs, strings: PdfStrings, subsets: Subsets, reached: _Reached, arc: int, limit: float
) -> tuple[int, int, int]:
    """Follow arcs without words from a subset; returns the number of nodes, of pairs, and of arcs looked at."""
    lowest, highest = len(graph.final), 0
    rest = limit - subsets.before[arc]
    common = strings.log_likelihood[subsets.stem[arc]]
    for element in range(subsets.low[arc], subsets.high[arc]):
        node, string, residue = subsets.node[element], subsets.string[element], subsets.residue[element]
        reached.cost[node] = residue - graph.scale * (strings.log_likelihood[string] - common)
        reached.graph_cost[node], reached.string[node] = residue, string
        lowest, highest = min(lowest, node), max(highest, node)
        reached.stretches[node // STRETCH] = True
    node_count, pair_count, looked_at = 0, 0, 0
    stretch = lowest // STRETCH
    while stretch <= highest // STRETCH:
        if reached.stretches[stretch]:
            for node in range(stretch * STRETCH, min((stretch + 1) * STRETCH, len(graph.final))):
                cost = reached.cost[node]
                if cost == np.inf:
                    continue
                reached.nodes[node_count] = node
                node_count += 1
                looked_at += graph.first[node + 1] - graph.first[node]
                for out in range(graph.first[node], graph.first[node + 1]):
                    target, pair = graph.target[out], graph.pair[out]
                    new = cost + graph.cost[out]
                    if new + graph.rest[target] > rest:
                        continue
                    if pair == NO_PAIR:
                        if new < reached.cost[target]:
                            reached.cost[target], reached.entered_by[target], reached.string[target] = new, out, FULL
                            reached.graph_cost[target] = reached.graph_cost[node] + graph.graph_cost[out]
                            reached.stretches[target // STRETCH] = True
                            highest = max(highest, target)
                    elif new < reached.pair_cost[pair]:
                        if reached.pair_cost[pair] == np.inf:
                            reached.pairs[pair_count] = pair
                            pair_count += 1
                        reached.pair_cost[pair], reached.pair_arc[pair] = new, out
            reached.stretches[stretch] = False
        stretch += 1
    return node_count, pair_count, looked_at


@compiled
def _forget(reached: _Reached, node_count: int, pair_count: int) -> None:
    for node in reached.nodes[:node_count]:
        reached.cost[node], reached.string[node] = np.inf, FULL
    for pair in reached.pairs[:pair_count]:
        reached.pair_cost[pair] = np.inf


@compiled
def _string_of(graph: StateArcs, strings: PdfStrings, reached: _Reached, node: int, path: np.ndarray) -> int:
    """The string of the best path to a node, FULL where there is no room for it."""
    length = 0
    while reached.string[node] == FULL:
        path[length] = node
        length += 1
        node = graph.source[reached.entered_by[node]]
    string: int = reached.string[node]
    for position in range(length - 1, -1, -1):
        string = _behind(graph, strings, string, reached.entered_by[path[position]])
        if string == FULL:
            break
        reached.string[path[position]] = string
    return string


@compiled
def _behind(graph: StateArcs, strings: PdfStrings, string: int, arc: int) -> int:
    """A string with the pdf of an arc."""
    if graph.pdf[arc] == NO_PDF:
        return string
    return extended(strings, string, graph.pdf[arc], graph.log_likelihood[arc])


@compiled
def _end(
    graph: StateArcs,
    strings: PdfStrings,
    subsets: Subsets,
    reached: _Reached,
    subset: int,
    node_count: int,
    frames: int,
    limit: float,
    path: np.ndarray,
) -> bool:
    """End the best path that ends without a further word, if one does; False where there is no room."""
    least, last = np.inf, -1
    for node in reached.nodes[:node_count]:
        if reached.cost[node] + graph.final[node] < least:
            least, last = reached.cost[node] + graph.final[node], node
    maker, arc = subsets.maker[subset], subsets.counts[ARCS]
    through = subsets.before[maker] + least
    if last < 0 or through > limit:
        return True
    string = _string_of(graph, strings, reached, last, path)
    if string == FULL or arc == len(subsets.source):
        return False
    graph_cost = reached.graph_cost[last] + graph.final[last]
    if strings.length[subsets.stem[maker]] == frames:
        subsets.final[subset] = graph_cost
        return True
    subsets.source[arc], subsets.target[arc], subsets.word[arc], subsets.stem[arc] = subset, THE_END, 0, string
    subsets.begin[arc], subsets.graph_cost[arc] = frames, graph_cost
    subsets.before[arc] = subsets.through[arc] = through
    subsets.counts[ARCS] = arc + 1
    return True


@compiled
def _leave(
    graph: StateArcs,
    strings: PdfStrings,
    subsets: Subsets,
    reached: _Reached,
    subset: int,
    pair_count: int,
    path: np.ndarray,
) -> bool:
    """Make the arcs of all words that follow a subset; False where there is no room."""
    pairs, maker = np.sort(reached.pairs[:pair_count]), subsets.maker[subset]
    begin = 0
    while begin < pair_count:
        word, end = graph.pair_word[pairs[begin]], begin
        low, arc = subsets.counts[ELEMENTS], subsets.counts[ARCS]
        if arc == len(subsets.source) or low + pair_count - begin > len(subsets.node):
            return False
        least, best, begins, stem = np.inf, low, 0, FULL
        while end < pair_count and graph.pair_word[pairs[end]] == word:
            pair, element = pairs[end], low + end - begin
            last, node = reached.pair_arc[pair], graph.pair_target[pair]
            string = _string_of(graph, strings, reached, graph.source[last], path)
            if string != FULL:
                string = _behind(graph, strings, string, last)
            if string == FULL:
                return False
            stem = string if end == begin else shared(strings, stem, string)
            subsets.node[element], subsets.string[element] = node, string
            subsets.residue[element] = reached.graph_cost[graph.source[last]] + graph.graph_cost[last]
            if reached.pair_cost[pair] + graph.rest[node] < least:
                least, best = reached.pair_cost[pair] + graph.rest[node], element
                begins = graph.frame[graph.source[last]]
            end += 1
        graph_cost, high = subsets.residue[best], low + end - begin
        for element in range(low, high):
            subsets.residue[element] -= graph_cost
        acoustic = strings.log_likelihood[stem] - strings.log_likelihood[subsets.stem[maker]]
        subsets.source[arc], subsets.target[arc], subsets.word[arc], subsets.stem[arc] = subset, NOWHERE, word, stem
        subsets.low[arc], subsets.high[arc], subsets.begin[arc] = low, high, begins
        subsets.graph_cost[arc] = graph_cost
        subsets.before[arc] = subsets.before[maker] + graph_cost - graph.scale * acoustic
        subsets.through[arc] = subsets.before[maker] + least
        subsets.counts[ELEMENTS], subsets.counts[ARCS] = high, arc + 1
        known, _ = known_subset(strings, subsets, arc)
        if known == NOWHERE:
            push(subsets.heap, subsets.counts[WAITING], subsets.through, arc)
            subsets.counts[WAITING] += 1
        else:
            subsets.target[arc], subsets.counts[ELEMENTS] = known, low
        begin = end
    return True
