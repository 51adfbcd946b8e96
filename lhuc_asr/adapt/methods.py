"""The table of adaptation techniques: a new one is a file in this room, and a line in each list here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from lhuc_asr.adapt.lhuc import Lhuc, LhucConfig
from lhuc_asr.adapt.method import AdaptationMethod
from lhuc_asr.adapt.moments import Moments, MomentsConfig

MethodConfig = Annotated[LhucConfig | MomentsConfig, Field(discriminator="kind")]

_METHODS: dict[str, Callable[[Any, Path], AdaptationMethod]] = {
    "lhuc": lambda config, _folder: Lhuc(config),
    "moments": Moments,
}


def make_method(config: LhucConfig | MomentsConfig, folder: Path) -> AdaptationMethod:
    """The technique of a configuration.

    Args:
        config: Its settings; their ``kind`` tells which it is.
        folder: Where techniques that learn from the training speakers keep what they learned.
    """
    return _METHODS[config.kind](config, folder)
