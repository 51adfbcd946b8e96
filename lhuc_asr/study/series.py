"""The table of series: each is a set of passes that differ from a base pass in one option.

The base is a pass of the recipe with the method ``lhuc`` and targets from an earlier pass. All passes of a network are
searched with the network's scale and penalty, and compared with the unadapted network and with the mean of the other
speakers' parameters. Targets from lattices flatten the scores, so that this scale may not suit them: a pass with such
targets is also decoded with a search of its own, which is a curve of its own. The networks of a series are trained
from random weights, on the features of the base's network.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args

from lhuc_asr.adapt.adaptation_sets import DataConfig
from lhuc_asr.adapt.lhuc import PAPER, LhucConfig
from lhuc_asr.adapt.methods import METHODS
from lhuc_asr.adapt.moments import MomentsConfig
from lhuc_asr.adapt.sat import SatConfig
from lhuc_asr.adapt.targets import TargetsConfig
from lhuc_asr.base.config import parse_config
from lhuc_asr.base.errors import ConfigError
from lhuc_asr.lhuc.amplitude import AmplitudeName
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.pass_config import PassConfig, first_pass, reuse_name

SECONDS = (5, 10, 20, 30, 60)
UTTERANCES = (1, 2, 5, 10)
SILENCE_WEIGHTS = (0.0, 0.01, 0.1, 1.0)
# Factors on the base's learning rate, and numbers of sweeps.
RATES, SWEEPS = (0.2, 1.0, 5.0), (1, 3, 10)
POWERS = (1.0, 2.0)
CORRUPTED = (0.1, 0.2, 0.4)
GAMMAS = (0.3, 0.5, 0.7)


@dataclass(frozen=True)
class TrainedNetwork:
    """A network that is trained for a series.

    Attributes:
        network: Its name.
        options: Options of its training.
    """

    network: str
    options: SatConfig


@dataclass(frozen=True)
class Variant:
    """A pass of a series.

    Attributes:
        name: Name of the pass: ``<base>__...``, or that of an equal pass of the recipe.
        curve: Name of the curve that the pass belongs to.
        label: Value of the option that differs, on the figure's axis.
        plan: Options of the pass; None for the first pass of a network, or a pass under a search of its own.
        trained: The network of the pass, if it is trained for the series.
    """

    name: str
    curve: str
    label: str
    plan: PassConfig | None
    trained: TrainedNetwork | None = None


@dataclass(frozen=True)
class Series:
    """A set of passes that differ in one option.

    Attributes:
        title: Title of the figure: the option that differs.
        axis: Title of the axis of labels.
        paper: Finding of the paper (Swietojanski, Li, Renals 2016).
        variants: Function that makes the passes, given the recipe and the name of the base.
        joined: Whether a line joins the points of a curve, as suits labels that are amounts and not kinds.
        costs: Whether the table has the numbers of a speaker and the seconds of adaptation.
    """

    title: str
    axis: str
    paper: str
    variants: Callable[[ExperimentConfig, str], list[Variant]]
    joined: bool = True
    costs: bool = False


def base_pass(config: ExperimentConfig, name: str | None) -> str:
    """The base of a series: the named pass, or the recipe's first that can be a base.

    Raises:
        ConfigError: The named pass cannot be a base, or no pass of the recipe can.
    """
    possible = [
        known
        for known, plan in config.passes.items()
        if plan.combine is None and plan.targets.unsupervised and isinstance(config.method_of(plan), LhucConfig)
    ]
    if name is None and possible:
        return possible[0]
    if name not in possible:
        fault = "the recipe has no pass" if name is None else f"{name!r} is not a pass of the recipe"
        raise ConfigError(
            f"{fault} that a series can start from; expected a pass with the method lhuc and targets from an earlier "
            f"pass; such passes: {', '.join(possible) or 'none, add one to the recipe'}"
        )
    return name


def variants_of(config: ExperimentConfig, name: str, base: str) -> list[Variant]:
    """The passes of a series; a variant that equals a pass of the recipe, such as the base, has that pass's name.

    Raises:
        ConfigError: The recipe has a different pass or network under a name that the series needs.
    """
    variants = []
    for variant in SERIES[name].variants(config, base):
        own = variant.trained
        if own is not None and config.networks.get(own.network, own.options) != own.options:
            raise ConfigError(f"networks: {own.network!r} is also a network of the series {name}; rename the recipe's")
        if variant.plan is not None:
            variant = _named(config, name, variant, variant.plan)
        variants.append(variant)
        if variant.plan is not None and variant.plan.own_search:
            again = reuse_name(variant.name, "own")
            variants.append(replace(variant, name=again, curve="search of its own", plan=None))
    return variants


def _named(config: ExperimentConfig, name: str, variant: Variant, plan: PassConfig) -> Variant:
    """A variant with the name of the recipe's pass that equals it, if there is one."""
    if (known := _equal_pass(config, plan)) is not None:
        return replace(variant, name=known)
    if variant.name in config.passes:
        raise ConfigError(f"passes: {variant.name!r} is also a pass of the series {name}; rename the recipe's")
    return variant


