"""Significance of a difference between two word error rates: sign flips over speakers, and matched pairs.

Both passes recognised the same utterances. The errors of one speaker are correlated, above all after adaptation, so
speakers are the units of the test and of the interval. With one speaker the units are that speaker's recordings, and
the result does not extend to other speakers.

    p           Share of all assignments of signs to the speakers' differences whose sum is at least as far from zero as
                the observed one, two-sided (E. Pitman, "Significance tests which may be applied to samples from any
                populations", JRSS supplement, 1937). It is exact: the sum's distribution is a convolution of integers.
    interval    All ratios rho of the two error rates for which the differences e_s = after_s - rho before_s may have
                the mean 0. A ratio is left out if the sign flips and Student's test (E. Fieller, "Some problems in
                interval estimation", JRSS B, 1954) both reject it at 5 %, so that "no change" is outside only where p
                is below 0.05. The flips alone reject too much where few speakers differ at all; docs/decisions/0017
                has the coverage.
    matched     The matched-pairs test over recordings that the field reports (L. Gillick and S. Cox, "Some statistical
    pairs       issues in the comparison of speech recognition algorithms", ICASSP 1989), with a recording as a segment.
                It takes recordings of one speaker for independent, so its p is too small where they are not.

With m speakers whose errors differ, p cannot be below 2^(1 - m): 0.125 with four. With fewer than six speakers the
interval has no ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import special

from lhuc_asr.audio.utterance import spoken_id
from lhuc_asr.base.errors import ScoreError
from lhuc_asr.score.wer import UtteranceScore, WerReport

# The probability outside an interval, on both sides together.
LEVEL = 0.05
# With at most so many units all assignments of signs are tried for the interval, with more a sample of them.
MOST_ENUMERATED = 13
FLIPS = 10_000
# A ratio of error rates beyond this counts as unbounded.
LARGEST_RATIO = 1e4
BISECTIONS = 30

Interval = tuple[float, float]
Key = TypeVar("Key", bound=Hashable)
Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two passes over the same utterances; a negative change means that the second is better.

    Attributes:
        before: WER of the first pass, a fraction.
        after: WER of the second pass.
        relative: (after - before) / before; infinite where the first pass made no error and the second did.
        interval_relative: 95 % interval of ``relative``, within -1 and infinity.
        p_value: Two-sided p of the sign flips.
        least_p: The least p that the number of units whose errors differ allows.
        matched_pairs_p: Two-sided p of the matched-pairs test over recordings.
        speakers_better: Number of speakers with fewer errors in the second pass.
        speakers_worse: Number of speakers with more errors in the second pass.
        speakers_equal: Number of speakers with equally many errors in both passes.
        over_speakers: Whether speakers are the units; False with one speaker, whose recordings are.
    """

    before: float
    after: float
    relative: float
    interval_relative: Interval
    p_value: float
    least_p: float
    matched_pairs_p: float
    speakers_better: int
    speakers_worse: int
    speakers_equal: int
    over_speakers: bool


def compare(before: WerReport, after: WerReport, generator: np.random.Generator) -> Comparison:
    """Compare two passes.

    Args:
        before: The first pass.
        after: The second pass, over the same utterances.
        generator: Draws assignments of signs for the interval, where there are too many to try all.

    Raises:
        ScoreError: The passes differ in their utterances, or a report lacks utterance scores.
    """
    recordings = _paired(before, after)
    speakers = _summed((speaker, errors) for (speaker, _), errors in recordings.items())
    over_speakers = len(speakers) > 1
    first, second = np.array(list((speakers if over_speakers else recordings).values()), dtype=np.int64).T
    changes = [new - old for old, new in speakers.values()]
    return Comparison(
        before=before.wer,
        after=after.wer,
        relative=_relative(before.errors, after.errors),
        interval_relative=ratio_interval(first, second, generator),
        p_value=sign_flip_p(second - first),
        least_p=least_p(second - first),
        matched_pairs_p=matched_pairs_p(np.array([new - old for old, new in recordings.values()])),
        speakers_better=sum(change < 0 for change in changes),
        speakers_worse=sum(change > 0 for change in changes),
        speakers_equal=sum(change == 0 for change in changes),
        over_speakers=over_speakers,
    )


def sign_flip_p(differences: Counts) -> float:
    """Two-sided p of the sum of differences under random signs, exact.

    Args:
        differences: Difference of each unit, shape (N,), integers.

    Example:
        >>> sign_flip_p(np.array([-1, -2, -3, -1]))
        0.125
    """
    sizes = np.abs(differences[differences != 0])
    total = int(sizes.sum())
    # Probability of each sum, from -total to total.
    chances = np.zeros(2 * total + 1)
    chances[total] = 1.0
    for size in sizes.tolist():
        chances = (np.roll(chances, size) + np.roll(chances, -size)) / 2
    observed = abs(int(differences.sum()))
    as_far = np.abs(np.arange(-total, total + 1)) >= observed
    return min(1.0, max(float(chances[as_far].sum()), least_p(differences)))


