"""Sums and minima over the paths of acyclic graphs, compiled: forward, backward, and the costs to the end.

Arcs are ordered by source, and each leads to a higher node; node 0 is the start. The loops check nothing.
"""

from __future__ import annotations

import numpy as np

from lhuc_asr.base.compiled import compiled


@compiled
def forward_sums(source: np.ndarray, target: np.ndarray, log_weight: np.ndarray, nodes: int) -> np.ndarray:
    """Log of the sum of the weights of all paths from the start to each node, shape (N,), float64.

    Args:
        source, target: Nodes of each arc, shape (A,).
        log_weight: Log of the weight of each arc, shape (A,), float64.
        nodes: Number of nodes, N.
    """
    forward = np.full(nodes, -np.inf)
    forward[0] = 0.0
    for arc in range(len(source)):
        forward[target[arc]] = np.logaddexp(forward[target[arc]], forward[source[arc]] + log_weight[arc])
    return forward


@compiled
def backward_sums(source: np.ndarray, target: np.ndarray, log_weight: np.ndarray, final: np.ndarray) -> np.ndarray:
    """Log of the sum of the weights of all paths from each node to an end, shape (N,), float64.

    Args:
        source, target: Nodes of each arc, shape (A,).
        log_weight: Log of the weight of each arc, shape (A,), float64.
        final: Cost of ending in each node, infinite where paths cannot, shape (N,), float64.
    """
    backward = -final
    for arc in range(len(source) - 1, -1, -1):
        backward[source[arc]] = np.logaddexp(backward[source[arc]], backward[target[arc]] + log_weight[arc])
    return backward


@compiled
def costs_to_the_end(source: np.ndarray, target: np.ndarray, cost: np.ndarray, final: np.ndarray) -> np.ndarray:
    """Cost of the best path from each node to an end, infinite where none leads there, shape (N,), float64.

    Args:
        source, target: Nodes of each arc, shape (A,).
        cost: Cost of each arc, shape (A,), float64.
        final: Cost of ending in each node, infinite where paths cannot, shape (N,), float64.
    """
    rest = final.copy()
    for arc in range(len(source) - 1, -1, -1):
        rest[source[arc]] = min(rest[source[arc]], cost[arc] + rest[target[arc]])
    return rest