def _equal_pass(config: ExperimentConfig, plan: PassConfig) -> str | None:
    """The recipe's pass that equals another; None if there is none."""
    wanted = _resolved(config, plan)
    return next((known for known, other in config.passes.items() if _resolved(config, other) == wanted), None)


def _resolved(config: ExperimentConfig, plan: PassConfig) -> dict[str, Any]:
    """The options of a pass with the recipe's defaults filled in."""
    options = plan.model_dump() | {"method": config.method_of(plan)}
    order = plan.targets.lm_order or config.lm.order
    options["targets"] |= {"source": config.source_of(plan), "lm_order": order}
    return options


def _varied(config: ExperimentConfig, base: str, label: str, changes: Mapping[str, Any]) -> Variant:
    """The base with changed options of its method."""
    plan = config.passes[base]
    options = config.method_of(plan)
    method = parse_config(type(options), {**options.model_dump(), **changes}, f"a variant of the pass {base!r}")
    return _variant(base, label, plan.model_copy(update={"method": method}))


def _variant(base: str, label: str, plan: PassConfig, curve: str = "") -> Variant:
    suffix = re.sub(r"[^A-Za-z0-9-]+", "_", f"{curve} {label}".strip().replace(".", "-"))
    return Variant(f"{base}__{suffix}", curve or base, label, plan)


def _amplitudes(config: ExperimentConfig, base: str) -> list[Variant]:
    return [_varied(config, base, name, {"amplitude": name}) for name in get_args(AmplitudeName)]


def _layers(config: ExperimentConfig, base: str) -> list[Variant]:
    layers = config.shape_of(config.passes[base].network).site_count
    below = [_varied(config, base, f"bottom {n}", {"layers": tuple(range(n))}) for n in range(1, layers)]
    return [*below, _varied(config, base, f"bottom {layers}", {"layers": None})]


def _steps(config: ExperimentConfig, base: str) -> list[Variant]:
    original = config.method_of(config.passes[base]).model_dump()["learning_rate"]
    variants = []
    for factor in RATES:
        rate = float(f"{factor * original:.3g}")
        for sweeps in SWEEPS:
            changes = {"learning_rate": rate, "sweeps": sweeps}
            variant = _varied(config, base, f"rate {rate:g}, {sweeps} sweeps".replace(",", ""), changes)
            variants.append(replace(variant, curve=f"rate {rate:g}", label=f"{sweeps}"))
    return variants


def _amounts(config: ExperimentConfig, base: str, options: str, amounts: tuple[int, ...], unit: str) -> list[Variant]:
    """The base, and moments, each with limited amounts of every speaker's data and with all of it."""
    original = config.passes[base]
    variants = []
    for curve, method in (("", original.method), ("moments", MomentsConfig())):
        for amount in (*amounts, None):
            limits = {"seconds": None, "utterances": None, options: amount}
            plan = original.model_copy(update={"method": method, "data": _data(original, limits)})
            variants.append(_variant(base, "all" if amount is None else f"{amount} {unit}", plan, curve))
    return variants


