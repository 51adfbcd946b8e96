"""A door that cannot be opened says why, and leaves nothing behind."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import ray

from lhuc_asr.base.cluster import ClusterError
from lhuc_asr.serving.door import opened_door


def test_a_port_that_is_taken_is_named_and_ray_ends(exported: Path, two_machines: Any) -> None:
    """Beside a cluster of this machine, which a door without an address leaves alone."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        served = opened_door(exported, None, held=3, port=port)
        with pytest.raises(ClusterError, match=rf"Failed to bind .*127\.0\.0\.1:{port}.*is port {port} free\?"), served:
            pass
    assert not ray.is_initialized()
