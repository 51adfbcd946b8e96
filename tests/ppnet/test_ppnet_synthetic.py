"""The drawn corpus is what its equations say, and the control is the same without the differences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lhuc_asr.base.atomic import read_json
from lhuc_asr.ppnet.synthetic import SyntheticCorpus, SyntheticUsersConfig, write_synthetic

SMALL = SyntheticUsersConfig(users=20, examples=100, heldout=10, numbers=5, factors=3)


def columns(table: pa.Table, corpus: SyntheticCorpus) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    users = np.array([corpus.users.index(name) for name in table["user"].to_pylist()])
    numbers = np.stack([table[f"x{place}"].to_numpy() for place in range(1, 6)], axis=1)
    return users, numbers, table["probability"].to_numpy()


def test_half_of_the_users_differ_by_the_amounts_that_are_asked_for() -> None:
    scales = SyntheticCorpus(SMALL).scales
    changes = np.abs(scales - 1.0)
    differs = changes.max(axis=1) > 0
    assert differs.sum() == 10
    amounts = changes[differs]
    np.testing.assert_allclose(amounts, amounts[:, :1].repeat(3, axis=1))  # one amount a user, its sign a factor
    assert amounts.min() >= 0.5 * SMALL.spread
    assert amounts.max() <= SMALL.spread
    assert {1, -1} == set(np.sign(scales - 1.0)[differs].astype(int).ravel().tolist())


def test_a_user_responds_to_each_factor_by_his_scale() -> None:
    """Logits of users who differ, regressed on the factors, which are got from the equation by hand."""
    corpus = SyntheticCorpus(SMALL)
    table = corpus.draw(2000, np.random.default_rng(1))
    users, numbers, probability = columns(table, corpus)
    factors = SMALL.strength * np.tanh(2.0 * numbers @ corpus.directions)
    logits = np.log(probability / (1.0 - probability))
    for user in range(SMALL.users):
        weights, *_ = np.linalg.lstsq(factors[users == user], logits[users == user], rcond=None)
        np.testing.assert_allclose(np.abs(weights), corpus.scales[user], rtol=1e-6)


def test_clicks_come_as_often_as_the_probability_says() -> None:
    table = SyntheticCorpus(SMALL).draw(200_000, np.random.default_rng(4))
    probability, clicks = table["probability"].to_numpy(), table["click"].to_numpy()
    for low in np.arange(0.0, 1.0, 0.2):
        inside = (probability >= low) & (probability < low + 0.2)
        error = 4 * np.sqrt(0.25 / inside.sum())
        assert clicks[inside].mean() == pytest.approx(probability[inside].mean(), abs=error)


def test_the_control_has_the_same_draws_and_no_differences(tmp_path: Path) -> None:
    write_synthetic(SMALL, tmp_path / "a")
    write_synthetic(SMALL.model_copy(update={"spread": 0.0}), tmp_path / "control")
    test, control = (pq.read_table(tmp_path / name / "test.parquet") for name in ("a", "control"))
    kept = ["user", *(f"x{place}" for place in range(1, 6))]
    assert test.select(kept) == control.select(kept)
    assert test["probability"] != control["probability"]
    assert np.ptp(list(read_json(tmp_path / "control" / "scales.json").values())) == 0.0


def test_the_folder_is_the_seeds(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("again", 0), ("other", 1)):
        write_synthetic(SMALL.model_copy(update={"seed": seed}), tmp_path / name)
    first, again, other = (pq.read_table(tmp_path / name / "train.parquet") for name in ("a", "again", "other"))
    assert first.num_rows == 2000
    assert first == again
    assert first != other
    splits = [
        pq.read_table(tmp_path / "a" / f"{split}.parquet")["x1"].to_pylist() for split in ("train", "valid", "test")
    ]
    assert [len(split) for split in splits] == [2000, 200, 200]
    assert not set(splits[0]) & set(splits[1])
    assert not set(splits[1]) & set(splits[2])


def test_scales_are_written_by_user(tmp_path: Path) -> None:
    write_synthetic(SMALL, tmp_path / "a")
    corpus = SyntheticCorpus(SMALL)
    assert read_json(tmp_path / "a" / "scales.json") == dict(zip(corpus.users, corpus.scales.tolist(), strict=True))
