"""A cluster of this machine, for benchmarks: raylets of one processor and one folder each, and a server of S3."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import boto3
from moto.server import ThreadedMotoServer
from ray.cluster_utils import Cluster

BUCKET = "benchmark"
# So many seconds into a stage a raylet ends.
KILLED_AFTER = 3.0


@contextmanager
def s3_server() -> Iterator[None]:
    """A server that speaks S3, with an empty bucket."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    os.environ |= {"AWS_DEFAULT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    try:
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield
    finally:
        server.stop()


@contextmanager
def raylets(count: int, killed_in: Sequence[str] = ()) -> Iterator[str]:
    """The address of a cluster.

    Args:
        count: Number of raylets that stay.
        killed_in: Stages of a recipe; in each, one further raylet ends.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster, log = Cluster(), logging.getLogger("lhuc_asr")

    def add() -> None:
        folder = tempfile.mkdtemp(prefix="raylet-")
        cluster.add_node(
            num_cpus=1,
            object_store_memory=100 << 20,
            include_dashboard=False,
            env_vars={"TMPDIR": folder, "OMP_NUM_THREADS": "1"},
        )

    timers: list[threading.Timer] = []
    alone = threading.Lock()

    def end_one(stage: str) -> None:
        with alone:
            cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
            log.warning("benchmark: a raylet was ended in %s", stage)

    class Ending(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if (stage := record.getMessage().partition(" (stage")[0]) in killed_in:
                timers.append(threading.Timer(KILLED_AFTER, end_one, [stage]))
                timers[-1].start()

    handler = Ending(logging.INFO)
    log.addHandler(handler)
    try:
        # Ray starts raylets in the main thread alone.
        for _ in range(count + len(killed_in)):
            add()
        yield cluster.address
    finally:
        log.removeHandler(handler)
        for timer in timers:
            timer.cancel()
            timer.join()
        cluster.shutdown()  # type: ignore[no-untyped-call]
