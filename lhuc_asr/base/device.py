"""The device that a network runs on, checked before any work."""

from __future__ import annotations

import torch

from lhuc_asr.base.errors import ConfigError


def checked_device(name: str, setting: str) -> torch.device:
    """A device that torch can use here.

    Args:
        name: Name of the device: cpu, cuda, cuda:1.
        setting: How the user sets the device, for the message: "device=" or "--device ".

    Raises:
        ConfigError: This machine does not have the device, or torch does not know it.
    """
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise ConfigError(
                f"{setting}{name}: not a supported kind of device; give {setting}cpu, {setting}cuda or {setting}cuda:1"
            )
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"{setting}{name}: not available ({str(error).splitlines()[0]}); give {setting}cpu"
        ) from error
    return device
