"""A small schema with every kind and group of feature, batches of noise that fit it, and networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from lhuc_asr.ppnet.batch import Bag, Batch
from lhuc_asr.ppnet.model import RankingConfig, RankingNetwork, build
from lhuc_asr.ppnet.schema import FieldConfig, Schema

ROWS = {"item": 12, "genres": 6, "prior.user": 9, "prior.item": 12, "place": 4}


@pytest.fixture
def schema() -> Schema:
    """Shared item, history, genres and age; prior user and item; the place as domain; two tasks."""
    return Schema(
        features=(
            FieldConfig(name="item", kind="id", embedding=4),
            FieldConfig(name="history", kind="sequence", vocabulary_of="item", embedding=4),
            FieldConfig(name="genres", kind="multi", embedding=3, pooling="sum"),
            FieldConfig(name="age", kind="number", embedding=2),
            # A name that no module's parameter may have.
            FieldConfig(name="prior.user", column="user", kind="id", group="prior", embedding=5),
            FieldConfig(name="prior.item", column="item", kind="id", group="prior", embedding=4),
            FieldConfig(name="place", kind="category", group="domain", embedding=3),
        ),
        labels=("click", "like"),
        user="prior.user",
    )


@pytest.fixture
def make_batch(schema: Schema) -> Callable[..., Batch]:
    """Makes a batch of noise; ``user`` sets all users' row."""

    def make(seed: int = 0, size: int = 16, user: int | None = None) -> Batch:
        generator = torch.Generator().manual_seed(seed)

        def draw(rows: int, count: int = size, low: int = 1) -> torch.Tensor:
            return torch.randint(low, rows, (count,), generator=generator)

        def bag(rows: int) -> Bag:
            lengths = draw(4, low=0)  # some are empty
            return Bag(draw(rows, int(lengths.sum()), low=0), torch.cumsum(lengths, 0) - lengths)

        ids = {name: draw(ROWS[name]) for name in ("item", "prior.item", "place", "prior.user")}
        if user is not None:
            ids["prior.user"] = torch.full((size,), user)
        return Batch(
            ids,
            {"history": bag(ROWS["item"]), "genres": bag(ROWS["genres"])},
            {"age": torch.randn(size, generator=generator)},
            draw(2, 2 * size, low=0).reshape(size, 2).float(),
            draw(5),
        )

    return make


@pytest.fixture
def make_network(schema: Schema) -> Callable[..., RankingNetwork]:
    """Makes a network of a kind; ``scatter`` moves its parameters away from their neutral start."""

    def make(kind: str, seed: int = 0, tasks: int = 2, scatter: float = 0.0, **options: Any) -> RankingNetwork:
        config = RankingConfig.model_validate({"kind": kind, "hidden_units": (8, 6), **options})
        few = schema.model_copy(update={"labels": schema.labels[:tasks]})
        network = build(config, few, ROWS, torch.Generator().manual_seed(seed))
        generator = torch.Generator().manual_seed(seed + 1)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                change = scatter * torch.randn(parameter.shape, generator=generator)
                if "table" in name or "user_embedding" in name:
                    change[0] = 0.0
                parameter += change
        return network

    return make
