"""Clicks of users who differ by known amounts, and the control in which all users are equal.

An example shows a user an item with D known numbers x ~ N(0, 1). K hidden factors of the item please or displease the
user:

    h_k = tanh(2 v_k . x)             v_k a random direction, |v_k| = 1
    s_uk = 1 + spread a_u e_uk        how strongly user u responds to factor k; e_uk = +1 or -1, and a_u from
                                      1/2 to 1 for the share of users who differ, 0 for the others
    P(click) = sigmoid(strength sum_k w_k s_uk h_k),        w_k = +1 or -1

Users differ only in the scale of their response to hidden factors. A gate on hidden units can express this, a bias for
each user cannot. With spread 0 all users are equal, and there is nothing to gain. The form is this package's own and
does not imitate an existing corpus.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from lhuc_asr.base.atomic import atomic_folder, write_json
from lhuc_asr.base.config import Seed, StrictModel
from lhuc_asr.base.extras import extra

with extra("rank"):
    import pyarrow as pa
    import pyarrow.parquet as pq

# Number of rows of a row group: small, so that the blocks of a reader mix many groups.
ROW_GROUP = 16_384
SPLITS = ("train", "valid", "test")
SCALES_FILE = "scales.json"


class SyntheticUsersConfig(StrictModel):
    """Options of the corpus.

    Attributes:
        kind: Name of this kind of corpus in a recipe.
        users: Number of users, all equally frequent.
        examples: Number of training examples for each user.
        heldout: Number of validation examples for each user, and of test examples.
        numbers: Number of known numbers of an item, D.
        factors: Number of hidden factors of an item, K.
        strength: Weight of the factors; the larger, the less random a click is.
        spread: Amount by which users differ; 0 is the control.
        differing: Share of the users who differ.
        seed: Seed of everything that is drawn.
    """

    kind: Literal["synthetic"] = "synthetic"
    users: int = Field(400, ge=2, le=10_000_000)
    examples: int = Field(250, ge=1, le=10_000_000)
    heldout: int = Field(50, ge=1, le=10_000_000)
    numbers: int = Field(8, ge=1, le=10_000)
    factors: int = Field(4, ge=1, le=10_000)
    strength: float = Field(1.5, gt=0.0, le=1e6)
    spread: float = Field(0.9, ge=0.0, le=1e6)
    differing: float = Field(0.5, ge=0.0, le=1.0)
    seed: Seed = 0


class SyntheticCorpus:
    """One draw of users and factors, from which any number of examples can be drawn.

    Args:
        config: Options of the corpus.

    Attributes:
        directions: Directions of the factors, v, shape (D, K).
        scales: Responses of the users, s, shape (users, K).
    """

    def __init__(self, config: SyntheticUsersConfig) -> None:
        rng = np.random.default_rng([config.seed, 0])
        directions = rng.standard_normal((config.numbers, config.factors))
        self._config = config
        self.directions = directions / np.linalg.norm(directions, axis=0)
        self._signs = rng.choice([-1.0, 1.0], config.factors)
        # The same draws with every spread, so that the control has the same factors.
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
            users: Number of each example's user, shape (B,).
            numbers: Numbers of the items, x, shape (B, D).

        Returns:
            Probabilities, shape (B,).
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
    """Make a folder of ``train.parquet``, ``valid.parquet``, ``test.parquet``, and ``scales.json`` (s of each user)."""
    corpus = SyntheticCorpus(config)
    counts = dict(zip(SPLITS, (config.examples, config.heldout, config.heldout), strict=True))
    with atomic_folder(folder) as temporary:
        for place, (split, count) in enumerate(counts.items(), start=1):
            rng = np.random.default_rng([config.seed, place])
            write_draws(temporary / f"{split}.parquet", corpus, count * config.users, rng)
        write_json(temporary / SCALES_FILE, dict(zip(corpus.users, corpus.scales.tolist(), strict=True)))


def write_draws(path: Path, corpus: SyntheticCorpus, count: int, rng: np.random.Generator) -> None:
    """Draw examples into a Parquet file; one row group is in memory at a time."""
    with pq.ParquetWriter(path, corpus.draw(0, rng).schema) as writer:
        for start in range(0, count, ROW_GROUP):
            writer.write_table(corpus.draw(min(ROW_GROUP, count - start), rng))
