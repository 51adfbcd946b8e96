"""A resolved pass: all that its result depends on.

A ``Pass`` holds all options that its result depends on, also those of the passes that it builds on. The work of a pass
is given no other options, and its stage's key is made of them. The key also contains the stages that the pass depends
on: network, graph, earlier passes, preparation, tuned search. ``_pass_stage`` in ``pipeline/order.py`` names them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated, Literal

from lhuc_asr.adapt.adaptation_sets import DataConfig
from lhuc_asr.adapt.methods import METHODS, AnyMethod
from lhuc_asr.adapt.prepared import PreparedConfig
from lhuc_asr.adapt.targets import TargetsConfig
from lhuc_asr.base.config import ChosenByKind
from lhuc_asr.decode.lattice_search import LatticeConfig
from lhuc_asr.decode.outputs import LatticeOutput
from lhuc_asr.decode.search import SearchConfig
from lhuc_asr.lang.language_model import LanguageModelConfig
from lhuc_asr.nnet.schedule import NewbobConfig
from lhuc_asr.pipeline.acoustic_models import ModelPlace
from lhuc_asr.pipeline.pass_config import TuningConfig, reuse_name


@dataclass(frozen=True)
class WithoutRows:
    """The control of an adaptively trained network: trained on from another for as many epochs, without rows.

    Attributes:
        start: Name of the other network.
        schedule: Schedule of the learning rate; None for the trainer's.
    """

    start: str | None
    schedule: NewbobConfig | None


@dataclass(frozen=True)
class Preparation:
    """A method's learning from the training speakers; passes share it if their methods learn the same.

    Attributes:
        network: Name of the network.
        method: Options of the method; those that do not affect what is learned have their defaults.
        silence_weight: Weight of silence in the targets.
        environments: Environments of the recordings to learn from; None for all.
        seed: Seed of the learning.
        place: Place of the network; None for the networks' own features.
        voices: Name of the network whose vectors the training speakers have beside their features, as those have to
            whom a method on top of vectors adapts; None for features alone.
    """

    network: str
    method: Annotated[PreparedConfig, ChosenByKind(METHODS)]
    silence_weight: float
    environments: tuple[str, ...] | None
    seed: int
    place: ModelPlace | None = None
    voices: str | None = None

    @property
    def name(self) -> str:
        """Name of the folder of what is learned, in ``speakers/prepared/``."""
        options = self.method.model_dump_json(exclude=set(self.method.not_prepared))
        depends = [self.network, self.silence_weight, options]
        if self.environments is not None:
            depends.append(self.environments)
        if self.voices is not None:
            depends.append(("voices", self.voices))
        return f"{self.method.kind}-{hashlib.sha256(repr(depends).encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Adaptation:
    """How a pass adapts its network.

    Attributes:
        source: The earlier pass that targets are made from.
        data: Recordings to adapt on, and recordings that are decoded with the result.
        targets: Options of the targets; ``lm_order`` is None if it is the recipe's own.
        method: Options of the method.
        on: The earlier pass whose transforms, or vectors, change the features before the method; None for features as
            they are.
        preparation: Learning from the training speakers; None for a method that learns nothing from them.
        lattice: Options of the lattices that targets are made from; None for targets of other kinds.
        max_unaligned: Maximum fraction of the references that fail to align; None for targets of other kinds.
    """

    source: Pass
    data: DataConfig
    targets: TargetsConfig
    method: AnyMethod
    on: Pass | None
    preparation: Preparation | None
    lattice: LatticeConfig | None
    max_unaligned: float | None


@dataclass(frozen=True)
class Combination:
    """Two earlier passes whose amplitudes a pass combines; see ``adapt/environment.py``.

    Attributes:
        speaker: The pass with r_S.
        environment: The pass with r_E.
        alpha: Weight of the speaker's amplitudes; None for the product.
    """

    speaker: Pass
    environment: Pass
    alpha: float | None


@dataclass(frozen=True)
class Reuse:
    """The parameters of an earlier pass, decoded again.

    Attributes:
        source: The earlier pass.
        whose: ``own`` for the same parameters under another search, or a kind of control; see ``adapt/controls.py``.
    """

    source: Pass
    whose: Literal["own", "others_mean", "others_mean_of_both", "another"]


@dataclass(frozen=True)
class Output:
    """Other words of a pass than those of its best path, from its lattices.

    Attributes:
        name: Name of the output in the recipe.
        of: Name of the pass.
        options: Which words.
        lm: Options of the language model that lattices are rescored with; None to leave the graph's scores.
    """

    name: str
    of: str
    options: LatticeOutput
    lm: LanguageModelConfig | None

    @property
    def language_model(self) -> str | None:
        """Name of the language model, below ``lang/``."""
        return None if self.lm is None else f"rescored_{self.name}"


@dataclass(frozen=True)
class Pass:
    """A pass over a split, resolved.

    Attributes:
        name: Name of the pass, and of its folders.
        network: Name of the acoustic model that decodes.
        adaptation: How the network is adapted, or whose parameters it has; None for a first pass.
        search: Options of the search, before tuning.
        searched_as: Name of the pass whose tuned scale and penalty are used: the network's first pass, or this pass.
        tuning: Scales and penalties to try in tuning.
        seed: Seed of the adaptation.
        place: Place of the acoustic model; None for a network on the networks' own features.
        output: Which words the pass takes from lattices; None for those of the best path.
    """

    name: str
    network: str
    adaptation: Adaptation | Combination | Reuse | None
    search: SearchConfig
    searched_as: str
    tuning: TuningConfig
    seed: int
    place: ModelPlace | None = None
    output: Output | None = None

    @property
    def states(self) -> str | None:
        """Name of the topology, in ``hmm/``, of the pass's pdfs; None for the last alignment's."""
        return None if self.place is None else self.place.states

    @property
    def tuned(self) -> bool:
        """Whether a scale and a penalty are tuned with this pass on the held-out speakers."""
        return self.searched_as == self.name

    @property
    def estimates(self) -> bool:
        """Whether the pass estimates parameters of speakers."""
        return isinstance(self.adaptation, Adaptation | Combination)

    @property
    def borrows(self) -> bool:
        """Whether the pass has the parameters of other speakers."""
        return isinstance(self.adaptation, Reuse) and self.adaptation.whose != "own"

    @property
    def is_stacked(self) -> bool:
        """Whether the pass adapts on top of another's transforms or vectors."""
        return isinstance(self.adaptation, Adaptation) and self.adaptation.on is not None

    @property
    def is_control(self) -> bool:
        """Whether the pass is a control of another."""
        return self.borrows or self.network.endswith(reuse_name("", "without_rows"))

    @property
    def by_environment(self) -> bool:
        """Whether the pass has parameters of environments, which carry nothing of the speaker who is decoded."""
        match self.adaptation:
            case Adaptation(data=data):
                return data.unit == "environment"
            case Reuse(source=source):
                return source.by_environment
        return False

    def possible(self, speakers: int, environments: int) -> bool:
        """Whether the pass can be made over a split: who borrows parameters needs others.

        Args:
            speakers: Number of speakers of the split.
            environments: Number of environments of the speaker who has the fewest.
        """
        return not self.borrows or (environments if self.by_environment else speakers) > 1

    @property
    def needed(self) -> tuple[Pass, ...]:
        """The earlier passes that this one reads."""
        match self.adaptation:
            case Adaptation(source=source, on=on):
                return (source,) if on is None else (source, on)
            case Reuse(source=source):
                return (source,)
            case Combination(speaker=speaker, environment=environment):
                return speaker, environment
            case None:
                return ()

    @property
    def lm_order(self) -> int | None:
        """Order of the language model in the search for targets; None for the recipe's own."""
        return self.adaptation.targets.lm_order if isinstance(self.adaptation, Adaptation) else None

    @property
    def preparation(self) -> Preparation | None:
        """The learning from the training speakers; None for a pass without it."""
        return self.adaptation.preparation if isinstance(self.adaptation, Adaptation) else None


def stage_of(plan: Pass) -> str:
    """Name of the stage that makes a pass, without its split. One stage makes all outputs of a pass."""
    return plan.name if plan.output is None else outputs_stage(plan.output.of)


def outputs_stage(name: str) -> str:
    """Name of the stage that makes all outputs of a pass, without its split."""
    return f"outputs of {name}"
