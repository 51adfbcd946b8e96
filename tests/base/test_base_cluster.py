"""A cluster of two raylets on this machine: answers, errors, and clusters that are not there or do not fit."""

from __future__ import annotations

import logging
import subprocess
import time
from typing import Any

import pytest

from lhuc_asr.base import cluster as module
from lhuc_asr.base.cluster import Cluster, ClusterError
from lhuc_asr.base.object_store import StoreError, open_store
from lhuc_asr.base.plain_values import dump_plain


def test_each_task_has_its_answer(two_machines: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), Cluster(two_machines.address) as cluster:
        assert f"cluster {two_machines.address}: 2 machines, 2 processors" in caplog.text
        tasks = [(f"task {number}", {"number": number, "text": ["é", None]}) for number in range(20)]
        answers = {answer.name: answer.value for answer in cluster.run(dump_plain, iter(tasks))}
    assert answers == {name: dump_plain(values) for name, values in tasks}


def test_only_this_packages_functions_are_run(two_machines: Any) -> None:
    refused = pytest.raises(ClusterError, match="subprocess:run: not a function of lhuc_asr")
    with Cluster(two_machines.address) as cluster, refused:
        list(cluster.run(subprocess.run, [("a", ["true"])]))


def test_an_error_of_ours_is_the_same_error_here(two_machines: Any) -> None:
    with Cluster(two_machines.address) as cluster, pytest.raises(StoreError, match=r"^gs://x: stores are s3://"):
        list(cluster.run(open_store, [("a", "gs://x")]))


def test_another_error_is_one_line_and_its_trace_is_in_the_log(
    two_machines: Any, caplog: pytest.LogCaptureFixture
) -> None:
    whole = pytest.raises(ClusterError, match=r"^the third: .*; the log has the whole error$")
    with Cluster(two_machines.address) as cluster, whole:
        list(cluster.run(open_store, [("the third", 7)]))
    assert "Traceback" in caplog.text
    assert "in open_store" in caplog.text


@pytest.mark.parametrize("address", ["127.0.0.1:9", "no.such.host.invalid:6379", "127.0.0.1"])
def test_a_cluster_that_is_not_there_is_said_at_once(address: str) -> None:
    begun = time.monotonic()
    with pytest.raises(ClusterError, match=rf"{address}: no Ray cluster .*; start one with ray start"):
        Cluster(address).__enter__()
    assert time.monotonic() - begun < 30.0


def test_machines_with_another_version_are_named(two_machines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMPARED", ("lhuc_asr", "not-installed-anywhere"))
    monkeypatch.setattr(module, "versions_here", lambda names: {"lhuc_asr": "9.9", "not-installed-anywhere": "1"})
    with pytest.raises(ClusterError, match=r"has lhuc_asr \d.*, and this one 9.9, .*-anywhere none, and this one 1,"):
        Cluster(two_machines.address).__enter__()
    monkeypatch.undo()
    with Cluster(two_machines.address) as cluster:  # the connection was closed
        assert list(cluster.run(dump_plain, [])) == []
