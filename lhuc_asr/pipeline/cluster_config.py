"""The parts of a recipe that say where other machines and stores are: a Ray cluster, and the shards of training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.local_path import Place

ExecutorName = Literal["local", "ray"]


class RayConfig(StrictModel):
    """A Ray cluster.

    Attributes:
        address: ``auto`` for the cluster that this machine belongs to, or ``HOST:PORT`` of its head.
        store: Where the machines leave files for each other: ``s3://BUCKET/PREFIX``, or a folder that all of them see.
    """

    address: str = "auto"
    store: Place


class ShardsConfig(StrictModel):
    """Shards of training frames: Lhotse Shar with features and pdfs, which networks are trained from.

    Attributes:
        store: Where they are written and read: ``s3://BUCKET/PREFIX``, or a folder.
        minutes: Speech in a shard, at least. A few shards are in memory at a time.
    """

    store: Place
    minutes: float = Field(10.0, gt=0.0, le=1_000.0)
