import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lhuc_asr.base.errors import ScoreError
from lhuc_asr.score.significance import compare
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


def test_identical_passes_do_not_differ() -> None:
    same = report({"a": [1, 2, 0], "b": [3, 1]})
    comparison = compare(same, same, rng())
    assert comparison.p_value == 1.0
    assert comparison.interval_absolute == comparison.interval_relative == (0.0, 0.0)
    assert (comparison.absolute, comparison.relative, comparison.share_improved) == (0.0, 0.0, 0.0)
    assert comparison.speakers_equal == 2


def test_a_difference_in_every_utterance_is_beyond_doubt() -> None:
    before = report({name: [4, 4, 4] for name in "abcdefgh"})
    after = report({name: [2, 2, 2] for name in "abcdefgh"})
    comparison = compare(before, after, rng(), samples=999)
    # No sample can show anything but the halving, so the p-value is the least that 999 samples allow.
    assert comparison.p_value == 2 / 1000
    assert comparison.interval_absolute == pytest.approx((-0.2, -0.2))
    assert comparison.interval_relative == (-0.5, -0.5)
    assert (comparison.before, comparison.after, comparison.relative) == (0.4, 0.2, -0.5)
    assert comparison.share_improved == 1.0
    assert (comparison.speakers_better, comparison.speakers_worse, comparison.speakers_equal) == (8, 0, 0)


def test_noise_is_not_significant() -> None:
    # As many utterances gain an error as lose one.
    before, after = (
        report({name: [2, 3] * 5 for name in "abcd"}),
        report({name: [3, 2] * 5 for name in "abcd"}),
    )
    comparison = compare(before, after, rng())
    assert comparison.p_value > 0.9
    assert comparison.interval_relative[0] < 0 < comparison.interval_relative[1]


def test_speakers_are_counted_by_the_sign_of_their_change() -> None:
    before = report({"a": [2, 2], "b": [2, 2], "c": [2, 2], "d": [2, 2]})
    after = report({"a": [1, 1], "b": [0, 3], "c": [3, 1], "d": [3, 3]})
    comparison = compare(before, after, rng(), samples=10)
    assert (comparison.speakers_better, comparison.speakers_worse, comparison.speakers_equal) == (2, 1, 1)


def test_a_gain_of_one_speaker_among_few_is_uncertain() -> None:
    """Utterances alone would call this significant; that it is one speaker's makes it luck of the draw."""
    before = report({name: [4] * 20 for name in "abcd"})
    after = report({"a": [0] * 20, "b": [4] * 20, "c": [4] * 20, "d": [4] * 20})
    assert compare(before, after, rng()).p_value > 0.2
    alone_before, alone_after = report({"all": [4] * 80}), report({"all": [0] * 20 + [4] * 60})
    assert compare(alone_before, alone_after, rng()).p_value < 0.001


def test_of_one_speaker_only_utterances_are_drawn_and_it_is_said() -> None:
    comparison = compare(report({"a": [4, 5, 6]}), report({"a": [3, 5, 5]}), rng())
    assert not comparison.speakers_resampled
    assert comparison.interval_absolute[0] < comparison.absolute < comparison.interval_absolute[1]
    assert compare(report({"a": [1], "b": [1]}), report({"a": [1], "b": [1]}), rng()).speakers_resampled


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"a": [4, 1, 3, 2], "b": [2, 6], "c": [5, 0, 1]}, {"a": [3, 1, 2, 2], "b": [3, 4], "c": [4, 0, 1]}),
        ({"only": [4, 1, 3, 2, 5, 6]}, {"only": [3, 1, 2, 2, 6, 4]}),
    ],
)
def test_agrees_with_the_bootstrap_written_as_a_loop(before: Errors, after: Errors) -> None:
    samples, generator = 20_000, rng(1)
    names = list(before)
    differences, relatives = [], []
    for _ in range(samples):
        old = new = count = 0
        for name in generator.choice(names, size=len(names)):
            drawn = generator.integers(len(before[name]), size=len(before[name]))
            old += sum(before[name][index] for index in drawn)
            new += sum(after[name][index] for index in drawn)
            count += 10 * len(drawn)
        differences.append((new - old) / count)
        relatives.append((new - old) / old)
    comparison = compare(report(before), report(after), rng(2), samples)
    expected_absolute = np.quantile(differences, [0.025, 0.975])
    expected_relative = np.quantile(relatives, [0.025, 0.975])
    array = np.array(differences)
    # Two runs of 20,000 samples: shares agree within 4 standard errors, 4 * sqrt(2 * 0.25 / 20000) = 0.02.
    assert comparison.share_improved == pytest.approx(np.mean(array < 0), abs=0.02)
    expected_p = 2 * min(np.mean(array <= 0), np.mean(array >= 0))
    assert comparison.p_value == pytest.approx(expected_p, abs=0.02)
    assert comparison.interval_absolute == pytest.approx(tuple(expected_absolute), abs=0.006)
    assert comparison.interval_relative == pytest.approx(tuple(expected_relative), abs=0.02)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """Simulated voices whose errors fall by a fifth on average, by more or less for each of them."""
    generator, trials, speakers, utterances, words = rng(3), 200, 20, 8, 20
    hits = 0
    for _ in range(trials):
        rates = 0.2 * np.exp(0.3 * generator.standard_normal(speakers))
        # A log-normal factor with mean 0.8, independent of the rate: so the expected relative change is -0.2.
        factors = 0.8 * np.exp(0.2 * generator.standard_normal(speakers) - 0.02)
        old = generator.binomial(words, np.minimum(rates, 1), size=(utterances, speakers)).T
        new = generator.binomial(words, np.minimum(rates * factors, 1), size=(utterances, speakers)).T
        before = report({str(s): old[s].tolist() for s in range(speakers)}, words)
        after = report({str(s): new[s].tolist() for s in range(speakers)}, words)
        low, high = compare(before, after, generator, samples=500).interval_relative
        hits += low <= -0.2 <= high
    # 200 trials at 95 % have a standard error of 1.5 %.
    assert 0.90 <= hits / trials <= 0.995