def _data(plan: PassConfig, changes: Mapping[str, Any]) -> DataConfig:
    return parse_config(DataConfig, {**plan.data.model_dump(), **changes}, "a variant's data")


def _seconds(config: ExperimentConfig, base: str) -> list[Variant]:
    return _amounts(config, base, "seconds", SECONDS, "s")


def _utterances(config: ExperimentConfig, base: str) -> list[Variant]:
    return _amounts(config, base, "utterances", UTTERANCES, "utterances")


def _targets(config: ExperimentConfig, base: str) -> list[Variant]:
    original = config.passes[base]
    kept = {"source": original.targets.source, "silence_weight": original.targets.silence_weight}
    kinds: dict[str, dict[str, Any]] = {
        "best path": {"kind": "best_path"},
        **{
            f"{order}-gram": {"kind": "best_path", "lm_order": order}
            for order in range(1, 4)
            if order != config.lm.order
        },
        "reference": {"kind": "reference"},
        **{f"{100 * share:g} % wrong": {"kind": "reference", "corrupted": share} for share in CORRUPTED},
        "confidence": {"kind": "confidence"},
        "agreement": {"kind": "agreement"},
        **{f"lattice power {power:g}": {"kind": "lattice", "power": power} for power in POWERS},
    }
    variants = []
    for label, changes in kinds.items():
        targets = parse_config(TargetsConfig, {**kept, **changes}, f"the variant {label!r}")
        changes = {"targets": targets, "own_search": targets.from_lattices}
        variants.append(_variant(base, label, original.model_copy(update=changes)))
    return variants


def _silence(config: ExperimentConfig, base: str) -> list[Variant]:
    original = config.passes[base]
    return [
        _variant(
            base,
            f"silence {weight:g}",
            original.model_copy(update={"targets": original.targets.model_copy(update={"silence_weight": weight})}),
        )
        for weight in SILENCE_WEIGHTS
    ]


def _modes(config: ExperimentConfig, base: str) -> list[Variant]:
    original = config.passes[base]
    variants = []
    modes = ["two_pass", "one_shot", "online"]
    if (original.data.utterances, original.data.seconds) == (None, None):
        modes.append("incremental")  # which learns from each recording once, without a limit
    for curve, method in (("", original.method), ("moments", MomentsConfig())):
        for mode in modes:
            plan = original.model_copy(update={"method": method, "data": _data(original, {"mode": mode})})
            variants.append(_variant(base, mode, plan, curve))
    return variants


def _methods(config: ExperimentConfig, base: str) -> list[Variant]:
    """The base, the paper's options, and each other method for the base's network and from the base's words.

    The methods have their default options, but for ``kl_weight``, which says how far the words are trusted: it is the
    base's wherever a method has it.
    """
    original = config.passes[base]
    of_base = config.method_of(original).model_dump()
    on = of_base["on"]
    variants = [_variant(base, base, original), _varied(config, base, "paper", {**PAPER, "preset": "paper"})]
    left_out = {"lhuc", "none"} if config.shape_of(original.network).rectified else {"lhuc", "none", "prelu"}
    # Transforms do not go on top of transforms.
    left_out |= {
        kind for kind, options in METHODS.items() if options.uses_gaussians or (options.transforms_features and on)
    }
    if config.voices_of(original.network) is None:
        left_out |= {kind for kind, options in METHODS.items() if options.needs_vectors}
    if not config.on_filterbanks(original):
        left_out |= {kind for kind, options in METHODS.items() if options.needs_filterbanks}
    for kind, options in METHODS.items():
        if kind not in left_out:
            shared = {"kl_weight": of_base["kl_weight"]} if "kl_weight" in options.model_fields else {}
            method = parse_config(options, {"kind": kind, "on": on, **shared}, f"the variant {kind!r}")
            variants.append(_variant(base, kind, original.model_copy(update={"method": method})))
    return variants


