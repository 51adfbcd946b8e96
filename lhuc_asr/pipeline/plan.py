"""The plan of a recipe's passes: each of them resolved from the recipe's table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from lhuc_asr.adapt.prepared import PreparedConfig
from lhuc_asr.adapt.sat import SatConfig
from lhuc_asr.decode.outputs import LatticeOutput
from lhuc_asr.pipeline.acoustic_models import SAT, ModelPlace, model_place
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.network_config import SequenceNetworkConfig
from lhuc_asr.pipeline.pass_config import SI, PassConfig, first_pass, reuse_name
from lhuc_asr.pipeline.resolved_pass import Adaptation, Combination, Output, Pass, Preparation, Reuse, WithoutRows


def passes_of(config: ExperimentConfig) -> dict[str, Pass]:
    """All passes of a recipe by name, in the order in which they are made: first passes, then the recipe's table.

    A pass of the table is followed by its controls, and by the same parameters under a search of its own if it has one.
    Each pass is followed by its outputs.
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
    return {each.name: each for made in plan.values() for each in (made, *_outputs(config, made))}


def _outputs(config: ExperimentConfig, made: Pass) -> Iterator[Pass]:
    """The same pass with each of the recipe's outputs that is taken of it."""
    adaptation = Reuse(made, "own") if made.estimates else made.adaptation
    for name, options in config.outputs.items():
        if options.passes is not None and made.name not in options.passes:
            continue
        lm = None if options.lm is None else options.lm.of(config.lm)
        words = LatticeOutput(words=options.words, lattice=options.lattice, word_lattice=options.word_lattice)
        output = Output(name, made.name, words, lm)
        yield replace(made, name=reuse_name(made.name, name), adaptation=adaptation, output=output)


def _searched_as(config: ExperimentConfig, network: str, adapted: bool = False) -> str:
    """The pass that tunes the search of a network.

    It is the network's first pass, also of one with sequence training, whose scores are sharper or flatter than those
    that it began with. For networks on features that transforms have moved, it is the first pass by fMLLR
    whose targets need none of them: unadapted features are not those that they know. So it is for speaker-adaptively
    trained Gaussians, whose first pass is by others, their twins for unadapted features.
    """
    trained = trained_network(config, network)
    root = network if trained is None or trained.start is None else trained.start
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
    described = config.networks.get(network)
    if isinstance(described, SequenceNetworkConfig):
        return described.start
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


def nobodys_vectors(config: ExperimentConfig) -> list[str]:
    """A warning for each pass that adapts with the vector of nobody a network that takes vectors of speakers.

    A pass that one by ivector is on has no need of them: it gives what is below.
    """
    methods = {name: config.method_of(plan) for name, plan in config.passes.items() if plan.combine is None}
    below = {method.on for method in methods.values() if method.needs_vectors}
    given: dict[str, str] = {}  # by its network, a pass by ivector that others may be on
    lines: list[str] = []
    for name, method in methods.items():
        network = config.passes[name].network
        if method.needs_vectors and method.on is None:
            given.setdefault(network, name)
        has_own = method.needs_vectors or (method.on is not None and methods[method.on].needs_vectors)
        if config.voices_of(network) is None or has_own or name in below:
            continue
        if method.on is not None:
            remedy = f"a stack has two methods: put it on a pass by ivector in place of {method.on}"
        elif method.uses_gaussians:
            remedy = "put a pass by ivector on it to give the network the speaker's own"
        elif network in given:
            remedy = f"put on: {given[network]} into its method to adapt with the speaker's own"
        else:
            remedy = "put a pass by ivector before it, and on: with its name into this method"
        lines.append(f"passes: {name!r} adapts network {network} with the vector of nobody; {remedy}")
    return lines


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


def sequence_networks(config: ExperimentConfig, names: Iterable[str]) -> dict[str, SequenceNetworkConfig]:
    """Those networks of some that have sequence training, by name."""
    described = ((name, config.networks.get(name)) for name in names)
    return {name: each for name, each in described if isinstance(each, SequenceNetworkConfig)}


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
    on_vectors = method.on is not None and config.method_of(config.passes[method.on]).needs_vectors
    return Preparation(
        network=options.network,
        method=method.model_copy(update=defaults),
        silence_weight=options.targets.silence_weight,
        environments=options.data.environments,
        seed=config.seed,
        place=_place(config, options.network),
        voices=config.voices_of(options.network) if on_vectors else None,
    )


def _place(config: ExperimentConfig, model: str) -> ModelPlace | None:
    place = model_place(config, model)
    return None if place == ModelPlace() else place