def test_the_same_generator_gives_the_same_comparison_in_any_order_of_utterances() -> None:
    before, after = {"a": [1, 3, 2], "b": [4, 0]}, {"a": [1, 2, 2], "b": [3, 1]}
    reordered = WerReport.of(reversed(report(after).utterances))
    expected = compare(report(before), report(after), rng(5), samples=100)
    assert compare(report(before), reordered, rng(5), samples=100) == expected
    reordered = WerReport.of(reversed(report(before).utterances))
    assert compare(reordered, report(after), rng(5), samples=100) == expected


@settings(max_examples=30)
@given(
    st.dictionaries(
        st.sampled_from("abcd"),
        st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=4),
        min_size=1,
    )
)
def test_swapping_the_passes_turns_the_difference_round(errors: dict[str, list[tuple[int, int]]]) -> None:
    before = report({name: [old for old, _ in pairs] for name, pairs in errors.items()})
    after = report({name: [new for _, new in pairs] for name, pairs in errors.items()})
    forward, back = compare(before, after, rng(), samples=200), compare(after, before, rng(), samples=200)
    assert forward.absolute == -back.absolute
    assert forward.speakers_better == back.speakers_worse
    assert 0 < forward.p_value <= 1
    low, high = forward.interval_absolute
    assert low <= high
    assert not math.isnan(forward.interval_relative[0] + forward.relative)


def test_errors_out_of_nothing_are_an_infinite_increase() -> None:
    comparison = compare(report({"a": [0, 0], "b": [0]}), report({"a": [1, 1], "b": [1]}), rng(), samples=100)
    assert comparison.relative == math.inf
    assert comparison.interval_relative == (math.inf, math.inf)
    assert comparison.absolute == pytest.approx(0.1)


def test_samples_without_words_have_a_rate_all_the_same() -> None:
    before = WerReport.of([UtteranceScore("u", "s", 0, 0, 0, 2), UtteranceScore("v", "s", 4, 1, 0, 0)])
    comparison = compare(before, before, rng(), samples=100)
    assert comparison.interval_absolute == (0.0, 0.0)


def test_other_utterances_cannot_be_compared() -> None:
    with pytest.raises(ScoreError, match=r"2 utterances are in only one pass, such as 'a-1'; expected"):
        compare(report({"a": [1, 2, 3]}), report({"a": [1]}), rng())


def test_other_references_cannot_be_compared() -> None:
    with pytest.raises(ScoreError, match=r"'a-0': 10 words of speaker 'a' in the first pass, 9 words .* second"):
        compare(report({"a": [1, 2]}), report({"a": [1, 2]}, words=9), rng())


def test_one_utterance_cannot_be_resampled() -> None:
    with pytest.raises(ScoreError, match="'a-0' is the only utterance"):
        compare(report({"a": [1]}), report({"a": [0]}), rng())


def test_speakers_alone_cannot_be_compared() -> None:
    bare = WerReport({"a": SpeakerScore(1, 10)})
    with pytest.raises(ScoreError, match="gives speakers only"):
        compare(bare, bare, rng())
