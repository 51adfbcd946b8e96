"""Influences of users against derivatives of scikit-learn's weighted AUC; the test over users against known truths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from lhuc_asr.base.errors import CheckpointError
from lhuc_asr.ppnet.batch import NO_USER
from lhuc_asr.ppnet.metrics import gauc, user_aucs
from lhuc_asr.ppnet.user_influence import UserInfluence, auc_influence, gauc_influence, user_test


def draw(seed: int, users: int = 7, examples: int = 120) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, scores with ties, and users, of whom the last has one label only."""
    rng = np.random.default_rng(seed)
    user = np.append(np.arange(users), rng.integers(users, size=examples - users))
    labels = rng.integers(2, size=examples).astype(float)
    labels[user == users - 1] = 1.0
    return labels, np.round(rng.random(examples) + 0.3 * labels, 1), user


@pytest.mark.parametrize("seed", range(5))
def test_the_influence_on_auc_is_the_derivative_by_the_users_weight(seed: int) -> None:
    labels, scores, users = draw(seed)
    step = 1e-5

    def auc(user: int, change: float) -> float:
        return float(roc_auc_score(labels, scores, sample_weight=1.0 + change * (users == user)))

    derivatives = [(auc(user, step) - auc(user, -step)) / (2 * step) for user in range(7)]
    influence = auc_influence(labels, scores, users)
    np.testing.assert_allclose(influence, derivatives, atol=1e-9)
    assert influence.sum() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_the_influence_on_gauc_is_the_derivative_by_the_users_weight(seed: int) -> None:
    labels, scores, users = draw(seed)
    _, aucs, examples = user_aucs(labels, scores, users)
    influence = gauc_influence(labels, scores, users, np.ones(len(users), bool))
    assert np.isnan(influence).tolist() == [False] * 6 + [True]
    for user in range(6):
        weights = np.where(np.isnan(aucs), 0, examples).astype(float)
        weights[user] *= 1 + 1e-6
        moved = np.average(np.nan_to_num(aucs), weights=weights)
        assert (moved - gauc(labels, scores, users)) / 1e-6 == pytest.approx(influence[user], abs=1e-6)


def test_examples_without_a_user_are_each_their_own_and_not_in_gauc() -> None:
    labels, scores, users = draw(1)
    users[:30] = NO_USER
    influence = UserInfluence.of(labels[:, None], scores[:, None], users, ["click"])
    known = len(np.unique(users[30:]))
    assert len(influence.auc["click"]) == 30 + known
    assert np.count_nonzero(~np.isnan(influence.gauc["click"])) <= known
    alone = UserInfluence.of(labels[:, None], scores[:, None], np.arange(len(labels)), ["click"])
    assert sorted(influence.auc["click"])[0] <= sorted(alone.auc["click"])[0]
    assert np.isnan(alone.gauc["click"]).all()


def test_labels_that_are_all_equal_define_nothing() -> None:
    influence = UserInfluence.of(np.ones((4, 1)), np.zeros((4, 1)), np.array([5, 5, 8, 8]), ["click"])
    assert np.isnan(influence.auc["click"]).all()
    assert np.isnan(influence.gauc["click"]).all()
    assert user_test(0.1, influence.auc["click"], influence.auc["click"]) is None


def test_what_is_read_is_what_was_saved(tmp_path: Path) -> None:
    labels, scores, users = draw(2)
    influence = UserInfluence.of(labels[:, None], scores[:, None], users, ["click"])
    influence.save(tmp_path / "one.safetensors")
    loaded = UserInfluence.load(tmp_path / "one.safetensors", ["click"])
    np.testing.assert_array_equal(loaded.auc["click"], influence.auc["click"])
    np.testing.assert_array_equal(loaded.gauc["click"], influence.gauc["click"])
    with pytest.raises(CheckpointError, match=r"one\.safetensors: lacks 'auc\.like'; delete it"):
        UserInfluence.load(tmp_path / "one.safetensors", ["like"])
    (tmp_path / "one.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"one\.safetensors: cannot be read"):
        UserInfluence.load(tmp_path / "one.safetensors", ["click"])


def simulated(rng: np.random.Generator, users: int) -> tuple[bool, bool]:
    """Whether two rankers that are alike in the population differ in AUC, and in GAUC, by the test at 5 %.

    A user has a taste, a number of examples, and errors of each ranker that all of the user's examples share.
    """
    counts = rng.integers(5, 40, size=users)
    user = np.repeat(np.arange(users), counts)
    item = rng.standard_normal(len(user))
    labels = (rng.random(len(user)) < 1 / (1 + np.exp(-(item + rng.standard_normal(users)[user])))).astype(float)
    first, second = (
        (1 + 0.8 * rng.standard_normal(users))[user] * item
        + 0.8 * rng.standard_normal(users)[user]
        + 0.5 * rng.standard_normal(len(user))
        for _ in range(2)
    )
    one, other = (UserInfluence.of(labels[:, None], s[:, None], user, ["click"]) for s in (first, second))
    everybody = np.zeros(len(user), np.int64)
    auc = user_aucs(labels, first, everybody)[1][0] - user_aucs(labels, second, everybody)[1][0]
    within = (gauc(labels, first, user) or 0.0) - (gauc(labels, second, user) or 0.0)
    tests = (
        user_test(auc, one.auc["click"], other.auc["click"]),
        user_test(within, one.gauc["click"], other.gauc["click"]),
    )
    rejected_auc, rejected_gauc = (test is not None and test.p_value < 0.05 for test in tests)
    return rejected_auc, rejected_gauc


@pytest.mark.parametrize(("users", "draws"), [(40, 600), pytest.param(300, 2000, marks=pytest.mark.slow)])
def test_a_test_at_five_percent_rejects_rankers_that_are_alike_in_about_as_many(users: int, draws: int) -> None:
    """The bounds are three standard deviations of the number of rejections."""
    rng = np.random.default_rng(users)
    rejected = np.sum([simulated(rng, users) for _ in range(draws)], axis=0)
    assert (np.abs(rejected - 0.05 * draws) <= 3 * np.sqrt(draws * 0.05 * 0.95)).all(), rejected / draws
