"""Where long recordings are cut: at their longest pauses, into pieces as long as the utterances that a model knows.

A pause is a stretch whose level is nearer to the recording's floor than to its loud parts. The longest pause is the
likeliest end of a sentence, so cuts are made at pauses from the longest to the shortest, as long as a piece is too
long; where a piece without a pause is, at its quietest moment. Levels are mean squares, of full scale 1, over 10 ms.
"""

from __future__ import annotations

from bisect import bisect, insort
from itertools import pairwise

import numpy as np

from lhuc_asr.base.units import FRAME_SHIFT_SECONDS

# Levels are averaged over 50 ms: a plosive's closure is no pause, and a click no speech.
SMOOTHED_FRAMES = 5
# Shares of a recording's frames that are quieter than its floor, and than its loud parts.
FLOOR_SHARE, LOUD_SHARE = 0.10, 0.95
# Of the way from floor to loud parts, in decibels: what is below is a pause.
PAUSE_SHARE = 0.25
SHORTEST_PIECE_SECONDS = 0.5
# Quieter than -60 dB of full scale is silence, and so is what never rises 6 dB above a long recording's floor: noise
# alone does not in 50 ms, and speech does by far more. AN4's quietest recording reaches -33 dB.
SILENCE_LEVEL, SPEECH_OVER_FLOOR = 1e-6, 4.0


def cut(level: np.ndarray, longest_seconds: float) -> list[tuple[int, int]]:
    """Cut a recording into pieces.

    Args:
        level: Mean squares of 10 ms each, shape (N,).
        longest_seconds: Of a piece.

    Returns:
        First frame of each piece and the one behind its last; together they are the whole recording.
    """
    level = _smoothed(level)
    longest, shortest = (round(seconds / FRAME_SHIFT_SECONDS) for seconds in (longest_seconds, SHORTEST_PIECE_SECONDS))
    borders = [0, len(level)]
    for begin, end in _pauses(level):
        middle = (begin + end) // 2
        after = bisect(borders, middle)
        low, high = borders[after - 1], borders[after]
        if high - low > longest and min(middle - low, high - middle) >= shortest:
            borders.insert(after, middle)
    for low, high in list(pairwise(borders)):
        while high - low > longest:
            # The last two pieces share what is left, so that none is tiny.
            reach = min(longest, high - low - shortest)
            low = low + reach // 2 + int(np.argmin(level[low + reach // 2 : low + reach]))
            insort(borders, low)
    return list(pairwise(borders))


def has_speech(level: np.ndarray, pieces: list[tuple[int, int]]) -> list[bool]:
    """Whether each piece of a recording is more than silence and steady noise.

    Args:
        level: Mean squares of 10 ms each, shape (N,).
        pieces: As from ``cut``.
    """
    level = _smoothed(level)
    # A short recording may be one vowel, as loud throughout.
    floor = float(np.quantile(level, FLOOR_SHARE)) if len(pieces) > 1 else 0.0
    least = max(SILENCE_LEVEL, SPEECH_OVER_FLOOR * floor)
    return [bool(level[first:end].max() > least) for first, end in pieces]


def _pauses(level: np.ndarray) -> list[tuple[int, int]]:
    """First frame and the one behind the last of each pause, the longest first."""
    decibels = 10.0 * np.log10(np.maximum(level, SILENCE_LEVEL))
    floor, loud = np.quantile(decibels, (FLOOR_SHARE, LOUD_SHARE))
    quiet = decibels < floor + PAUSE_SHARE * (loud - floor)
    changes = np.flatnonzero(np.diff(np.concatenate([[False], quiet, [False]])))
    runs = [(int(begin), int(end)) for begin, end in changes.reshape(-1, 2)]
    return sorted(runs, key=lambda run: run[0] - run[1])


def _smoothed(level: np.ndarray) -> np.ndarray:
    window, before = np.ones(SMOOTHED_FRAMES), SMOOTHED_FRAMES // 2
    total, frames = (
        np.convolve(values, window)[before : before + len(level)] for values in (level, np.ones(len(level)))
    )
    smoothed: np.ndarray = total / frames  # at the edges over as many frames as there are
    return smoothed
