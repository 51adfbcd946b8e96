"""The part of a recipe that says where a Ray cluster is, and the store that its machines share."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lhuc_asr.base.config import StrictModel

ExecutorName = Literal["local", "ray"]


class RayConfig(StrictModel):
    """A Ray cluster.

    Attributes:
        address: ``auto`` for the cluster that this machine belongs to, or ``HOST:PORT`` of its head.
        store: Where the machines leave files for each other: ``s3://BUCKET/PREFIX``, or a folder that all of them see.
    """

    address: str = "auto"
    store: str = Field(min_length=1)
