"""Cutting long recordings at their longest pauses, into pieces no longer than the utterances that a model knows.

A pause is a stretch whose level is nearer to the recording's floor than to the loud parts. The longest pause is the
likeliest end of a sentence. So pieces that are too long are cut at pauses, from the longest pause to the shortest, and
a piece without a pause is cut at its quietest moment. Levels are mean squares over 10 ms, 1 being full scale.

Pauses may be known in place of that, from a detector of voice activity: they are then what lies between its parts.
"""

from __future__ import annotations

from bisect import bisect, insort
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from lhuc_asr.base.units import FRAME_SHIFT_SECONDS

# Levels are averaged over 50 ms: the closure of a plosive is not a pause, and a click is not speech.
SMOOTHED_FRAMES = 5
# Fractions of a recording's frames that are quieter than the floor, and that are quieter than the loud parts.
FLOOR_FRACTION, LOUD_FRACTION = 0.10, 0.95
# Levels below this fraction of the way from the floor to the loud parts, in decibels, are a pause.
PAUSE_FRACTION = 0.25
SHORTEST_PIECE_SECONDS = 0.5
LEAST_LONGEST_FRAMES = 20
# A piece is silence if it stays below -60 dB of full scale; AN4's quietest recording reaches -33 dB. A piece of a long
# recording is also silence if it stays within 6 dB of the floor: noise averaged over 50 ms does, speech never does.
SILENCE_LEVEL, SPEECH_OVER_FLOOR = 1e-6, 4.0
# Recordings of 24 bits or of floats may be quieter than that and yet clear: silence is what stays 30 dB below their
# loudest part, or below -80 dB, a little more than the noise of 16 bits.
BELOW_LOUDEST, QUIETEST_SPEECH = 1e-3, 1e-8
# What is within 15 dB of the loudest part is not silence, however steady it is: a recording may be one vowel.
LOUD_ENOUGH = 10**-1.5


