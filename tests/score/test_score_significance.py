from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lhuc_asr.base.errors import ScoreError
from lhuc_asr.score.significance import compare, least_p, matched_pairs_p, ratio_interval, sign_flip_p
from lhuc_asr.score.wer import SpeakerScore, UtteranceScore, WerReport

Errors = dict[str, list[int]]


def report(errors: Errors, words: int = 10) -> WerReport:
    """``words`` reference words an utterance, of which so many are substituted."""
    return WerReport.of(
        UtteranceScore(f"{speaker}-{number}", speaker, words, count, 0, 0)
        for speaker, counts in errors.items()
        for number, count in enumerate(counts)
    )


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=9))
def test_p_is_the_share_of_all_assignments_of_signs(differences: list[int]) -> None:
    observed = abs(sum(differences))
    flips = list(itertools.product((1, -1), repeat=len(differences)))
    as_far = sum(abs(sum(s * d for s, d in zip(flip, differences, strict=True))) >= observed for flip in flips)
    assert sign_flip_p(np.array(differences)) == pytest.approx(as_far / len(flips))


def test_p_of_thousands_of_units_is_the_normal_distributions() -> None:
    differences = rng(1).integers(-5, 6, 3000) + (rng(2).random(3000) < 0.05)
    z = abs(differences.sum()) / math.sqrt((differences**2).sum())
    assert sign_flip_p(differences) == pytest.approx(2 * stats.norm.sf(z), rel=0.02)


@settings(max_examples=30)
@given(st.lists(st.integers(-200, 200), min_size=1, max_size=4))
def test_four_speakers_cannot_have_a_p_below_an_eighth(differences: list[int]) -> None:
    assert sign_flip_p(np.array(differences)) >= 0.125


def test_speakers_who_do_not_differ_do_not_lower_the_least_p() -> None:
    differences = np.array([-3, -2, 0, -4, 0, 0])
    assert least_p(differences) == sign_flip_p(differences) == 0.25
    assert least_p(np.zeros(5, int)) == sign_flip_p(np.zeros(5, int)) == 1.0


def test_a_difference_of_every_speaker_is_beyond_doubt() -> None:
    before = report({name: [4, 4, 4] for name in "abcdefgh"})
    after = report({name: [2, 2, 2] for name in "abcdefgh"})
    comparison = compare(before, after, rng())
    assert comparison.p_value == comparison.least_p == 2 / 2**8
    assert comparison.interval_relative == pytest.approx((-0.5, -0.5), abs=1e-6)
    assert (comparison.before, comparison.after, comparison.relative) == (0.4, 0.2, -0.5)
    assert (comparison.speakers_better, comparison.speakers_worse, comparison.speakers_equal) == (8, 0, 0)


def test_speakers_are_counted_by_the_sign_of_their_change() -> None:
    before = report({"a": [2, 2], "b": [2, 2], "c": [2, 2], "d": [2, 2]})
    after = report({"a": [1, 1], "b": [0, 3], "c": [3, 1], "d": [3, 3]})
    comparison = compare(before, after, rng())
    assert (comparison.speakers_better, comparison.speakers_worse, comparison.speakers_equal) == (2, 1, 1)


def test_a_gain_of_one_speaker_among_few_is_no_evidence() -> None:
    """Recordings alone would call this significant."""
    before = report({name: [4] * 20 for name in "abcd"})
    after = report({"a": [0] * 20, "b": [4] * 20, "c": [4] * 20, "d": [4] * 20})
    comparison = compare(before, after, rng())
    assert comparison.p_value == comparison.least_p == 1.0
    assert comparison.matched_pairs_p < 0.001


def test_of_one_speaker_the_recordings_are_the_units_and_it_is_said() -> None:
    before, after = {"a": [4] * 20}, {"a": [3] * 12 + [4] * 8}
    comparison = compare(report(before), report(after), rng())
    assert not comparison.over_speakers
    assert comparison.p_value == sign_flip_p(np.array([-1] * 12))
    two = {"a": before["a"][:10], "b": before["a"][10:]}
    assert compare(report(two), report(two), rng()).over_speakers


@pytest.mark.parametrize("units", [8, 40])
def test_the_interval_is_what_one_of_the_two_tests_does_not_reject(units: int) -> None:
    """Inside the interval one p is above 5 %, outside both are below: both tests anew, the flips on a new sample."""
    generator = rng(units)
    before = generator.integers(5, 30, units)
    after = generator.binomial(before, generator.uniform(0.5, 0.9, units))
    signs = rng(1).integers(0, 2, (40_000, units)) * 2 - 1

    def largest_p(ratio: float) -> float:
        differences = after - ratio * before
        flips = float(np.mean(np.abs(signs @ differences) >= abs(differences.sum()) - 1e-9))
        return max(flips, float(stats.ttest_1samp(differences, 0.0).pvalue))

    low, high = (1 + end for end in ratio_interval(before, after, rng()))
    assert largest_p(low - 0.02) < 0.05 < largest_p(low + 0.02)
    assert largest_p(high + 0.02) < 0.05 < largest_p(high - 0.02)


