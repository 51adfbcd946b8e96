"""Token passing for lattices: forward over the frames, then backward over the tokens that were kept.

The forward pass is Viterbi beam search over (frame, state) tokens as in Kaldi's FasterDecoder (S. Young et al. 1989):
a beam, at most ``max_active`` and at least ``min_active`` states. It keeps tokens, not arcs. The backward pass finds
the arcs again in the graph, with the cost of the best path through each, and keeps those within the lattice beam
(D. Povey et al., "Generating exact lattices in the WFST framework", 2012, section 3). Whatever the scores are, memory
is bounded by tokens and arcs, and time by frames, active states and the graph's arcs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lhuc_asr.base.compiled import compiled
from lhuc_asr.decode.packed_graph import PackedGraph

# Added to the next frame's beam where the number of states, not the beam, decided; as in Kaldi.
BEAM_DELTA = 0.5
# A narrowed beam lies just below the excess cost of a path: at it, rounding would keep only parts of that path.
JUST_BELOW = 1.0 - 1e-6
# Below this beam, differences in cost are those of rounding, and the beam cannot be narrowed.
LEAST_BEAM = 1e-3


class Tokens(NamedTuple):
    """The states that paths reached, frame after frame; epsilons within a frame lead to later tokens only.

    Attributes:
        first: Index of the first token of each frame, shape (T + 2,), int64: first[t] .. first[t + 1] - 1 have t
            frames behind them.
        state: State of the graph of each token, shape (N,), int32.
        cost: Cost of the best path to each token, scaled acoustic scores and graph, shape (N,), float64.
        cutoff: Cost in each frame below which tokens go on to the next one, shape (T,), float64.
        complete: Whether the search reached the last frame; it stops where there are too many tokens, or none.
    """

    first: np.ndarray
    state: np.ndarray
    cost: np.ndarray
    cutoff: np.ndarray
    complete: bool


class TokenArcs(NamedTuple):
    """Arcs between tokens, ordered by source.

    Attributes:
        source, target: Tokens at the ends of each arc, shape (A,), int64.
        arc: Number of each arc in the graph; -1 less the number for an epsilon, shape (A,), int64.
        beam: Maximum difference in cost between a path and the best one; less than asked for where there were too
            many arcs.
        complete: Whether the bound on the number of arcs sufficed.
    """

    source: np.ndarray
    target: np.ndarray
    arc: np.ndarray
    beam: float
    complete: bool


@compiled
def pass_tokens(
    graph: PackedGraph, scores: np.ndarray, beam: float, max_active: int, min_active: int, max_tokens: int
) -> Tokens:
    """Search forward.

    Args:
        graph: The decoding graph.
        scores: Scaled log-likelihoods, shape (T, K), float32.
        beam: Maximum difference in cost between a token and the best one of its frame; others are dropped.
        max_active: Maximum number of states that go on to the next frame.
        min_active: Minimum number of these states, whatever the beam.
        max_tokens: Number of tokens above which the search stops.
    """
    frames, states = len(scores), len(graph.final)
    cost, next_cost = np.full(states, np.inf), np.full(states, np.inf)
    active, next_active = np.empty(states, np.int32), np.empty(states, np.int32)
    entered_by = np.full(states, -1, np.int32)  # source of the epsilon into each state on its best path, -1 without one
    kept_at = np.full(states, -1, np.int32)  # last frame in which each state was kept
    pending = np.empty(states, np.int32)
    first, cutoff = np.zeros(frames + 2, np.int64), np.empty(frames)
    kept_state, kept_cost = np.empty(1 << 16, np.int32), np.empty(1 << 16)
    kept = 0

    cost[graph.start], active[0], count = 0.0, graph.start, 1
    limit = np.inf
    for t in range(frames + 1):
        count = _follow_epsilons(graph, active, count, cost, entered_by, pending, limit)
        if count == 0:
            return Tokens(first, kept_state[:kept], kept_cost[:kept], cutoff, False)
        here, width = _cutoff(cost[active[:count]], beam, max_active, min_active)
        ordered = _by_level(graph.level, graph.levels, active[:count])
        for state in ordered[::-1]:
            # Costs can be negative: the token before an epsilon may cost more than the one behind it.
            if cost[state] < here:
                kept_at[state] = t
            if kept_at[state] == t and entered_by[state] >= 0:
                kept_at[entered_by[state]] = t
        if kept + count > len(kept_state):
            kept_state, kept_cost = _grown(kept_state, kept_cost, kept + count)
        first[t] = kept
        for state in ordered:
            if kept_at[state] == t:
                kept_state[kept], kept_cost[kept] = state, cost[state]
                kept += 1
        first[t + 1] = kept
        if kept > max_tokens:
            return Tokens(first, kept_state[:kept], kept_cost[:kept], cutoff, False)
        if t == frames:
            break
        cutoff[t] = here
        next_count, limit = 0, np.inf
        best = first[t] + np.argmin(kept_cost[first[t] : kept])
        # The best token goes first: the costs of its successors tell early which others need not be stored.
        for number in range(-1, kept - first[t]):
            token = best if number < 0 else first[t] + number
            if kept_cost[token] >= here:
                continue
            state = kept_state[token]
            for arc in range(graph.first[state], graph.first[state + 1]):
                reached = graph.target[arc]
                new = kept_cost[token] + graph.cost[arc] - scores[t, graph.pdf[arc]]
                if new < limit and new < next_cost[reached]:
                    if next_cost[reached] == np.inf:
                        next_active[next_count] = reached
                        next_count += 1
                    next_cost[reached] = new
                    entered_by[reached] = -1
                    limit = min(limit, new + width)
        for state in active[:count]:
            cost[state] = np.inf
        cost, next_cost = next_cost, cost
        active, next_active = next_active, active
        count = next_count
    return Tokens(first, kept_state[:kept], kept_cost[:kept], cutoff, True)


@compiled
def arcs_within(
    graph: PackedGraph, scores: np.ndarray, tokens: Tokens, ends: np.ndarray, beam: float, max_arcs: int
) -> TokenArcs:
    """Arcs on paths that cost at most ``beam`` more than the best.

    Args:
        graph: Graph of the search.
        scores: Scores of the search, shape (T, K).
        tokens: Tokens of a complete search.
        ends: Cost of ending in each token of the last frame, infinite where a path cannot end.
        beam: Beam of the lattice.
        max_arcs: Maximum number of arcs; where there are more, the beam is narrowed to the better half of them.
    """
    frames, states = len(scores), len(graph.final)
    token_at, next_token_at = np.full(states, -1, np.int64), np.full(states, -1, np.int64)
    rest, next_rest = np.full(states, np.inf), np.full(states, np.inf)  # cost of the best path from a state to the end
    source, target, number = np.empty(max_arcs, np.int64), np.empty(max_arcs, np.int64), np.empty(max_arcs, np.int64)
    excess = np.empty(max_arcs)  # cost of the best path through an arc, less that of the best path
    last = tokens.first[frames]
    best = (tokens.cost[last:] + ends).min()
    count = 0
    for t in range(frames, -1, -1):
        low, high = tokens.first[t], tokens.first[t + 1]
        for token in range(low, high):
            token_at[tokens.state[token]] = token
        for token in range(high - 1, low - 1, -1):
            state = tokens.state[token]
            rest[state] = ends[token - last] if t == frames else np.inf
            goes_on = t < frames and tokens.cost[token] < tokens.cutoff[min(t, frames - 1)]
            taking = graph.first[state + 1] - graph.first[state] if goes_on else 0
            free = graph.epsilon_first[state + 1] - graph.epsilon_first[state]
            for position in range(taking + free):
                if position < taking:
                    arc = graph.first[state] + position
                    reached = graph.target[arc]
                    reached_token = next_token_at[reached]
                    through = graph.cost[arc] - scores[t, graph.pdf[arc]] + next_rest[reached]
                else:
                    arc = graph.epsilon_first[state] + position - taking
                    reached = graph.epsilon_target[arc]
                    reached_token = token_at[reached]
                    through = graph.epsilon_cost[arc] + rest[reached]
                    arc = -1 - arc
                if reached_token < 0:
                    continue
                rest[state] = min(rest[state], through)
                if tokens.cost[token] + through - best > beam:
                    continue
                if count == max_arcs:
                    beam = JUST_BELOW * smallest(excess, max_arcs // 2)
                    if beam < LEAST_BEAM:
                        return TokenArcs(source[:0], target[:0], number[:0], beam, False)
                    count = 0
                    for old in range(max_arcs):
                        if excess[old] <= beam:
                            source[count], target[count] = source[old], target[old]
                            number[count], excess[count] = number[old], excess[old]
                            count += 1
                    if tokens.cost[token] + through - best > beam:
                        continue
                source[count], target[count], number[count] = token, reached_token, arc
                excess[count] = tokens.cost[token] + through - best
                count += 1
        if t < frames:
            for token in range(high, tokens.first[t + 2]):
                next_token_at[tokens.state[token]] = -1
                next_rest[tokens.state[token]] = np.inf
        token_at, next_token_at = next_token_at, token_at
        rest, next_rest = next_rest, rest
    return TokenArcs(source[:count][::-1].copy(), target[:count][::-1].copy(), number[:count][::-1].copy(), beam, True)


@compiled
def _follow_epsilons(
    graph: PackedGraph,
    active: np.ndarray,
    count: int,
    cost: np.ndarray,
    entered_by: np.ndarray,
    pending: np.ndarray,
    limit: float,
) -> int:
    """Pass the tokens of a frame along epsilons, level after level; returns the number of active states."""
    waiting = 0
    for state in active[:count]:
        if graph.epsilon_first[state + 1] > graph.epsilon_first[state]:
            pending[waiting] = state
            waiting += 1
    for level in range(graph.levels):
        position = 0
        while position < waiting:
            state = pending[position]
            position += 1
            if graph.level[state] != level:
                continue
            for arc in range(graph.epsilon_first[state], graph.epsilon_first[state + 1]):
                reached, new = graph.epsilon_target[arc], cost[state] + graph.epsilon_cost[arc]
                if new >= limit or new >= cost[reached]:
                    continue
                if cost[reached] == np.inf:
                    active[count] = reached
                    count += 1
                    if graph.epsilon_first[reached + 1] > graph.epsilon_first[reached]:
                        pending[waiting] = reached
                        waiting += 1
                cost[reached] = new
                entered_by[reached] = state
    return count


@compiled
def _cutoff(costs: np.ndarray, beam: float, max_active: int, min_active: int) -> tuple[float, float]:
    """Cost below which tokens go on, and the first beam of the next frame (FasterDecoder::GetCutoff)."""
    best = costs.min()
    cutoff, width = best + beam, beam
    if len(costs) <= min_active:
        return np.inf, np.inf
    least = smallest(costs, min_active)
    if least > cutoff:
        cutoff, width = least, least - best + BEAM_DELTA
    elif len(costs) > max_active:
        most = smallest(costs, max_active)
        if most < cutoff:
            cutoff, width = most, most - best + BEAM_DELTA
    # The best token goes on even where more than max_active are equally good.
    return max(cutoff, np.nextafter(best, np.inf)), width


@compiled
def smallest(values: np.ndarray, rank: int) -> float:
    """The value of a rank, 0 for the smallest (C. Hoare's Find, 1961); numba takes seconds to compile np.partition."""
    values = values.copy()
    low, high = 0, len(values) - 1
    while low < high:
        pivot, left, right = values[rank], low, high
        while left <= right:
            while values[left] < pivot:
                left += 1
            while pivot < values[right]:
                right -= 1
            if left <= right:
                values[left], values[right] = values[right], values[left]
                left, right = left + 1, right - 1
        if right < rank:
            low = left
        if rank < left:
            high = right
    value: float = values[rank]
    return value


@compiled
def _by_level(level: np.ndarray, levels: int, states: np.ndarray) -> np.ndarray:
    """States ordered by epsilon level."""
    place = np.zeros(levels + 1, np.int64)
    for state in states:
        place[level[state] + 1] += 1
    place = np.cumsum(place)
    ordered = np.empty_like(states)
    for state in states:
        ordered[place[level[state]]] = state
        place[level[state]] += 1
    return ordered


@compiled
def _grown(state: np.ndarray, cost: np.ndarray, needed: int) -> tuple[np.ndarray, np.ndarray]:
    """Copies of the arrays with room for twice the number of tokens that is needed."""
    more_state, more_cost = np.empty(2 * needed, np.int32), np.empty(2 * needed)
    for token in range(len(state)):
        more_state[token], more_cost[token] = state[token], cost[token]
    return more_state, more_cost