def cut(
    level: np.ndarray, longest_seconds: float, pauses: Sequence[tuple[int, int]] | None = None
) -> list[tuple[int, int]]:
    """Cut a recording into pieces.

    Args:
        level: Mean square of each 10 ms, shape (N,).
        longest_seconds: Maximum length of a piece, in seconds.
        pauses: Each pause's first frame and the frame after its last; None finds them by the levels.

    Returns:
        Each piece's first frame and the frame after its last; together the pieces are the whole recording.
    """
    level = _smoothed(level)
    longest, shortest = (round(seconds / FRAME_SHIFT_SECONDS) for seconds in (longest_seconds, SHORTEST_PIECE_SECONDS))
    # A model of single short words: a piece has room for a cut and for a window of features on either side of it.
    longest = max(longest, LEAST_LONGEST_FRAMES)
    shortest = min(shortest, longest // 2)
    borders = [0, len(level)]
    pauses = _pauses(level) if pauses is None else pauses
    for begin, end in sorted(pauses, key=lambda pause: pause[0] - pause[1]):
        middle = (begin + end) // 2
        after = bisect(borders, middle)
        low, high = borders[after - 1], borders[after]
        if high - low > longest and min(middle - low, high - middle) >= shortest:
            borders.insert(after, middle)
    for low, high in list(pairwise(borders)):
        while high - low > longest:
            # The last two pieces share the rest, so that neither is tiny.
            reach = min(longest, high - low - shortest)
            low = low + reach // 2 + int(np.argmin(level[low + reach // 2 : low + reach]))
            insort(borders, low)
    return list(pairwise(borders))


def has_speech(level: np.ndarray, pieces: list[tuple[int, int]]) -> list[bool]:
    """Whether each piece of a recording contains more than silence and steady noise.

    Args:
        level: Mean square of each 10 ms, shape (N,).
        pieces: Pieces of the recording, as ``cut`` returns them.
    """
    level = _smoothed(level)
    # A short recording may be one vowel, equally loud throughout; one that is so quiet may be an empty room.
    may_be_flat = len(pieces) == 1 and level.max() > SILENCE_LEVEL
    floor = 0.0 if may_be_flat else float(np.quantile(level, FLOOR_FRACTION))
    least = max(_silence(level), SPEECH_OVER_FLOOR * floor)
    return [bool(level[first:end].max() > least) for first, end in pieces]


def speech_share(level: np.ndarray) -> float:
    """Share of a recording's time with speech or other sound that changes, 0 to 1.

    Args:
        level: Mean square of each 10 ms, shape (N,).
    """
    level = _smoothed(level)
    floor = SPEECH_OVER_FLOOR * float(np.quantile(level, FLOOR_FRACTION))
    least = max(_silence(level), min(floor, LOUD_ENOUGH * float(level.max())))
    return float((level > least).mean())


def spoken_part(level: np.ndarray) -> tuple[int, int]:
    """The part of a recording between the pauses at its ends: its first frame and the frame after its last.

    Args:
        level: Mean square of each 10 ms, shape (N,).

    Example:
        >>> spoken_part(np.repeat([1e-6, 1e-2, 1e-6, 1e-2, 1e-6], 50))
        (48, 202)
    """
    pauses = _pauses(_smoothed(level))
    first = pauses[0][1] if pauses and pauses[0][0] == 0 else 0
    end = pauses[-1][0] if pauses and pauses[-1][1] == len(level) else len(level)
    return (first, end) if first < end else (0, len(level))


def between(parts: Sequence[tuple[int, int]], frames: int) -> list[tuple[int, int]]:
    """The pauses between parts with speech, before the first one and after the last.

    Args:
        parts: Each part's first frame and the frame after its last, in order.
        frames: Number of frames of the recording.

    Example:
        >>> between([(10, 20), (30, 50)], 50)
        [(0, 10), (20, 30)]
    """
    ends = [0, *(end for _, end in parts)]
    starts = [*(first for first, _ in parts), frames]
    return [(end, start) for end, start in zip(ends, starts, strict=True) if end < start]


def holds(parts: Sequence[tuple[int, int]], pieces: Sequence[tuple[int, int]]) -> list[bool]:
    """Whether each piece of a recording holds some of the parts with speech.

    Args:
        parts: Each part's first frame and the frame after its last, in order.
        pieces: Pieces of the recording, as ``cut`` returns them.
    """
    starts = [start for start, _ in parts]
    before = [bisect(starts, end - 1) for _, end in pieces]
    return [count > 0 and parts[count - 1][1] > first for count, (first, _) in zip(before, pieces, strict=True)]


def runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """Each stretch of true values: its first place, and the place after its last.

    Example:
        >>> runs(np.array([True, False, True, True]))
        [(0, 1), (2, 4)]
    """
    changes = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]])))
    return [(int(begin), int(end)) for begin, end in changes.reshape(-1, 2)]


def quietest(level: np.ndarray) -> int:
    """The place of the lowest level, averaged over its neighbours, among levels of shape (N,)."""
    return int(np.argmin(_smoothed(level)))


def _pauses(level: np.ndarray) -> list[tuple[int, int]]:
    """Each pause's first frame and the frame after its last."""
    decibels = 10.0 * np.log10(np.maximum(level, _silence(level)))
    floor, loud = np.quantile(decibels, (FLOOR_FRACTION, LOUD_FRACTION))
    return runs(decibels < floor + PAUSE_FRACTION * (loud - floor))


def _silence(level: np.ndarray) -> float:
    """The mean square below which parts of a recording are silence."""
    return min(SILENCE_LEVEL, max(QUIETEST_SPEECH, BELOW_LOUDEST * float(level.max())))


def _smoothed(level: np.ndarray) -> np.ndarray:
    window, before = np.ones(SMOOTHED_FRAMES), SMOOTHED_FRAMES // 2
    total, frames = (
        np.convolve(values, window)[before : before + len(level)] for values in (level, np.ones(len(level)))
    )
    smoothed: np.ndarray = total / frames  # fewer frames at the edges
    return smoothed
