"""Significance of a difference between two word error rates: the paired bootstrap over speakers and utterances.

Both passes recognised the same utterances, so pairs of errors are resampled (Bisani and Ney,
"Bootstrap estimates for confidence intervals in ASR performance evaluation", ICASSP 2004). Errors of one
speaker are correlated, above all after adaptation. A sample therefore draws as many speakers as there are, with
replacement, and then, for each drawn speaker, as many utterances as that speaker has, with replacement. The second
level makes intervals a little wide where speakers hardly differ; fewer than ten speakers make them too narrow, as in
any bootstrap. With one speaker only the utterances are drawn, and the result does not extend to other speakers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lhuc_asr.base.errors import ScoreError
from lhuc_asr.score.wer import UtteranceScore, WerReport

# The probability outside a 95 % interval, on each side.
TAIL = 0.025

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two passes over the same utterances; a negative difference means that the second is better.

    Attributes:
        before: WER of the first pass, a fraction.
        after: WER of the second pass.
        absolute: after - before.
        interval_absolute: 95 % interval of ``absolute``.
        relative: (after - before) / before; infinite where the first pass made no error and the second did.
        interval_relative: 95 % interval of ``relative``.
        p_value: Two-sided p-value: twice the smaller share of samples on one side of zero (+1 correction).
        share_improved: Share of the samples in which the second pass made fewer errors (Bisani and Ney's
            probability of improvement).
        speakers_better: Number of speakers with fewer errors in the second pass.
        speakers_worse: Number of speakers with more errors in the second pass.
        speakers_equal: Number of speakers with equally many errors in both passes.
        speakers_resampled: Whether speakers were drawn; False with one speaker, whose utterances alone were drawn.
    """

    before: float
    after: float
    absolute: float
    interval_absolute: Interval
    relative: float
    interval_relative: Interval
    p_value: float
    share_improved: float
    speakers_better: int
    speakers_worse: int
    speakers_equal: int
    speakers_resampled: bool


def compare(before: WerReport, after: WerReport, generator: np.random.Generator, samples: int = 10_000) -> Comparison:
    """Compare two passes by the paired bootstrap.

    Args:
        before: The first pass.
        after: The second pass, over the same utterances.
        generator: Draws the samples; the same state gives the same comparison.
        samples: Number of bootstrap samples; the p-value cannot fall below 2 / (samples + 1).

    Raises:
        ScoreError: The passes differ in their utterances, a report lacks utterance scores, or has only one utterance.
    """
    pairs = _paired(before, after)
    sums = _bootstrap_sums(pairs, generator, samples)  # (samples, 3)
    before_errors, after_errors, words = sums.T
    difference = after_errors - before_errors
    # A sample may contain no reference words; dividing by at least 1 keeps its rate finite.
    absolute = difference / np.maximum(words, 1)
    speaker_differences = [after.speakers[name].errors - score.errors for name, score in before.speakers.items()]
    return Comparison(
        before=before.wer,
        after=after.wer,
        absolute=after.wer - before.wer,
        interval_absolute=_interval(absolute),
        relative=float(_relative(np.array([before.errors]), np.array([after.errors]))[0]),
        interval_relative=_interval(_relative(before_errors, after_errors)),
        p_value=_p_value(difference),
        share_improved=float(np.mean(difference < 0)),
        speakers_better=sum(change < 0 for change in speaker_differences),
        speakers_worse=sum(change > 0 for change in speaker_differences),
        speakers_equal=sum(change == 0 for change in speaker_differences),
        speakers_resampled=len(pairs) > 1,
    )


def _paired(before: WerReport, after: WerReport) -> list[NDArray[np.int64]]:
    """Errors before, errors after, and words of each speaker's utterances: (utterances, 3)."""
    first = {score.id: score for score in before.scored_utterances()}
    second = {score.id: score for score in after.scored_utterances()}
    odd = sorted(first.keys() ^ second.keys())
    if odd:
        count = f"{len(odd)} utterances are" if len(odd) > 1 else "1 utterance is"
        raise ScoreError(f"{count} in only one pass, such as {odd[0]!r}; expected two passes over the same utterances")
    if len(first) == 1:
        raise ScoreError(f"{next(iter(first))!r} is the only utterance; the bootstrap needs at least two")
    rows: dict[str, list[tuple[int, int, int]]] = {speaker: [] for speaker in sorted(before.speakers)}
    for id, score in first.items():
        other = second[id]
        if (score.speaker, score.words) != (other.speaker, other.words):
            raise ScoreError(
                f"utterance {id!r}: {_described(score)} in the first pass, {_described(other)} in the "
                "second; expected both to be scored against the same references"
            )
        rows[score.speaker].append((score.errors, other.errors, score.words))
    return [np.array(utterances, dtype=np.int64) for utterances in rows.values()]


def _bootstrap_sums(pairs: list[NDArray[np.int64]], generator: np.random.Generator, samples: int) -> NDArray[np.int64]:
    """Errors before, errors after and words of every bootstrap sample: (samples, 3).

    The number of times that each of S speakers is drawn is multinomial. A speaker with m utterances who is drawn c
    times gives c * m utterances, each equally likely, which is multinomial again. Utterances with the same counts are
    one outcome, so that memory is samples times distinct outcomes.
    """
    speakers = len(pairs)
    drawn = generator.multinomial(speakers, np.full(speakers, 1 / speakers), size=samples)  # (samples, S)
    sums = np.zeros((samples, 3), dtype=np.int64)
    for utterances, times in zip(pairs, drawn.T, strict=True):
        outcomes, counts = np.unique(utterances, axis=0, return_counts=True)
        # (samples, outcomes)
        draws = generator.multinomial(times * len(utterances), counts / len(utterances))
        sums += draws @ outcomes
    return sums


def _relative(before: NDArray[np.int64], after: NDArray[np.int64]) -> NDArray[np.float64]:
    """(after - before) / before; without errors before it is zero where there are none after, else infinite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(before == after, 0.0, (after - before) / before)


def _interval(values: NDArray[np.float64]) -> Interval:
    """The 95 % percentile interval.

    Its ends are order statistics of the bootstrap samples, without interpolation, which would turn inf into NaN.
    """
    low, high = np.quantile(values, [TAIL, 1 - TAIL], method="inverted_cdf")
    return float(low), float(high)


def _p_value(difference: NDArray[np.int64]) -> float:
    """Twice the smaller share of samples on one side of zero.

    The observed data count as one extra sample, so that p is never 0 (Davison and Hinkley, Bootstrap Methods and their
    Application, 1997, section 4.2).
    """
    smaller = min(np.count_nonzero(difference <= 0), np.count_nonzero(difference >= 0))
    return min(1.0, 2 * (int(smaller) + 1) / (len(difference) + 1))


def _described(score: UtteranceScore) -> str:
    return f"{score.words} words of speaker {score.speaker!r}"
