"""A decoding graph as arrays that compiled loops walk through: which arcs leave a state, and where they lead."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lhuc_asr.base.compiled import compiled
from lhuc_asr.base.errors import GraphError
from lhuc_asr.decode.const_fst import ArcTable


class PackedGraph(NamedTuple):
    """Arcs by source, those that take a frame apart from the epsilons that take none.

    Attributes:
        start: The start state.
        levels: Number of epsilon levels.
        final: Cost of ending in a state, infinite where it is not final, shape (S,), float32.
        level: Epsilons lead to higher levels only: the longest chain of them into a state, shape (S,), int32.
        first: Arcs first[s] .. first[s + 1] - 1 leave s and take a frame, shape (S + 1,), int64.
        pdf, word, cost, target: Of these arcs, shape (A,), int32 and float32; word 0 is none.
        epsilon_first, epsilon_word, epsilon_cost, epsilon_target: The same of the epsilons.
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
        """Pack a graph whose input labels less 1 index ``label_pdf``.

        Raises:
            GraphError: Epsilons form a circle: a search would walk it for ever.
        """
        states = len(table.final)
        epsilon = table.arcs["input"] == 0
        taking, free = table.arcs[~epsilon], table.arcs[epsilon]
        epsilon_first = _first_arcs(table.source[epsilon], states)
        epsilon_target = free["target"].copy()
        level, ordered = _epsilon_levels(epsilon_first, epsilon_target)
        if ordered < states:
            raise GraphError(
                f"{states - ordered} of the graph's {states} states lie on or behind a circle of epsilons; "
                "delete the graph and build it again from a lexicon without empty pronunciations"
            )
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
            epsilon_first=epsilon_first,
            epsilon_word=free["output"].copy(),
            epsilon_cost=free["cost"].copy(),
            epsilon_target=epsilon_target,
        )


def _first_arcs(source: np.ndarray, states: int) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.bincount(source, minlength=states))]).astype(np.int64)


@compiled
def _epsilon_levels(first: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, int]:
    """Longest chain of epsilons into each state, and how many states an order without circles has (A. Kahn, 1962)."""
    states = len(first) - 1
    level = np.zeros(states, np.int32)
    waiting = np.zeros(states, np.int32)  # epsilons into a state from states that are not in order yet
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
