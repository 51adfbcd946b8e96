"""The choice of a search on held-out speakers: what is as good within chance, and its middle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from lhuc_asr.decode.search import SearchConfig
from lhuc_asr.pipeline.pass_config import TuningConfig
from lhuc_asr.pipeline.tuning import Setting, middle_of, plateau_of, tune
from lhuc_asr.score.wer import UtteranceScore, WerReport

SCALES, PENALTIES = (0.05, 0.1, 0.15, 0.2, 0.25), (0.0, 0.5, 1.0)


def report(errors: list[int]) -> WerReport:
    return WerReport.of(UtteranceScore(str(n), str(n), 100, count, 0, 0) for n, count in enumerate(errors))


def grid(totals: list[list[int]]) -> dict[Setting, WerReport]:
    """Four speakers who share the errors above the best setting's equally, so that any difference is beyond chance."""
    return {
        (i, j): report([10 + total] * 4) for i, row in enumerate(totals) for j, total in enumerate(row) if total >= 0
    }


def test_without_chance_the_plateau_is_the_lowest_point_and_its_equals() -> None:
    reports = grid([[3, 2], [1, 0], [0, 0], [1, 3]])
    assert plateau_of(reports) == {(1, 1), (2, 0), (2, 1)}


def test_equals_that_are_not_connected_do_not_count() -> None:
    reports = grid([[0], [2], [0], [0]])
    # The widest of the plateaus that have a lowest point, far from where errors rise.
    assert plateau_of(reports) == {(2, 0), (3, 0)}


def test_a_difference_within_one_standard_error_is_chance() -> None:
    best = report([10, 10, 10, 10])
    # Differences 3, -1, 1, -1: their sum is 2, its standard error sqrt(4 * 3.667).
    assert np.std([3, -1, 1, -1], ddof=1) * 2 > 2
    assert plateau_of({(0, 0): best, (1, 0): report([13, 9, 11, 9])}) == {(0, 0), (1, 0)}
    assert plateau_of({(0, 0): best, (1, 0): report([11, 11, 11, 11])}) == {(0, 0)}


def test_the_middle_is_nearest_to_the_centre_and_has_the_fewest_errors_of_those() -> None:
    reports = grid([[0, 0], [0, 0], [0, 0], [0, 0], [9, 0]])
    # The centre lies between (1, x) and (2, x), a little towards penalty 1.
    assert middle_of(plateau_of(reports), reports) == (2, 1)
    two = {(0, 0): report([10, 10]), (1, 0): report([12, 8])}
    assert middle_of(plateau_of(two), two) == (0, 0)
    two = {(0, 0): report([12, 9]), (1, 0): report([10, 10])}
    assert middle_of(plateau_of(two), two) == (1, 0)


def test_each_setting_is_tried_once_with_a_search_near_it_and_the_record_has_all() -> None:
    tried: list[tuple[float, float]] = []
    searches: list[float] = []

    def errors(search: SearchConfig, others: Sequence[SearchConfig]) -> list[WerReport]:
        tried.extend((each.acoustic_scale, each.insertion_penalty) for each in others)
        searches.append(search.acoustic_scale)
        assert all(1 / 1.5 <= each.acoustic_scale / search.acoustic_scale <= 1.5 for each in others)
        assert search in others
        off = [round(20 * abs(each.acoustic_scale - 0.15) + 2 * abs(each.insertion_penalty - 0.5)) for each in others]
        return [report([10 + each] * 3) for each in off]

    options = TuningConfig(acoustic_scales=SCALES, insertion_penalties=PENALTIES)
    chosen, record = tune("si", SearchConfig(beam=7.0), options, errors)
    assert sorted(tried) == sorted((scale, penalty) for scale in SCALES for penalty in PENALTIES)
    assert (chosen.acoustic_scale, chosen.insertion_penalty, chosen.beam) == (0.15, 0.5, 7.0)
    assert searches == [0.05, 0.15, 0.25]
    assert record["chosen"] == {"acoustic_scale": 0.15, "insertion_penalty": 0.5}
    assert [(row["acoustic_scale"], row["insertion_penalty"]) for row in record["tried"]] == tried
    assert [row["errors"] for row in record["tried"] if row["plateau"]] == [30]
    assert all(sum(row["speakers"].values()) == row["errors"] and len(row["speakers"]) == 3 for row in record["tried"])


@pytest.mark.parametrize("order", [1, -1])
def test_the_order_of_the_options_does_not_matter(order: int) -> None:
    options = TuningConfig(acoustic_scales=SCALES[::order], insertion_penalties=PENALTIES[::order])
    chosen, _ = tune("si", SearchConfig(), options, lambda _, others: [report([10, 10])] * len(others))
    assert (chosen.acoustic_scale, chosen.insertion_penalty) == (0.15, 0.5)
