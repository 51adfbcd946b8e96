"""Means and differences over seeds and users by hand, against scipy's paired test, and what is said of them."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from scipy import stats

from lhuc_asr.base.errors import ScoreError
from lhuc_asr.ppnet.comparison import PrimaryConfig, Results, comparisons_table, paired_difference, results_table
from lhuc_asr.ppnet.user_influence import UserInfluence
from lhuc_asr.score.tables import table_text


def run(auc: float | None, gauc: float | None = 0.5) -> dict[str, Any]:
    figures = {"click": {"auc": auc, "gauc": gauc, "log_loss": 0.6, "calibration": 1.0}}
    return {"test": figures, "valid": figures, "parameters": 1234, "seconds": 1.0}


def test_the_difference_is_taken_seed_by_seed() -> None:
    """Seeds differ by 0.1, the networks by 0.010, 0.012 and 0.014: mean 0.012, sd 0.002, t(0.975, 2) = 4.303."""
    difference = paired_difference([0.710, 0.812, 0.914], [0.700, 0.800, 0.900])
    assert difference.mean == pytest.approx(0.012)
    half = 4.30265 * 0.002 / np.sqrt(3)
    assert difference.interval == pytest.approx((0.012 - half, 0.012 + half), abs=1e-7)


def test_the_p_value_is_the_paired_tests() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 7))
    assert paired_difference(first, second).p_value == pytest.approx(stats.ttest_rel(first, second).pvalue)


def test_one_seed_has_no_interval() -> None:
    difference = paired_difference([0.75], [0.5])
    assert (difference.mean, difference.interval, difference.p_value) == (0.25, None, None)


def influence(*users: float) -> UserInfluence:
    return UserInfluence({"click": np.array(users)}, {"click": np.full(len(users), np.nan)})


def compared(gain: float, spread: float, **options: Any) -> Results:
    """A network whose seeds have AUC 0.5 + gain -+ 0.0001, against a fitted model with 0.5; U = 4 users."""
    runs = {"dnn": {"fitted": run(0.5)}, "ppnet": {1: run(0.5 + gain - 1e-4), 2: run(0.5 + gain + 1e-4)}}
    influences = {
        "dnn": [influence(0.0, 0.0, 0.0, 0.0)],
        # The mean over the seeds is (spread, -spread, spread, -spread).
        "ppnet": [influence(3 * spread, -3 * spread, 0.0, 0.0), influence(-spread, spread, 2 * spread, -2 * spread)],
    }
    return Results("dnn", runs, influences, **options)


def test_seeds_are_averaged_before_users_are_compared() -> None:
    """SE = sqrt(4 / 3 * 4 spread^2) = 4 spread / sqrt(3), and t(0.975, 3) = 3.18245."""
    (auc, gauc) = compared(0.1, 0.01).comparisons()
    assert auc.users is not None
    half = 3.18245 * 4 * 0.01 / np.sqrt(3)
    assert auc.users.interval == pytest.approx((0.1 - half, 0.1 + half), abs=1e-6)
    assert auc.users.users == 4
    t = 0.1 / (0.04 / np.sqrt(3))
    assert auc.users.p_value == pytest.approx(2 * stats.t.sf(t, 3))
    assert gauc.users is None  # no user has both labels


@pytest.mark.parametrize(
    ("gain", "spread", "verdict"),
    [
        (0.1, 0.001, "better"),
        (-0.1, 0.001, "worse"),
        (0.1, 0.1, "no evidence"),  # users differ
        (0.0002, 1e-6, "no evidence"),  # seeds differ: the interval is 0.0002 -+ 0.0013
    ],
)
def test_a_verdict_needs_users_and_seeds(gain: float, spread: float, verdict: str) -> None:
    auc, _ = compared(gain, spread).comparisons()
    assert auc.verdict == verdict
    assert auc.content()["verdict"] == verdict


def three(**options: Any) -> Results:
    runs = {name: {"fitted": run(auc)} for name, auc in (("dnn", 0.5), ("film", 0.52), ("ppnet", 0.53))}
    influences = {
        "dnn": [influence(0.0, 0.0, 0.0, 0.0)],
        "film": [influence(0.004, -0.004, 0.004, -0.004)],
        "ppnet": [influence(0.004, -0.004, -0.004, 0.004)],
    }
    return Results("dnn", runs, influences, **options)


def test_the_primary_comparison_is_not_adjusted_and_the_others_are_by_their_number() -> None:
    film, ppnet = (one for one in three().comparisons() if one.figure == "auc")
    assert film.users is not None
    assert ppnet.users is not None
    assert ppnet.p_value == pytest.approx(2 * ppnet.users.p_value)
    assert film.p_value == pytest.approx(max(film.users.p_value, 2 * ppnet.users.p_value))
    primary = PrimaryConfig(model="ppnet", task="click", figure="auc")
    film, ppnet = (one for one in three(primary=primary).comparisons() if one.figure == "auc")
    assert (film.primary, ppnet.primary) == (False, True)
    assert ppnet.users is not None
    assert film.users is not None
    assert (film.p_value, ppnet.p_value) == (film.users.p_value, ppnet.users.p_value)


def test_every_model_is_compared_with_the_rival_and_the_baseline_with_it_once() -> None:
    pairs = [(one.model, one.against) for one in three(rival="film").comparisons() if one.figure == "auc"]
    assert pairs == [("film", "dnn"), ("ppnet", "dnn"), ("ppnet", "film")]


def test_the_tables_say_what_the_figures_say() -> None:
    results = Results("dnn", {"dnn": {1: run(0.5), 2: run(0.625)}, "ppnet": {1: run(0.75), 2: run(0.9375)}})
    title, _, _, dnn, _ = table_text(results_table(results, "click", "[t]"), width=100).splitlines()
    assert title == "[t]"
    assert re.split(r"  +", dnn)[:4] == ["dnn", "1,234", "0.5625 ± 0.0884", "0.5000 ± 0.0000"]
    # Differences 0.25 and 0.3125: mean 0.28125, sd 0.0442, and t(0.975, 1) = 12.706.
    text = table_text(comparisons_table(results, "t"), width=100)
    assert "+0.2812" in text
    assert "[-0.1158, +0.6783]" in text
    assert "no evidence" in text


def test_a_small_p_value_is_not_shown_as_none() -> None:
    assert "<0.0001" in table_text(comparisons_table(compared(0.4, 1e-4), "t"), width=100)


def test_a_figure_that_is_not_defined_is_shown_as_that_and_is_not_compared() -> None:
    results = Results("dnn", {"dnn": {1: run(None)}, "ppnet": {1: run(0.5)}})
    assert " nan " in table_text(results_table(results, "click", "t"), width=100)
    assert {one.figure for one in results.comparisons()} == {"gauc"}


def test_models_with_other_seeds_are_not_compared() -> None:
    with pytest.raises(ScoreError, match=r"'ppnet' has seeds \[1\], expected those of 'dnn', \[1, 2\]; train"):
        Results("dnn", {"dnn": {1: run(0.5), 2: run(0.5)}, "log": {"fitted": run(0.5)}, "ppnet": {1: run(0.5)}})
