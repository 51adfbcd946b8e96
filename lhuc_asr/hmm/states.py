"""Emitting states of the phones' hidden Markov models, and their self-loop probabilities."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lhuc_asr.base.errors import AlignmentError
from lhuc_asr.lang.phones import PhoneSet

SPEECH_STATES = 3
SILENCE_STATES = 5
# Before anything was aligned: a state lasts 1 / (1 - 0.75) = 4 frames, a phone 120 ms.
INITIAL_SELF_LOOP = 0.75
# A state that was never or always left in training must still be able to do both.
SELF_LOOP_RANGE = (0.02, 0.98)

# What to do about a topology's file that cannot be read, for messages.
REMEDY = "delete its folder and run again"


class HmmState(NamedTuple):
    """An emitting state.

    Attributes:
        pdf: Number of its pdf, 0 .. K-1.
        self_loop: Probability of staying in the state for another frame.
    """

    pdf: int
    self_loop: float


def state_count(phone: str, phones: PhoneSet) -> int:
    """Number of emitting states of a phone."""
    return SILENCE_STATES if phone in phones.silence else SPEECH_STATES


def smoothed_self_loops(stays: np.ndarray, visits: np.ndarray) -> np.ndarray:
    """Self-loop probabilities from counts, smoothed by one pseudo-visit and kept within ``SELF_LOOP_RANGE``.

    Args:
        stays: Frames of each pdf that the same state follows, shape (K,).
        visits: Frames of each pdf, shape (K,).

    Returns:
        Shape (K,), float64.

    Raises:
        AlignmentError: There are more stays than visits.
    """
    if np.any(stays > visits):
        pdf = int(np.argmax(stays > visits))
        raise AlignmentError(
            f"pdf {pdf}: a state was stayed in more often ({stays[pdf]:g} times) than it was visited "
            f"({visits[pdf]:g} times); count both in the same alignment"
        )
    return np.clip((stays + INITIAL_SELF_LOOP) / (visits + 1.0), *SELF_LOOP_RANGE)