def _adaptive_training(config: ExperimentConfig, base: str, label: str, **settings: Any) -> list[Variant]:
    """Two passes with a network that is trained for a series: row 0 alone, and the base.

    It is trained from random weights, as in the paper: one that was trained to its end only gets worse. If the recipe
    has a network that is trained in the same way, it is used instead. The passes are named after the network, so that
    one in two series is trained once. Where the base is on a transform, so is row 0.
    """
    original = config.passes[base]
    like = config.origin_of(original.network)
    trained = SatConfig(like=like, **settings)
    own_name = f"sat__{f'{like}_' if like else ''}{trained.switching}_{trained.gamma:g}".replace(".", "-")
    network = next((name for name, known in config.networks.items() if known == trained), own_name)
    options, adapted = TrainedNetwork(network, trained), original.model_copy(update={"network": network})
    row_zero = Variant(first_pass(network), "row 0", label, None, options)
    method = config.method_of(original)
    if method.on is not None:
        transform = config.passes[method.on].model_copy(update={"network": network})
        name = _equal_pass(config, transform) or f"{method.on}__{network}"
        row_zero = replace(row_zero, name=name, plan=transform)
        source = row_zero.name if original.targets.source == method.on else original.targets.source
        moved = {
            "method": method.model_copy(update={"on": row_zero.name}),
            "targets": original.targets.model_copy(update={"source": source}),
        }
        adapted = adapted.model_copy(update=moved)
    return [row_zero, Variant(f"{base}__{network}", base, label, adapted, options)]


def _gammas(config: ExperimentConfig, base: str) -> list[Variant]:
    each = [_adaptive_training(config, base, f"gamma {gamma:g}", gamma=gamma) for gamma in GAMMAS]
    return [variant for variants in each for variant in variants]


def _switching(config: ExperimentConfig, base: str) -> list[Variant]:
    kinds = get_args(SatConfig.model_fields["switching"].annotation)
    each = [_adaptive_training(config, base, f"by {kind}", switching=kind) for kind in kinds]
    return [variant for variants in each for variant in variants]


SERIES: dict[str, Series] = {
    "amplitude": Series(
        "Amplitude functions",
        "xi",
        "no function is better than another by more than 0.1 points (table II)",
        _amplitudes,
        joined=False,
    ),
    "layers": Series(
        "Hidden layers adapted, from the bottom",
        "layers",
        "the bottom layer alone gives most of the gain, and each further layer helps",
        _layers,
    ),
    "steps": Series("Sweeps and learning rate", "sweeps", "one sweep is enough, and more sweeps do no harm", _steps),
    "seconds": Series(
        "Seconds of a speaker's data",
        "adapted on",
        "ten seconds already help, by 0.5 to 0.8 points (figure 7)",
        _seconds,
    ),
    "utterances": Series(
        "Utterances of a speaker", "adapted on", "not reported; its speakers have talks of ten minutes", _utterances
    ),
    "targets": Series(
        "Adaptation targets",
        "targets",
        "references give much more than a first pass; its language model hardly matters (figures 7, 8)",
        _targets,
        joined=False,
    ),
    "methods": Series(
        "Adaptation methods, from the same targets",
        "method",
        "LHUC took 2.1 points off where a layer of a speaker's own took 0.6 (table VII)",
        _methods,
        joined=False,
        costs=True,
    ),
    "silence": Series("Weight of silence", "weight", "not reported", _silence),
    "one_shot": Series(
        "Two-pass, one-shot, online and incremental adaptation",
        "mode",
        "amplitudes from other recordings of the speaker are as good, within 0.1 points (table IX)",
        _modes,
        joined=False,
    ),
    "gamma": Series(
        "SAT-LHUC: probability of row 0",
        "gamma",
        "0.5 to 0.6 is good for every task; below 0.3 the first pass suffers",
        _gammas,
    ),
    "switching": Series(
        "SAT-LHUC: unit that gets row 0 as a whole",
        "switching",
        "frames and segments are equally good; speakers are worse, because of a worse first pass (table III)",
        _switching,
        joined=False,
    ),
}
