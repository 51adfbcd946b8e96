"""The plan of a recipe's passes: each resolved, with all of its options.

A ``Pass`` holds all options that its result depends on, also those of the passes that it builds on. The work of a pass
is given no other options, and its stage's key is made of them. The key also contains the stages that the pass depends
on: network, graph, earlier passes, preparation, tuned search. ``_pass_stage`` in ``pipeline/order.py`` names them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from lhuc_asr.adapt.adaptation_sets import DataConfig
from lhuc_asr.adapt.method import MethodConfig
from lhuc_asr.adapt.prepared import PreparedConfig
from lhuc_asr.adapt.sat import SatConfig
from lhuc_asr.adapt.targets import TargetsConfig
from lhuc_asr.decode.lattice_search import LatticeConfig
from lhuc_asr.decode.search import SearchConfig
from lhuc_asr.nnet.schedule import NewbobConfig
from lhuc_asr.pipeline.acoustic_models import SAT, ModelPlace, model_place
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.pass_config import SI, PassConfig, TuningConfig, first_pass, reuse_name


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
    """

    network: str
    method: PreparedConfig
    silence_weight: float
    environments: tuple[str, ...] | None
    seed: int
    place: ModelPlace | None = None

    @property
    def name(self) -> str:
        """Name of the folder of what is learned, in ``speakers/prepared/``."""
        options = self.method.model_dump_json(exclude=set(self.method.not_prepared))
        depends = [self.network, self.silence_weight, options]
        if self.environments is not None:
            depends.append(self.environments)
        return f"{self.method.kind}-{hashlib.sha256(repr(depends).encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Adaptation:
    """How a pass adapts its network.

    Attributes:
        source: The earlier pass that targets are made from.
        data: Recordings to adapt on, and recordings that are decoded with the result.
        targets: Options of the targets; ``lm_order`` is None if it is the recipe's own.
        method: Options of the method.
        on: The earlier pass whose transforms move the features before the method; None for features as they are.
        preparation: Learning from the training speakers; None for a method that learns nothing from them.
        lattice: Options of the lattices that targets are made from; None for targets of other kinds.
        max_unaligned: Maximum fraction of the references that fail to align; None for targets of other kinds.
    """

    source: Pass
    data: DataConfig
    targets: TargetsConfig
    method: MethodConfig
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
    """

    name: str
    network: str
    adaptation: Adaptation | Combination | Reuse | None
    search: SearchConfig
    searched_as: str
    tuning: TuningConfig
    seed: int
    place: ModelPlace | None = None

    @property
    def states(self) -> str | None:
        """Name of the topology, in ``hmm/``, of the pass's pdfs; None for the last alignment's."""
        return None if self.place is None else self.place.states

    @property
    def tuned(self) -> bool:
        """Whether a scale and a penalty are tuned with this pass on the held-out speakers."""
        return self.searched_as == self.name

    @property
    def borrows(self) -> bool:
        """Whether the pass has the parameters of other speakers."""
        return isinstance(self.adaptation, Reuse) and self.adaptation.whose != "own"

    @property
    def is_stacked(self) -> bool:
        """Whether the pass adapts on top of another's transforms of the features."""
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


def passes_of(config: ExperimentConfig) -> dict[str, Pass]:
    """All passes of a recipe by name, in the order in which they are made: first passes, then the recipe's table.

    A pass of the table is followed by its controls, and by the same parameters under a search of its own if it has one.
    """
    plan: dict[str, Pass] = {}
    for network in (*config.decoding_rungs, *networks_of(config)):
        name = first_pass(network)
        # A network that was trained from another has scores as sharp as the other's. The first passes of both have the
        # same search, so that they differ only in the networks, and not in lucky choices of the scale.
        searched_as = _searched_as(config, network)
        decoding = config.search, searched_as, config.tuning
        plan[name] = Pass(name, network, None, *decoding, config.seed, _place(config, network))
    for name, options in config.passes.items():
        made = Pass(
            name=name,
            network=options.network,
            adaptation=_adaptation(config, options, plan),
            search=config.search,
            searched_as=_searched_as(config, options.network, adapted=True),
            tuning=config.tuning,
            seed=config.seed,
            place=_place(config, options.network),
        )
        plan[name] = made
        for whose in config.controls:
            control = reuse_name(name, whose)
            if whose == "others_mean_of_both" and not made.is_stacked:
                continue
            if whose != "without_rows":
                plan[control] = replace(made, name=control, adaptation=Reuse(made, whose))
            elif (trained_on := config.network_without_rows(options.network)) and options.combine is None:
                adaptation = _adaptation(config, options.model_copy(update={"network": trained_on}), plan)
                plan[control] = replace(made, name=control, network=trained_on, adaptation=adaptation)
        if options.own_search:
            again = reuse_name(name, "own")
            plan[again] = replace(made, name=again, adaptation=Reuse(made, "own"), searched_as=again)
    return plan


