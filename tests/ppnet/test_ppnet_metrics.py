"""Metrics against brute force over pairs and users, against scikit-learn, and by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from lhuc_asr.base.errors import ScoreError
from lhuc_asr.ppnet.metrics import calibration_error, gauc, task_metrics


def brute_gauc(labels, scores, users):
    """Every pair of a user's positive and negative examples, counted."""
    total, weight = 0.0, 0
    for user in set(users):
        mine = [(label, score) for label, score, whose in zip(labels, scores, users, strict=True) if whose == user]
        positives, negatives = ([s for label, s in mine if label == wanted] for wanted in (1, 0))
        if positives and negatives:
            won = sum((p > n) + (p == n) / 2 for p in positives for n in negatives)
            total += len(mine) * won / (len(positives) * len(negatives))
            weight += len(mine)
    return total / weight if weight else None


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5), st.integers(-2, 2)), min_size=1, max_size=60))
def test_gauc_is_brute_forces(examples):
    labels, scores, users = (np.array(column) for column in zip(*examples, strict=True))
    expected = brute_gauc(labels.tolist(), scores.tolist(), users.tolist())
    assert gauc(labels, scores / 7, users) == (None if expected is None else pytest.approx(expected, abs=1e-12))


def test_gauc_of_one_user_is_auc_and_of_many_scikit_learns():
    rng = np.random.default_rng(0)
    labels, scores, users = rng.integers(2, size=5000), rng.random(5000).round(2), rng.integers(40, size=5000) ** 3
    assert gauc(labels, scores, np.zeros(5000, int)) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    aucs = [roc_auc_score(labels[users == user], scores[users == user]) for user in np.unique(users)]
    weights = np.unique(users, return_counts=True)[1]
    assert gauc(labels, scores, users) == pytest.approx(np.average(aucs, weights=weights), abs=1e-12)


def test_by_hand():
    labels, probabilities = np.array([1.0, 0.0, 0.0, 1.0]), np.array([0.8, 0.5, 0.2, 0.5])
    figures = task_metrics(labels, probabilities, np.array([1, 1, 2, 2]))
    assert figures.auc == (1 + 1 + 0.5 + 1) / 4
    assert figures.gauc == 1.0
    assert figures.log_loss == pytest.approx(-(math.log(0.8) + 2 * math.log(0.5) + math.log(0.8)) / 4)
    assert figures.calibration == 1.0
    assert figures.examples == 4


def test_calibration_error_does_not_know_the_order_of_examples():
    """Half of them are ones and half is what is promised, even where the ones come first."""
    labels = np.repeat([1.0, 0.0], 500)
    assert calibration_error(labels, np.full(1000, 0.5)) == 0.0
    probabilities = np.random.default_rng(0).integers(1, 8, 1000) / 8
    shuffled = np.random.default_rng(1).permutation(1000)
    expected = calibration_error(labels, probabilities)
    assert calibration_error(labels[shuffled], probabilities[shuffled]) == pytest.approx(expected, abs=1e-12)


def test_calibration_error_is_zero_for_the_true_probabilities_and_knows_a_bias():
    probabilities = np.repeat([0.1, 0.5, 0.9], 1000)
    labels = np.concatenate([np.arange(1000) < 1000 * p for p in (0.1, 0.5, 0.9)]).astype(float)
    assert calibration_error(labels, probabilities, bins=3) == pytest.approx(0.0, abs=1e-12)
    assert calibration_error(labels, probabilities + 0.05, bins=3) == pytest.approx(0.05)


def test_what_the_labels_do_not_define_is_none():
    ones = task_metrics(np.ones(3), np.array([0.5, 0.6, 1.0]), np.arange(3))
    assert (ones.auc, ones.gauc) == (None, None)
    assert ones.calibration == pytest.approx(0.7)
    zeros = task_metrics(np.zeros(3), np.array([0.5, 0.6, 0.0]), np.arange(3))
    assert zeros.calibration is None
    assert np.isfinite(zeros.log_loss)
    one_each = task_metrics(np.array([1.0, 0.0]), np.array([0.6, 0.5]), np.arange(2))
    assert (one_each.auc, one_each.gauc) == (1.0, None)


def test_nothing_and_not_a_number_are_refused():
    nothing = np.zeros(0)
    with pytest.raises(ScoreError, match="no examples to evaluate on"):
        task_metrics(nothing, nothing, nothing.astype(int))
    with pytest.raises(ScoreError, match=r"example 1 \(counted from 0\) has probability nan"):
        task_metrics(np.array([0.0, 1.0]), np.array([0.5, np.nan]), np.zeros(2, int))
