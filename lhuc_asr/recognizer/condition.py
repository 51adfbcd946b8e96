"""The condition of recordings: how loud they are, whether they are clipped, how much of them is speech.

What is wrong with a person's recordings is told before they are adapted to, in words. The levels are those that pauses
are found by, so nothing is read twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from lhuc_asr.audio.levels import Levels
from lhuc_asr.recognizer.pauses import LOUD_FRACTION, speech_share

# AN4's quietest recording reaches -33 dB. What stays below -50 dB was hardly meant for the microphone.
QUIET_DECIBELS = -50.0
# A recording that just reaches full scale has a few samples there.
CLIPPED_SHARE = 1e-3
LEAST_SPEECH = 0.15


@dataclass(frozen=True)
class Condition:
    """The condition of a recording.

    Attributes:
        decibels: Level of its loud parts: the mean square of 10 ms that 5 % exceed, decibels of full scale.
        clipped: Share of the samples at full scale, 0 to 1.
        speech: Share of the time with speech or other sound that changes, 0 to 1.
    """

    decibels: float
    clipped: float
    speech: float

    @classmethod
    def of(cls, level: Levels) -> Condition:
        """The condition of the recording that levels are of."""
        loud = float(np.quantile(level.power, LOUD_FRACTION))
        # The quietest that 24 bits hold.
        return cls(10.0 * float(np.log10(max(loud, 1e-14))), level.clipped, speech_share(level.power))


# What may be wrong: the test, the words for one recording, and what to do.
FAULTS: tuple[tuple[Callable[[Condition], bool], Callable[[Condition], str], str], ...] = (
    (
        lambda each: each.clipped > CLIPPED_SHARE,
        lambda each: f"clipped, {100 * each.clipped:.1f} % of the samples at full scale",
        "record again with less gain",
    ),
    (
        lambda each: each.decibels < QUIET_DECIBELS,
        lambda each: f"very quiet, {each.decibels:.0f} dB of full scale",
        "check which microphone was on, and its gain",
    ),
    (
        lambda each: each.speech < LEAST_SPEECH,
        lambda each: f"mostly silence, {100 * each.speech:.0f} % speech",
        "check that it is the right recording and channel",
    ),
)


def faults(conditions: Mapping[str, Condition]) -> list[str]:
    """What is wrong with recordings, in words: a line for each kind of fault, which names one recording that has it.

    Args:
        conditions: Condition of each recording, by its title.

    Example:
        >>> faults({"a.wav": Condition(-20.0, 0.04, 0.6), "b.wav": Condition(-21.0, 0.0, 0.6)})
        ['a.wav: clipped, 4.0 % of the samples at full scale; record again with less gain']
    """
    lines = []
    for is_faulty, words, remedy in FAULTS:
        faulty = {title: condition for title, condition in conditions.items() if is_faulty(condition)}
        if faulty:
            title, condition = next(iter(faulty.items()))
            others = len(faulty) - 1
            more = f" ({others} more of {len(conditions)} recordings likewise)" if others else ""
            lines.append(f"{title}: {words(condition)}{more}; {remedy}")
    return lines
