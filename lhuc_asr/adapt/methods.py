"""The table of adaptation techniques: a new one is a file in this room, and a line in each list here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from lhuc_asr.adapt.bayes import Bayes, BayesConfig
from lhuc_asr.adapt.lhuc import Lhuc, LhucConfig
from lhuc_asr.adapt.method import AdaptationMethod
from lhuc_asr.adapt.moments import Moments, MomentsConfig
from lhuc_asr.adapt.predicted import Predicted, PredictedConfig
from lhuc_asr.adapt.subspace import Subspace, SubspaceConfig
from lhuc_asr.adapt.unadapted import Unadapted, UnadaptedConfig

AnyMethod = LhucConfig | MomentsConfig | BayesConfig | SubspaceConfig | PredictedConfig | UnadaptedConfig
MethodConfig = Annotated[AnyMethod, Field(discriminator="kind")]

_METHODS: dict[str, Callable[[Any, Path | None], AdaptationMethod]] = {
    "lhuc": lambda config, _folder: Lhuc(config),
    "moments": Moments,
    "bayes": Bayes,
    "subspace": Subspace,
    "predicted": Predicted,
    "none": lambda config, _folder: Unadapted(config),
}


def make_method(config: AnyMethod, folder: Path | None) -> AdaptationMethod:
    """The technique of a configuration.

    Args:
        config: Its settings; their ``kind`` tells which it is.
        folder: Where techniques that learn from the training speakers keep what they learned;
            the others need none.
    """
    return _METHODS[config.kind](config, folder)


def layers_of(config: AnyMethod) -> tuple[int, ...] | None:
    """The hidden layers that get amplitudes; None all."""
    if isinstance(config, UnadaptedConfig):
        return None
    return config.layers if isinstance(config, LhucConfig | MomentsConfig) else config.lhuc.layers
