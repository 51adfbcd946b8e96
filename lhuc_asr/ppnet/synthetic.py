"""Clicks of users who differ by known amounts, and the control in which they are all alike.

An example shows a user something of which D numbers x ~ N(0, 1) are known. K hidden factors of it please or
displease:

    h_k = tanh(2 v_k . x)             v_k a random direction, |v_k| = 1
    s_uk = 1 + spread a_u e_uk        how strongly user u responds to factor k; e_uk = +1 or -1, and a_u from
                                      1/2 to 1 for the share of users who differ, 0 for everybody else
    P(click) = sigmoid(strength sum_k w_k s_uk h_k),        w_k = +1 or -1

So users differ in the scale of their response to hidden factors and in nothing else: this is what a gate on hidden
units can say, and what a bias a user cannot. With spread 0 all users are alike, and there is nothing to gain.
The corpus stands for none that exists; the form is this package's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from lhuc_asr.base.atomic import atomic_folder, write_json
from lhuc_asr.base.config import StrictModel

# Rows of a row group: small, so that a reader's blocks mix many of them.
ROW_GROUP = 16_384
SPLITS = ("train", "valid", "test")


class SyntheticUsersConfig(StrictModel):
    """How the corpus is drawn.

    Attributes:
        kind: Tells this corpus from others in a recipe.
        users: Number of users, each as often as the others.
        examples: Examples a user in training.
        heldout: Examples a user in validation, and as many in the test.
        numbers: D, numbers known of what is shown.
        factors: K, hidden factors.
        strength: Of what pleases; the larger, the less chance there is in a click.
        spread: How much the users who differ differ; 0: the control.
        differing: Their share of all users.
        seed: Of all that is drawn.
    """

    kind: Literal["synthetic"] = "synthetic"
    users: int = Field(400, ge=2)
    examples: int = Field(250, ge=1)
    heldout: int = Field(50, ge=1)
    numbers: int = Field(8, ge=1)
    factors: int = Field(4, ge=1)
    strength: float = Field(1.5, gt=0.0)
    spread: float = Field(0.9, ge=0.0)
    differing: float = Field(0.5, ge=0.0, le=1.0)
    seed: int = Field(0, ge=0)


class SyntheticCorpus:
    """One draw of users and factors, from which any number of examples can be drawn.

    Args:
        config: How.

    Attributes:
        directions: v, shape (D, K).
        scales: s, shape (users, K).
    """

    def __init__(self, config: SyntheticUsersConfig) -> None:
        rng = np.random.default_rng([config.seed, 0])
        directions = rng.standard_normal((config.numbers, config.factors))
        self._config = config
        self.directions = directions / np.linalg.norm(directions, axis=0)
        self._signs = rng.choice([-1.0, 1.0], config.factors)
        # Drawn alike with every spread, so that the control has the same factors.
        differs = rng.permutation(config.users) < round(config.differing * config.users)
        amounts = np.where(differs, rng.uniform(0.5, 1.0, config.users), 0.0)
        signs = rng.choice([-1.0, 1.0], (config.users, config.factors))
        self.scales = 1.0 + config.spread * amounts[:, None] * signs

    @property
    def users(self) -> list[str]:
        """Names of the users, in the order of ``scales``."""
        return [f"user{user}" for user in range(self._config.users)]

    def probability(self, users: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """P(click): the best that any model can know.

        Args:
            users: Which user, shape (B,).
            numbers: x, shape (B, D).

        Returns:
            Shape (B,).
        """
        factors = np.tanh(2.0 * numbers @ self.directions)
        logits = self._config.strength * (self.scales[users] * factors) @ self._signs
        result: np.ndarray = 1.0 / (1.0 + np.exp(-logits))
        return result

    def draw(self, count: int, rng: np.random.Generator) -> pa.Table:
        """Examples: ``user``, ``x1`` to ``xD``, ``click``, and ``probability``, which is for measuring only."""
        users = rng.integers(self._config.users, size=count)
        numbers = rng.standard_normal((count, self._config.numbers))
        probability = self.probability(users, numbers)
        columns: dict[str, pa.Array] = {"user": pa.array(self.users).take(pa.array(users))}
        columns |= {f"x{place + 1}": pa.array(numbers[:, place]) for place in range(self._config.numbers)}
        columns["click"] = pa.array((rng.random(count) < probability).astype(np.int8))
        return pa.table(columns | {"probability": pa.array(probability)})


def write_synthetic(config: SyntheticUsersConfig, folder: Path) -> None:
    """Make a folder of ``train.parquet``, ``valid.parquet``, ``test.parquet``, and ``scales.json``: each user's s."""
    corpus = SyntheticCorpus(config)
    counts = dict(zip(SPLITS, (config.examples, config.heldout, config.heldout), strict=True))
    with atomic_folder(folder) as temporary:
        for place, (split, count) in enumerate(counts.items(), start=1):
            rng = np.random.default_rng([config.seed, place])
            write_draws(temporary / f"{split}.parquet", corpus, count * config.users, rng)
        write_json(temporary / "scales.json", dict(zip(corpus.users, corpus.scales.tolist(), strict=True)))


def write_draws(path: Path, corpus: SyntheticCorpus, count: int, rng: np.random.Generator) -> None:
    """Draw examples into a Parquet file; what is in memory is one row group."""
    with pq.ParquetWriter(path, corpus.draw(0, rng).schema) as writer:
        for start in range(0, count, ROW_GROUP):
            writer.write_table(corpus.draw(min(ROW_GROUP, count - start), rng))
