"""Mean, deviation and paired differences over seeds, by hand and against scipy's paired test."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from lhuc_asr.base.errors import ScoreError
from lhuc_asr.ppnet.comparison import Results, paired_difference, results_table
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


def test_the_table_says_what_the_figures_say() -> None:
    results = Results.of("dnn", {"dnn": {1: run(0.5), 2: run(0.625)}, "ppnet": {1: run(0.75), 2: run(0.9375)}})
    title, _, heading, _, dnn, ppnet, _ = table_text(results_table(results, "click", "[t]"), width=200).splitlines()
    assert title == "[t]"
    assert "AUC - dnn's, 95 % interval" in heading
    assert [cell.strip() for cell in dnn.split("│")[1:5]] == ["dnn", "1,234", "0.5625 ± 0.0884", "0.5000 ± 0.0000"]
    # Differences 0.25 and 0.3125: mean 0.28125, sd 0.0442, and t(0.975, 1) = 12.706.
    assert "+0.2812 [-0.1158, +0.6783]" in ppnet


def test_a_small_p_value_is_not_shown_as_none() -> None:
    close = {seed: run(0.5 + seed * 1e-6) for seed in range(5)}
    results = Results.of("dnn", {"dnn": {seed: run(0.25) for seed in range(5)}, "ppnet": close})
    assert "<0.0001" in table_text(results_table(results, "click", "t"), width=200)


def test_a_figure_that_is_not_defined_is_shown_as_that() -> None:
    results = Results.of("dnn", {"dnn": {1: run(None)}})
    assert " nan " in table_text(results_table(results, "click", "t"), width=200)


def test_models_with_other_seeds_are_not_compared() -> None:
    with pytest.raises(ScoreError, match=r"'ppnet' has seeds \[1\], expected those of 'dnn', \[1, 2\]; train"):
        Results.of("dnn", {"dnn": {1: run(0.5), 2: run(0.5)}, "ppnet": {1: run(0.5)}})