def _searched_as(config: ExperimentConfig, network: str, adapted: bool = False) -> str:
    """The pass that tunes the search of a network.

    It is the network's first pass. For networks on features that transforms have moved, it is the first pass by fMLLR
    whose targets need none of them: unadapted features are not those that they know. So it is for speaker-adaptively
    trained Gaussians, whose first pass is by others, their twins for unadapted features.
    """
    root = start_of(config, network) or network
    if config.rung_features(root) == SAT or (adapted and root == SAT):
        for model in (root, network):
            for name, options in config.passes.items():
                by_fmllr = options.network == model and config.method_of(options).uses_gaussians
                if by_fmllr and not _on_moved_features(config, config.source_of(options)):
                    return name
    return first_pass(root)


def others_in(utterances: Iterable[tuple[str, str]]) -> tuple[int, int]:
    """How many others there are to borrow from in a split; see ``possible``.

    Args:
        utterances: Speaker and environment of each utterance.

    Returns:
        Number of speakers, and of environments of the speaker who has the fewest.
    """
    environments: dict[str, set[str]] = {}
    for speaker, environment in utterances:
        environments.setdefault(speaker, set()).add(environment)
    return len(environments), min(map(len, environments.values()), default=0)


def start_of(config: ExperimentConfig, network: str) -> str | None:
    """Name of the network that a network goes on from; None for one that begins with random weights."""
    trained = trained_network(config, network)
    return None if trained is None else trained.start


def _on_moved_features(config: ExperimentConfig, name: str) -> bool:
    """Whether a network on features that transforms have moved decodes in a pass, or in one that its targets need."""
    options = config.passes.get(name)
    if options is None:
        return any(first_pass(each) == name and config.rung_features(each) == SAT for each in config.all_networks)
    earlier = (config.source_of(options),) if options.combine is None else options.combine.parts
    moved = config.rung_features(options.network) == SAT
    return moved or any(_on_moved_features(config, each) for each in earlier)


def heldout_passes(passes: Mapping[str, Pass]) -> list[Pass]:
    """The passes that are made over the held-out speakers: those that a search is tuned with, and what they need."""
    return with_needed(plan for plan in passes.values() if plan.tuned)


def with_needed(passes: Iterable[Pass]) -> list[Pass]:
    """Passes and all earlier ones that they build on, each after those that it needs."""
    needed: dict[str, Pass] = {}

    def add(plan: Pass) -> None:
        for earlier in plan.needed:
            add(earlier)
        needed[plan.name] = plan

    for plan in passes:
        add(plan)
    return list(needed.values())


def networks_of(config: ExperimentConfig) -> list[str]:
    """Names of the networks that the recipe's passes and their controls need, the speaker-independent one first."""
    needed = config.decoding_models
    starts = {start_of(config, network) for network in config.networks if network in needed}
    names = [SI]
    # Networks that others start from do not start from others themselves.
    for network in sorted(config.networks, key=lambda name: name not in starts):
        if network in needed | starts:
            control = config.network_without_rows(network)
            names += [network] if control is None else [network, control]
    return names


def trained_network(config: ExperimentConfig, name: str) -> SatConfig | WithoutRows | None:
    """How a network is trained on or with rows: an adaptively trained one, or its control; None for the others."""
    owner = name.removesuffix(reuse_name("", "without_rows"))
    trained = config.networks.get(owner)
    if not isinstance(trained, SatConfig):
        return None
    return trained if owner == name else WithoutRows(trained.start, trained.schedule)


def _adaptation(config: ExperimentConfig, options: PassConfig, plan: dict[str, Pass]) -> Adaptation | Combination:
    if options.combine is not None:
        speaker, environment = (plan[part] for part in options.combine.parts)
        return Combination(speaker, environment, options.combine.alpha)
    targets, source, on = options.targets, config.source_of(options), config.method_of(options).on
    if on is not None and config.passes[on].network != options.network:
        on = reuse_name(on, "without_rows")  # transforms belong to a network
    own_order = targets.lm_order in (None, config.lm.order)
    return Adaptation(
        source=plan[source],
        data=options.data,
        targets=targets.model_copy(update={"source": source, "lm_order": None if own_order else targets.lm_order}),
        method=config.method_of(options),
        on=None if on is None else plan[on],
        preparation=_preparation(config, options),
        lattice=config.lattice if targets.from_lattices else None,
        max_unaligned=None if targets.unsupervised else config.max_unaligned,
    )


def _preparation(config: ExperimentConfig, options: PassConfig) -> Preparation | None:
    method = config.method_of(options)
    if not isinstance(method, PreparedConfig):
        return None
    defaults = {name: type(method).model_fields[name].default for name in method.not_prepared}
    return Preparation(
        network=options.network,
        method=method.model_copy(update=defaults),
        silence_weight=options.targets.silence_weight,
        environments=options.data.environments,
        seed=config.seed,
        place=_place(config, options.network),
    )


def _place(config: ExperimentConfig, model: str) -> ModelPlace | None:
    place = model_place(config, model)
    return None if place == ModelPlace() else place
