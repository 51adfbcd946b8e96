"""Devices are checked before any work."""

from __future__ import annotations

import pytest
import torch

from lhuc_asr.base.device import checked_device
from lhuc_asr.base.errors import ConfigError


def test_the_cpu_is_always_there() -> None:
    assert checked_device("cpu", "device=") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda:99", "gpu", ""])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^--device {name}: not available \(.+\); give --device cpu$"):
        checked_device(name, "--device ")


def test_a_device_that_computes_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^device=meta: not a supported kind of device"):
        checked_device("meta", "device=")
