"""A training step of the gated networks against the plain DNN's of the same size. Aim of PPNet: at most 1.5 times.

A step is forward, backward and both optimizers, on batches in memory. Features are ids with embeddings of 8 numbers
from tables of 100,000 rows; the prior features are a user and an item with embeddings of their own. All networks have
the embeddings, whose fraction of a step grows with the number of features. PEPNet has one task here: it is the network
of PPNet with a gate on the embeddings.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from timing import Turns, show

from lhuc_asr.ppnet.batch import Batch
from lhuc_asr.ppnet.model import RankingConfig, build
from lhuc_asr.ppnet.schema import FieldConfig, Schema
from lhuc_asr.ppnet.trainer import RankerTrainerConfig, make_optimizers, step

ROWS, BATCH, STEPS = 100_000, 1024, 4
KINDS = ("concat", "film", "simple", "ppnet", "pepnet")
AIM = 1.5


def main() -> None:
    """Measure three shapes."""
    torch.set_num_threads(1)
    config = RankerTrainerConfig(batch_size=BATCH)
    for features, units in ((20, (128, 64)), (20, (512, 256, 128)), (6, (128, 64))):
        schema = ids(features)
        turns = Turns({kind: steps(kind, units, schema, config) for kind in ("dnn", *KINDS)}, 30)
        rows = [
            [kind, f"{BATCH * STEPS / turns.of(kind).median:,.0f}", turns.ratio(kind, "dnn")]
            for kind in ("dnn", *KINDS)
        ]
        show(
            f"{features} features, {' x '.join(map(str, units))}, batches of {BATCH} (aim of ppnet: at most {AIM})",
            ["network", "examples/s", "step against dnn's [quartiles]"],
            rows,
        )


def ids(features: int) -> Schema:
    """A schema of shared ids, a prior user and item, and a domain.

    Args:
        features: Number of shared ids.
    """
    return Schema(
        features=(
            *(FieldConfig(name=f"feature {number}", kind="id") for number in range(features)),
            *(FieldConfig(name=f"prior {name}", kind="id", group="prior") for name in ("user", "item")),
            FieldConfig(name="domain", kind="id", group="domain"),
        ),
        labels=("click",),
        user="prior user",
    )


def steps(kind: str, units: tuple[int, ...], schema: Schema, config: RankerTrainerConfig) -> Callable[[], object]:
    """A function that makes ``STEPS`` updates, each on another batch."""
    network_config = RankingConfig.model_validate({"kind": kind, "hidden_units": units})
    generator = torch.Generator().manual_seed(1)
    network = build(network_config, schema, {table.name: ROWS for table in schema.tables}, generator).train()
    optimizers = make_optimizers(network, config)
    batches = [noise(schema, generator) for _ in range(STEPS)]

    def run() -> None:
        for batch in batches:
            step(network, optimizers, batch)

    return run


def noise(schema: Schema, generator: torch.Generator) -> Batch:
    """A batch of random ids and labels."""
    # Squares of uniform numbers, so that some ids are frequent, as in real data.
    uniform = torch.rand(len(schema.features), BATCH, generator=generator)
    ids = 1 + ((ROWS - 1) * uniform.square()).long()
    labels = torch.randint(2, (BATCH, 1), generator=generator).float()
    named = {feature.name: rows for feature, rows in zip(schema.features, ids, strict=True)}
    return Batch(named, {}, {}, labels, torch.zeros(BATCH, dtype=torch.int64))


if __name__ == "__main__":
    main()
