"""Token passing that keeps what a lattice needs: forward over the frames, backward over the tokens that were kept.

Forward is Viterbi beam search over (frame, state) tokens as in Kaldi's FasterDecoder (S. Young et al. 1989): a beam,
at most ``max_active`` and at least ``min_active`` states. It keeps tokens, not arcs: backward finds the arcs again
in the graph, with the cost of the best path through each, and keeps those within the lattice beam (D. Povey et al.,
"Generating exact lattices in the WFST framework", 2012, section 3). So memory is bounded by tokens and arcs, and time
by frames, active states and the graph's arcs, whatever the scores are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lhuc_asr.base.compiled import compiled
from lhuc_asr.decode.packed_graph import PackedGraph

# Added to the next frame's beam where the number of states, not the beam, decided; as in Kaldi.
BEAM_DELTA = 0.5
# A narrowed beam lies between the excess costs of paths: at one of them rounding would keep only parts of the path.
JUST_BELOW = 1.0 - 1e-6
# And it lies above what rounding makes of equal costs, otherwise there is nothing left to narrow.
LEAST_BEAM = 1e-3


class Tokens(NamedTuple):
    """States that paths reached, frame after frame; within a frame no epsilon leads to an earlier token.

    Attributes:
        first: Tokens first[t] .. first[t + 1] - 1 have t frames behind them, shape (T + 2,), int64.
        state: Of the graph, shape (N,), int32.
        cost: Of the best path there, scaled acoustic scores and graph, shape (N,), float64.
        cutoff: Tokens that cost less go on to the next frame, shape (T,), float64.
        complete: Whether the search came to the end: not where there were too many tokens, or none.
    """

    first: np.ndarray
    state: np.ndarray
    cost: np.ndarray
    cutoff: np.ndarray
    complete: bool


class TokenArcs(NamedTuple):
    """Arcs between tokens, ordered by source.

    Attributes:
        source, target: Tokens, shape (A,), int64.
        arc: Number of the graph's arc; of an epsilon -1 less its number, shape (A,), int64.
        beam: Paths that cost this much more than the best were kept; less than asked for where arcs were too many.
        complete: Whether the arcs found room.
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
        graph: Where to.
        scores: Scaled log-likelihoods (T, K), float32.
        beam: Tokens that cost this much more than the best of their frame are dropped.
        max_active: States that go on to the next frame, at most.
        min_active: And at least, whatever the beam.
        max_tokens: The search stops where it would keep more.
    """
    frames, states = len(scores), len(graph.final)
    cost, next_cost = np.full(states, np.inf), np.full(states, np.inf)
    active, next_active = np.empty(states, np.int32), np.empty(states, np.int32)
    entered_by = np.full(states, -1, np.int32)  # state that an epsilon comes from on the best path; -1: no epsilon
    kept_at = np.full(states, -1, np.int32)  # last frame at which a state was kept
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
            # Negative costs exist: the token before an epsilon can be dearer than the one behind it.
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
        # The best token first: its successors tell early what the others' need not be stored.
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
        graph: As searched.
        scores: As searched, (T, K).
        tokens: Of a complete search.
        ends: Cost of ending in each token of the last frame, infinite where a path cannot end.
        beam: The lattice beam.
        max_arcs: Arcs at most; where there are more, the beam is narrowed to the better half of them.
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
    """Pass the tokens of a frame along epsilons, level after level; returns how many states are active then."""
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
    """Cost below which tokens go on, and the beam that the next frame starts with (FasterDecoder::GetCutoff)."""
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
    # The best goes on even where more than max_active are as good.
    return max(cutoff, np.nextafter(best, np.inf)), width


@compiled
def smallest(values: np.ndarray, rank: int) -> float:
    """The value of a rank, 0 the smallest (C. Hoare's Find, 1961). np.partition takes numba seconds to compile."""
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
    found: float = values[rank]
    return found


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
    """The arrays with room for twice what is needed."""
    more_state, more_cost = np.empty(2 * needed, np.int32), np.empty(2 * needed)
    for token in range(len(state)):
        more_state[token], more_cost[token] = state[token], cost[token]
    return more_state, more_cost
