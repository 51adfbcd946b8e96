"""A decoding graph as arrays for compiled loops: the arcs that leave each state, and their targets."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lhuc_asr.base.compiled import compiled
from lhuc_asr.base.errors import GraphError
from lhuc_asr.decode.const_fst import ArcTable


class PackedGraph(NamedTuple):
    """Arcs ordered by source; those that take a frame are apart from the epsilons, which take none.

    Attributes:
        start: Start state.
        levels: Number of epsilon levels.
        final: Cost of ending in a state, infinite where it is not final, shape (S,), float32.
        level: Length of the longest chain of epsilons into each state, shape (S,), int32. An epsilon always leads
            to a higher level.
        first: Index of each state's first arc, shape (S + 1,), int64: the arcs first[s] .. first[s + 1] - 1 leave s.
        pdf, word, cost, target: Labels, costs and targets of the arcs that take a frame, shape (A,), int32 and
            float32; word 0 stands for an arc without a word.
        epsilon_first, epsilon_word, epsilon_cost, epsilon_target: The same for the epsilons.
    """

    start: int
    levels: int
    final: np.ndarray
    level: np.ndarray
    first: np.ndarray
    pdf: np.ndarray
    word: np.ndarray
    cost: np.ndarray
    target: np.ndarray
    epsilon_first: np.ndarray
    epsilon_word: np.ndarray
    epsilon_cost: np.ndarray
    epsilon_target: np.ndarray

    @classmethod
    def of(cls, table: ArcTable, label_pdf: np.ndarray) -> PackedGraph:
        """Pack a graph.

        Args:
            table: The graph.
            label_pdf: Pdf of each input label, whose index is the label less 1, shape (L,).

        Raises:
            GraphError: Epsilons form a circle, in which a search would never end.
        """
        states = len(table.final)
        epsilon = table.arcs["input"] == 0
        taking, free = table.arcs[~epsilon], table.arcs[epsilon]
        level = epsilon_levels(table)
        return cls(
            start=table.start,
            levels=1 + int(level.max(initial=0)),
            final=table.final,
            level=level,
            first=_first_arcs(table.source[~epsilon], states),
            pdf=label_pdf[taking["input"] - 1].astype(np.int32),
            word=taking["output"].copy(),
            cost=taking["cost"].copy(),
            target=taking["target"].copy(),
            epsilon_first=_first_arcs(table.source[epsilon], states),
            epsilon_word=free["output"].copy(),
            epsilon_cost=free["cost"].copy(),
            epsilon_target=free["target"].copy(),
        )


def epsilon_levels(table: ArcTable) -> np.ndarray:
    """Length of the longest chain of epsilons into each state of a graph, shape (S,), int32.

    Raises:
        GraphError: Epsilons form a circle, in which a search would never end.
    """
    states, epsilon = len(table.final), table.arcs["input"] == 0
    first = _first_arcs(table.source[epsilon], states)
    level, ordered = _epsilon_levels(first, table.arcs["target"][epsilon])
    if ordered < states:
        raise GraphError(
            f"{states - ordered} of the graph's {states} states lie on or behind a circle of epsilons; "
            "delete the graph and rebuild it from a lexicon without empty pronunciations"
        )
    return level


def _first_arcs(source: np.ndarray, states: int) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.bincount(source, minlength=states))]).astype(np.int64)


@compiled
def _epsilon_levels(first: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, int]:
    """Longest chain of epsilons into each state, and the number of states not behind a circle (A. Kahn, 1962)."""
    states = len(first) - 1
    level = np.zeros(states, np.int32)
    waiting = np.zeros(states, np.int32)  # number of epsilons into each state from states without a place in the order
    for arc in range(len(target)):
        waiting[target[arc]] += 1
    order = np.empty(states, np.int32)
    ordered = 0
    for state in range(states):
        if waiting[state] == 0:
            order[ordered] = state
            ordered += 1
    done = 0
    while done < ordered:
        state = order[done]
        done += 1
        for arc in range(first[state], first[state + 1]):
            reached = target[arc]
            level[reached] = max(level[reached], level[state] + 1)
            waiting[reached] -= 1
            if waiting[reached] == 0:
                order[ordered] = reached
                ordered += 1
    return level, ordered