@pytest.mark.parametrize("gain", [0.05, 0.5])
@pytest.mark.parametrize("speakers", [10, 34, 84])
def test_the_interval_holds_the_truth_as_often_as_it_says(speakers: int, gain: float) -> None:
    """Voices with rates of their own, who lose some of their errors, each another share, and make a few others.

    800 trials at 95 % have a standard error of 0.8 %, and the truth is computed from 2 million speakers.
    """
    trials, generator = 800, rng(speakers)

    def voices(count: int) -> tuple[np.ndarray, np.ndarray]:
        words = generator.integers(30, 100, count)
        before = generator.poisson(words * generator.gamma(1.5, 0.06, count))
        kept = generator.binomial(before, generator.beta(20 * (1 - gain), 20 * gain, count))
        return before, kept + generator.poisson(0.003 * words)

    many_before, many_after = voices(2_000_000)
    truth = many_after.sum() / many_before.sum() - 1
    hits = 0
    for _ in range(trials):
        low, high = ratio_interval(*voices(speakers), generator)
        hits += low <= truth <= high
    assert 0.93 <= hits / trials <= 0.97


@pytest.mark.parametrize(("speakers", "least"), [(4, 0.0), (10, 0.0), (34, 0.03), (84, 0.03)])
def test_without_a_gain_five_percent_are_rejected_at_most(speakers: int, least: float) -> None:
    """A speaker's recordings share a rate, and the second pass errs as often as the first, in other places."""
    trials, generator, rejected = 2000, rng(4), 0
    for _ in range(trials):
        words = generator.integers(30, 100, speakers)
        rates = generator.gamma(1.0, 0.07, speakers)
        shared = generator.poisson(0.8 * words * rates)
        before, after = (shared + generator.poisson(0.2 * words * rates) for _ in range(2))
        rejected += sign_flip_p(after - before) < 0.05
    assert least <= rejected / trials <= 0.07


def test_matched_pairs_are_students_pairs_with_the_normal_distribution() -> None:
    differences = rng(5).integers(-2, 3, 400)
    t = stats.ttest_1samp(differences, 0.0).statistic
    assert matched_pairs_p(differences) == pytest.approx(2 * stats.norm.sf(abs(t)))
    assert matched_pairs_p(np.zeros(4, int)) == 1.0


def test_noisy_copies_of_a_recording_count_as_one() -> None:
    def noisy(errors: Errors, copies: int) -> WerReport:
        return WerReport.of(
            UtteranceScore(f"{speaker}-{number}.noise{copy}", speaker, 10, count, 0, 0, f"noise{copy}")
            for speaker, counts in errors.items()
            for number, count in enumerate(counts)
            for copy in range(copies)
        )

    before, after = {"a": [4, 5, 3, 6], "b": [4, 4, 2, 1]}, {"a": [3, 4, 4, 5], "b": [3, 4, 1, 1]}
    one, seven = (compare(noisy(before, copies), noisy(after, copies), rng()) for copies in (1, 7))
    assert seven.matched_pairs_p == pytest.approx(one.matched_pairs_p)
    assert seven.p_value == one.p_value


def test_the_same_comparison_in_any_order_of_utterances() -> None:
    before, after = ({name: [first, 3] for name in map(str, range(20))} for first in (5, 4))
    reordered = WerReport.of(reversed(report(after).utterances))
    assert compare(report(before), reordered, rng(5)) == compare(report(before), report(after), rng(5))


@settings(max_examples=30)
@given(
    st.dictionaries(
        st.sampled_from("abcdefg"),
        st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=4),
        min_size=1,
    )
)
def test_swapping_the_passes_turns_the_difference_round(errors: dict[str, list[tuple[int, int]]]) -> None:
    before = report({name: [old for old, _ in pairs] for name, pairs in errors.items()})
    after = report({name: [new for _, new in pairs] for name, pairs in errors.items()})
    forward, back = compare(before, after, rng()), compare(after, before, rng())
    assert forward.p_value == back.p_value
    assert forward.speakers_better == back.speakers_worse
    low, high = forward.interval_relative
    assert -1 <= low <= forward.relative <= high or math.isinf(forward.relative)
    # No change is outside the interval only where it is rejected, but for the rounding of the interval's ends.
    assert (low <= 1e-6 and high >= -1e-6) or forward.p_value < 0.05


def test_errors_out_of_nothing_are_an_infinite_increase_with_no_bound() -> None:
    comparison = compare(report({"a": [0, 0], "b": [0]}), report({"a": [1, 1], "b": [1]}), rng())
    assert comparison.relative == math.inf
    assert comparison.interval_relative == (-1.0, math.inf)


def test_few_speakers_have_no_interval() -> None:
    comparison = compare(report({n: [9] for n in "abcde"}), report({n: [1] for n in "abcde"}), rng())
    assert comparison.p_value == 0.0625
    assert comparison.interval_relative == (-1.0, math.inf)


def test_other_utterances_cannot_be_compared() -> None:
    with pytest.raises(ScoreError, match=r"2 utterances are in only one pass, such as 'a-1'; expected"):
        compare(report({"a": [1, 2, 3]}), report({"a": [1]}), rng())


def test_other_references_cannot_be_compared() -> None:
    with pytest.raises(ScoreError, match=r"'a-0': 10 words of speaker 'a' in the first pass, 9 words .* second"):
        compare(report({"a": [1, 2]}), report({"a": [1, 2]}, words=9), rng())


def test_one_recording_is_no_evidence() -> None:
    comparison = compare(report({"a": [4]}), report({"a": [0]}), rng())
    assert (comparison.p_value, comparison.matched_pairs_p, comparison.relative) == (1.0, 1.0, -1.0)
    assert comparison.interval_relative == (-1.0, math.inf)


def test_speakers_alone_cannot_be_compared() -> None:
    bare = WerReport({"a": SpeakerScore(1, 10)})
    with pytest.raises(ScoreError, match="gives speakers only"):
        compare(bare, bare, rng())
