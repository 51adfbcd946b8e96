"""The table of adaptation techniques: a new one is a file in this room, and a line here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lhuc_asr.adapt.lhuc import Lhuc, LhucConfig
from lhuc_asr.adapt.method import AdaptationMethod

MethodConfig = LhucConfig

_METHODS: dict[str, Callable[..., Any]] = {"lhuc": Lhuc}


def make_method(config: MethodConfig, folder: Path | None = None) -> AdaptationMethod:
    """The technique of a configuration.

    Args:
        config: Its settings; their ``kind`` tells which it is.
        folder: Where techniques that learn from the training speakers keep what they learned.
    """
    method: AdaptationMethod = _METHODS[config.kind](config)
    return method
