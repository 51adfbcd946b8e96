"""A heap for compiled loops: items in an array, the one of the least key first (J. Williams, 1964)."""

from __future__ import annotations

import numpy as np

from lhuc_asr.base.compiled import compiled


@compiled
def push(heap: np.ndarray, count: int, keys: np.ndarray, item: int) -> None:
    """Add an item.

    Args:
        heap: The items, with room for one more.
        count: Number of items so far.
        keys: Key of each item that is or was on the heap.
        item: The new item.
    """
    place = count
    while place > 0:
        above = (place - 1) // 2
        if keys[heap[above]] <= keys[item]:
            break
        heap[place] = heap[above]
        place = above
    heap[place] = item


@compiled
def pop(heap: np.ndarray, count: int, keys: np.ndarray) -> int:
    """Take the item of the least key off the heap; one of ``count`` items."""
    first: int = heap[0]
    item, place, left = heap[count - 1], 0, count - 1
    while 2 * place + 1 < left:
        below = 2 * place + 1
        if below + 1 < left and keys[heap[below + 1]] < keys[heap[below]]:
            below += 1
        if keys[item] <= keys[heap[below]]:
            break
        heap[place] = heap[below]
        place = below
    heap[place] = item
    return first