def least_p(differences: Counts) -> float:
    """The least two-sided p that sign flips can give with this number of units that differ; 1 if none does."""
    return min(1.0, 2.0 ** (1 - int(np.count_nonzero(differences))))


def ratio_interval(before: Counts, after: Counts, generator: np.random.Generator) -> Interval:
    """95 % interval of the relative change of errors: what sign flips or Student's test do not reject.

    Args:
        before: Errors of each unit in the first pass, shape (N,).
        after: Errors of each unit in the second pass, shape (N,).
        generator: Draws the assignments of signs, if N is above ``MOST_ENUMERATED``.

    Returns:
        Low and high end of (after - before) / before, between -1 and infinity.
    """
    if not before.any():
        return -1.0, math.inf
    units = len(before)
    limit = student_quantile(units)
    signs = _signs(units, generator)
    flipped_before, flipped_after = signs @ before.astype(float), signs @ after.astype(float)  # (flips,)
    observed = float(after.sum() / before.sum())

    def rejected(ratio: float) -> bool:
        differences = after - ratio * before
        distance, deviation = abs(float(differences.sum())), float(differences.std(ddof=1)) if units > 1 else math.inf
        if distance <= limit * deviation * math.sqrt(units):
            return False
        # The sums of one assignment, added in another order, may differ in the last digit.
        as_far = np.abs(flipped_after - ratio * flipped_before) >= distance * (1 - 1e-12) - 1e-9
        return float(np.mean(as_far)) < LEVEL

    low = _edge(observed, 0.0, rejected) if rejected(0.0) else 0.0
    outside = observed + 1.0
    while outside < LARGEST_RATIO and not rejected(outside):
        outside *= 2.0
    high = _edge(observed, outside, rejected) if outside < LARGEST_RATIO else math.inf
    return low - 1.0, high - 1.0


def student_quantile(units: int) -> float:
    """Half-width of a 95 % interval of the mean of N units, in standard errors (Student's t, N - 1 degrees)."""
    # scipy.stats has it too, and costs every command that prints a table a second to import.
    return float(special.stdtrit(max(units - 1, 1), 1 - LEVEL / 2))


def matched_pairs_p(differences: Counts) -> float:
    """Two-sided p of the mean difference of segments, by the normal distribution (Gillick and Cox, equation 11 ff.).

    Args:
        differences: Difference in errors of each segment, shape (N,).

    Returns:
        p; 1 where all differences are zero, or where there is one segment.
    """
    if len(differences) < 2 or not differences.any():
        return 1.0
    mean, deviation = float(differences.mean()), float(differences.std(ddof=1))
    if deviation == 0.0:
        return 0.0
    return math.erfc(abs(mean) * math.sqrt(len(differences) / 2) / deviation)


def _edge(inside: float, outside: float, rejected: Callable[[float], bool]) -> float:
    """The last ratio, on the way from one that is not rejected to one that is, that is not."""
    for _ in range(BISECTIONS):
        middle = (inside + outside) / 2
        if rejected(middle):
            outside = middle
        else:
            inside = middle
    return inside


def _signs(units: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Assignments of signs to units, shape (flips, units); the observed one, all +1, is among them."""
    if units <= MOST_ENUMERATED:
        bits = (np.arange(2**units)[:, None] >> np.arange(units)) & 1
    else:
        bits = generator.integers(0, 2, (FLIPS, units), dtype=np.int8)
        bits[0] = 0
    return np.asarray(1.0 - 2.0 * bits, np.float64)


def _paired(before: WerReport, after: WerReport) -> Mapping[tuple[str, str], tuple[int, int]]:
    """Errors of each speaker's recordings before and after; the noisy copies of one recording count as one."""
    first = {score.id: score for score in before.scored_utterances()}
    second = {score.id: score for score in after.scored_utterances()}
    odd = sorted(first.keys() ^ second.keys())
    if odd:
        count = f"{len(odd)} utterances are" if len(odd) > 1 else "1 utterance is"
        raise ScoreError(f"{count} in only one pass, such as {odd[0]!r}; expected two passes over the same utterances")
    for id, score in first.items():
        other = second[id]
        if (score.speaker, score.words) != (other.speaker, other.words):
            raise ScoreError(
                f"utterance {id!r}: {_described(score)} in the first pass, {_described(other)} in the "
                "second; expected both to be scored against the same references"
            )
    return _summed(
        ((score.speaker, spoken_id(id, score.environment)), (score.errors, second[id].errors))
        for id, score in sorted(first.items())
    )


def _summed(rows: Iterable[tuple[Key, tuple[int, int]]]) -> dict[Key, tuple[int, int]]:
    """Pairs of errors added up by key."""
    sums: dict[Key, tuple[int, int]] = {}
    for key, (first, second) in rows:
        old = sums.get(key, (0, 0))
        sums[key] = old[0] + first, old[1] + second
    return sums


def _relative(before: int, after: int) -> float:
    """(after - before) / before; without errors before it is zero where there are none after, else infinite."""
    if before == 0:
        return math.inf if after else 0.0
    return (after - before) / before


def _described(score: UtteranceScore) -> str:
    return f"{score.words} words of speaker {score.speaker!r}"
