from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhuc_asr.score.holm import holm
from lhuc_asr.score.judgement import Entry, Role, Verdict, judge
from lhuc_asr.score.wer import UtteranceScore, WerReport

SPEAKERS = 12


def report(errors: list[int], words: int = 100) -> WerReport:
    """Two recordings of each speaker; the errors are the first one's."""
    return WerReport.of(
        UtteranceScore(f"{speaker}-{number}", str(speaker), words, count, 0, 0)
        for speaker, own in enumerate(errors)
        for number, count in enumerate((own, 0))
    )


BEFORE = [20 + number for number in range(SPEAKERS)]
HALF, DOUBLE = [count // 2 for count in BEFORE], [2 * count for count in BEFORE]


def entry(errors: list[int], others: list[int] | None, **fields: object) -> Entry:
    chosen = {"split": "test", "name": "lhuc", "role": Role.RESULT} | fields
    return Entry(
        report=report(errors), base=report(BEFORE), others=None if others is None else report(others), **chosen
    )


@pytest.mark.parametrize(
    ("errors", "others", "verdict"),
    [
        (HALF, BEFORE, Verdict.HELPED),
        (HALF, [count - 1 for count in HALF], Verdict.NO_EVIDENCE),  # everybody would have gained more
        (HALF, HALF, Verdict.NO_EVIDENCE),
        (HALF, None, Verdict.NO_EVIDENCE),
        (DOUBLE, BEFORE, Verdict.HURT),
        (DOUBLE, [3 * count for count in BEFORE], Verdict.NO_EVIDENCE),
        ([*HALF[:5], *BEFORE[5:]], BEFORE, Verdict.NO_EVIDENCE),  # five speakers: p is 1/16
        (BEFORE, BEFORE, Verdict.NO_EVIDENCE),
    ],
)
def test_words_say_what_both_comparisons_say(errors: list[int], others: list[int] | None, verdict: Verdict) -> None:
    (line,) = judge([entry(errors, others)], 1)
    assert line.verdict is verdict
    assert (line.others is None) == (others is None)


@pytest.mark.parametrize("role", [Role.FIRST, Role.BOUND, Role.CONTROL])
def test_only_results_are_judged_and_adjusted(role: Role) -> None:
    lines = judge([entry(HALF, BEFORE, role=role), entry(HALF, BEFORE)], 1)
    assert lines[0].verdict is None
    assert lines[1].base is not None
    assert lines[1].base.adjusted_p == lines[1].base.comparison.p_value


def test_the_primary_comparison_is_outside_the_family() -> None:
    """Six speakers have p = 1/32: alone that is evidence, as one of two it is not."""
    six = [*HALF[:6], *BEFORE[6:]]
    lines = judge([entry(six, BEFORE, primary=True), entry(six, BEFORE), entry(six, BEFORE)], 1)
    assert [line.verdict for line in lines] == [Verdict.HELPED, Verdict.NO_EVIDENCE, Verdict.NO_EVIDENCE]
    assert [line.base.adjusted_p for line in lines if line.base] == [1 / 32, 1 / 16, 1 / 16]


@given(st.lists(st.floats(0.0001, 1.0), min_size=1, max_size=6))
def test_holm_rejects_what_the_stepwise_procedure_rejects(ps: list[float]) -> None:
    adjusted = holm(ps)
    for level in (0.01, 0.05, 0.2):
        rejected, order = set(), np.argsort(ps, kind="stable").tolist()
        for rank, place in enumerate(order):
            if (len(ps) - rank) * ps[place] > level:
                break
            rejected.add(place)
        assert {place for place, p in enumerate(adjusted) if p <= level} == rejected
