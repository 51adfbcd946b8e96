"""The passes of a model: what it does with a new speaker's recordings, one pass after the other."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from lhuc_asr.adapt.methods import AnyMethod
from lhuc_asr.adapt.targets import TargetsConfig
from lhuc_asr.base.config import StrictModel
from lhuc_asr.decode.search import SearchConfig
from lhuc_asr.features.filterbank import FeatureConfig

# A name that is a part of a file's name too.
PlainName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$", max_length=200)]


class PassDescription(StrictModel):
    """A pass of a model, as in the experiment that it was exported from.

    Attributes:
        name: Name of the pass.
        network: Name of the network that decodes; None for the Gaussian mixtures.
        features: Options of the features.
        in_space: Whether the features are moved into the space of the Gaussian mixtures.
        search: Options of the search, as tuned in the experiment.
        method: Options of the adaptation method; None for a first pass.
        targets: Options of the adaptation targets, made from the earlier pass ``source``; None for a first pass.
    """

    name: PlainName
    network: PlainName | None
    features: FeatureConfig
    in_space: bool
    search: SearchConfig
    method: AnyMethod | None
    targets: TargetsConfig | None

    @model_validator(mode="after")
    def _adapts_or_not(self) -> Self:
        if (self.method is None) != (self.targets is None) or (self.targets and self.targets.source is None):
            raise ValueError(f"the pass {self.name!r} has a method, targets, and a source of these, or none of them")
        return self

    @property
    def needed(self) -> tuple[str, ...]:
        """Names of the earlier passes whose words, transforms and vectors it takes."""
        source = None if self.targets is None else self.targets.source
        on = None if self.method is None else self.method.on
        return tuple(name for name in (source, on) if name is not None)


def check_chain(passes: tuple[PassDescription, ...]) -> None:
    """Refuse passes that are not in order.

    Raises:
        ValueError: Two have one name, one needs another that does not come before it, or is on one that does not
            transform features.
    """
    earlier: dict[str, PassDescription] = {}
    for each in passes:
        if each.name in earlier:
            raise ValueError(f"passes: two are named {each.name!r}")
        if missing := [name for name in each.needed if name not in earlier]:
            raise ValueError(f"passes: {each.name!r} needs {missing[0]!r}, which does not come before it")
        on = None if each.method is None or each.method.on is None else earlier[each.method.on]
        if on is not None and (on.method is None or not on.method.transforms_features):
            raise ValueError(f"passes: {each.name!r} is on {on.name!r}, which does not transform features")
        earlier[each.name] = each
