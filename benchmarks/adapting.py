"""What the benchmarks of adaptation methods share: a method of a finished experiment, ready to estimate."""

from __future__ import annotations

from collections.abc import Sequence

import yaml
from pydantic import TypeAdapter

from lhuc_asr.adapt.adaptation_sets import DataConfig
from lhuc_asr.adapt.method import AdaptationMethod, MethodConfig
from lhuc_asr.adapt.methods import AnyMethod
from lhuc_asr.adapt.prepared import PreparedConfig
from lhuc_asr.adapt.targets import TargetsConfig
from lhuc_asr.adapt.two_pass import TwoPass
from lhuc_asr.decode.lattice_search import LatticeConfig
from lhuc_asr.pipeline.earlier_pass import EarlierPass
from lhuc_asr.pipeline.experiment import AlignedExperiment
from lhuc_asr.pipeline.pass_config import SI
from lhuc_asr.pipeline.passes import prepare
from lhuc_asr.pipeline.resolved_pass import Adaptation, Pass, Preparation


def ready(experiment: AlignedExperiment, method: MethodConfig, silence_weight: float, seed: int) -> AdaptationMethod:
    """A method of the network ``si``; what it learns from the training speakers is learned once an experiment."""
    if not isinstance(method, PreparedConfig):
        return method.make(None)
    preparation = Preparation(SI, method, silence_weight, None, seed)
    folder = experiment.folder.prepared(preparation.name)
    if not folder.exists():
        prepare(experiment, preparation)
    return method.make(folder)


def first_pass(
    experiment: AlignedExperiment, split: str, plan: Pass, method: MethodConfig, targets: TargetsConfig, loop: TwoPass
) -> EarlierPass:
    """The finished first pass over a split, which targets are made of."""
    adaptation = Adaptation(plan, DataConfig(), targets, method, None, None, LatticeConfig(), None)
    return EarlierPass(experiment, split, plan, plan, adaptation, loop.model)


def methods_of(texts: Sequence[str]) -> list[MethodConfig]:
    """Methods that are written as in a recipe."""
    adapter: TypeAdapter[MethodConfig] = TypeAdapter(AnyMethod)
    return [adapter.validate_python(yaml.safe_load(text)) for text in texts]


def title_of(method: MethodConfig) -> str:
    """The options of a method that are not its defaults, as in a recipe."""
    return yaml.safe_dump(method.model_dump(exclude_unset=True), default_flow_style=True, width=1000).strip()
