"""The table of experiments: each is a series of passes that differ from a base pass in one thing.

The base is one of the recipe's passes that descend on the words of an earlier pass (``lhuc``). Passes of a series are
searched with its scale and penalty, and compared with the unadapted network searched like that. Where the targets
flatten the scores, as posteriors of lattices do, that would mislead: such a pass is tuned for itself, compared with the
first pass as tuned, and on a curve of its own. Networks that are trained for a series go on from the
speaker-independent one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args

from lhuc_asr.adapt.adaptation_sets import DataConfig
from lhuc_asr.adapt.lhuc import LhucConfig
from lhuc_asr.adapt.moments import MomentsConfig
from lhuc_asr.adapt.sat import SatConfig
from lhuc_asr.adapt.targets import TargetsConfig
from lhuc_asr.adapt.unadapted import UnadaptedConfig
from lhuc_asr.base.errors import ConfigError
from lhuc_asr.lhuc.amplitude import AmplitudeName
from lhuc_asr.nnet.schedule import NewbobConfig
from lhuc_asr.pipeline.config import ExperimentConfig, PassConfig, first_pass

SECONDS = (5, 10, 20, 30, 60)
UTTERANCES = (1, 2, 5, 10)
SILENCE_WEIGHTS = (0.0, 0.01, 0.1, 1.0)
# Factors on the base's learning rate; sweeps.
RATES, SWEEPS = (0.2, 1.0, 5.0), (1, 3, 10)
POWERS = (1.0, 2.0)
CORRUPTED = (0.1, 0.2, 0.4)
GAMMAS = (0.3, 0.5, 0.7)
# Of the networks that series train: on from the speaker-independent one, or five of them would take hours.
SAT_EPOCHS = 2


@dataclass(frozen=True)
class Variant:
    """A pass of a series.

    Attributes:
        name: Of the pass; ``<base>__...``, or one of the recipe's that does the same.
        curve: Which of the series' curves it belongs to.
        label: What is different about it, as the figure says it.
        plan: What it does.
        trained: How its network is trained, where it is not the base's.
    """

    name: str
    curve: str
    label: str
    plan: PassConfig
    trained: SatConfig | None = None


@dataclass(frozen=True)
class Series:
    """A series.

    Attributes:
        title: What differs: the figure's title.
        axis: What the labels are.
        paper: What the paper (Swietojanski, Li, Renals 2016) found.
        variants: The passes, given the recipe and the name of the base.
        joined: Whether the labels are amounts, and not kinds.
    """

    title: str
    axis: str
    paper: str
    variants: Callable[[ExperimentConfig, str], list[Variant]]
    joined: bool = True


def base_pass(config: ExperimentConfig, name: str | None) -> str:
    """The pass that series vary: the one that is named, or the recipe's first that descends on an earlier pass' words.

    Raises:
        ConfigError: There is none, or the one that is named is none.
    """
    fit = [
        own
        for own, plan in config.passes.items()
        if plan.combine is None
        and plan.search_as is None
        and plan.targets.unsupervised
        and isinstance(config.method_of(plan), LhucConfig)
    ]
    if name is None and fit:
        return fit[0]
    if name not in fit:
        asked = "the recipe has no pass" if name is None else f"{name!r} is no pass of the recipe"
        raise ConfigError(
            f"{asked} with method lhuc, targets of an earlier pass, and a search of its own to start from"
        )
    return name


def series(config: ExperimentConfig, name: str, base: str) -> list[Variant]:
    """The passes of an experiment; one that a pass of the recipe is already, as the base, has that one's name.

    Raises:
        ConfigError: The recipe has another pass or network of a name that is needed.
    """
    passes = []
    for variant in SERIES[name].variants(config, base):
        same = next((own for own, plan in config.passes.items() if _alike(config, own, plan, variant)), None)
        network = variant.plan.network
        if same is None and variant.name in config.passes:
            raise ConfigError(f"passes: {variant.name!r} is a pass of the experiment {name} too; rename the recipe's")
        if variant.trained is not None and config.networks.get(network, variant.trained) != variant.trained:
            raise ConfigError(f"networks: {network!r} is a network of the experiment {name} too; rename the recipe's")
        passes.append(variant if same is None else replace(variant, name=same))
    return passes


def _alike(config: ExperimentConfig, own: str, plan: PassConfig, variant: Variant) -> bool:
    """Whether one of the recipe's passes does what a variant does."""
    searched = plan.search_as == variant.plan.search_as or (plan.search_as is None and own == variant.plan.search_as)
    return searched and _resolved(config, plan) == _resolved(config, variant.plan)


def _resolved(config: ExperimentConfig, plan: PassConfig) -> PassConfig:
    """A plan with what it leaves to others filled in, but for the search."""
    targets = plan.targets.model_copy(
        update={"source": config.source_of(plan), "lm_order": plan.targets.lm_order or config.lm.order}
    )
    return plan.model_copy(update={"method": config.method_of(plan), "targets": targets, "search_as": None})


def unadapted(config: ExperimentConfig, base: str) -> Variant:
    """The network without amplitudes, searched as the base: what the passes of a series are compared with.

    Compared with the first pass as it was tuned, what another choice of scale and penalty brings by luck would be seen
    as a gain of adaptation. The comparison is not neutral either: what was chosen for adapted scores does not suit
    unadapted ones best.
    """
    plan = PassConfig(network=config.passes[base].network, method=UnadaptedConfig(), search_as=base)
    return _variant(base, "unadapted", plan)


def _varied(config: ExperimentConfig, base: str, label: str, changes: Mapping[str, Any]) -> Variant:
    """The base with other settings of its method."""
    plan = config.passes[base]
    settings = config.method_of(plan)
    method = type(settings).model_validate({**settings.model_dump(), **changes})
    return _variant(base, label, plan.model_copy(update={"method": method}))


def _variant(base: str, label: str, plan: PassConfig, curve: str = "") -> Variant:
    """A pass that is searched as the base."""
    what = re.sub(r"[^A-Za-z0-9-]+", "_", f"{curve} {label}".strip().replace(".", "-"))
    return Variant(f"{base}__{what}", curve or base, label, plan.model_copy(update={"search_as": base}))


def _amplitudes(config: ExperimentConfig, base: str) -> list[Variant]:
    return [_varied(config, base, name, {"amplitude": name}) for name in get_args(AmplitudeName)]


def _layers(config: ExperimentConfig, base: str) -> list[Variant]:
    below = [
        _varied(config, base, f"bottom {n}", {"layers": tuple(range(n))}) for n in range(1, config.dnn.hidden_layers)
    ]
    return [*below, _varied(config, base, f"bottom {config.dnn.hidden_layers}", {"layers": None})]


def _steps(config: ExperimentConfig, base: str) -> list[Variant]:
    own = config.method_of(config.passes[base]).model_dump()["learning_rate"]
    found = []
    for factor in RATES:
        rate = float(f"{factor * own:.3g}")
        for sweeps in SWEEPS:
            changes = {"learning_rate": rate, "sweeps": sweeps}
            variant = _varied(config, base, f"rate {rate:g}, {sweeps} sweeps".replace(",", ""), changes)
            found.append(replace(variant, curve=f"rate {rate:g}", label=f"{sweeps}"))
    return found


def _amounts(config: ExperimentConfig, base: str, options: str, amounts: tuple[int, ...], unit: str) -> list[Variant]:
    """The base, and moments, with so much of each speaker's data, and with all."""
    own = config.passes[base]
    found = []
    for curve, method in (("", own.method), ("moments", MomentsConfig())):
        for amount in (*amounts, None):
            limits = {"seconds": None, "utterances": None, options: amount}
            plan = own.model_copy(update={"method": method, "data": _data(own, limits)})
            found.append(_variant(base, "all" if amount is None else f"{amount} {unit}", plan, curve))
    return found


def _data(plan: PassConfig, changes: Mapping[str, Any]) -> DataConfig:
    return DataConfig.model_validate({**plan.data.model_dump(), **changes})


def _seconds(config: ExperimentConfig, base: str) -> list[Variant]:
    return _amounts(config, base, "seconds", SECONDS, "s")


def _utterances(config: ExperimentConfig, base: str) -> list[Variant]:
    return _amounts(config, base, "utterances", UTTERANCES, "utterances")


def _targets(config: ExperimentConfig, base: str) -> list[Variant]:
    own = config.passes[base]
    kept = {"source": own.targets.source, "silence_weight": own.targets.silence_weight}
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
        **{f"lattice power {power:g}": {"kind": "lattice", "power": power} for power in POWERS},
    }
    found = []
    for label, changes in kinds.items():
        targets = TargetsConfig.model_validate({**kept, **changes})
        variant = _variant(base, label, own.model_copy(update={"targets": targets}))
        if targets.from_lattices and targets.kind != own.targets.kind:
            plan = variant.plan.model_copy(update={"search_as": None})
            variant = replace(variant, curve=f"own search, against {first_pass(own.network)}", plan=plan)
        found.append(variant)
    return found


def _silence(config: ExperimentConfig, base: str) -> list[Variant]:
    own = config.passes[base]
    return [
        _variant(
            base,
            f"silence {weight:g}",
            own.model_copy(update={"targets": own.targets.model_copy(update={"silence_weight": weight})}),
        )
        for weight in SILENCE_WEIGHTS
    ]


def _modes(config: ExperimentConfig, base: str) -> list[Variant]:
    own = config.passes[base]
    found = []
    for curve, method in (("", own.method), ("moments", MomentsConfig())):
        for mode in ("two_pass", "one_shot", "online"):
            plan = own.model_copy(update={"method": method, "data": _data(own, {"mode": mode})})
            found.append(_variant(base, mode, plan, curve))
    return found


def _adaptive_training(config: ExperimentConfig, base: str, label: str, **settings: Any) -> list[Variant]:
    """Row 0 of a network of its own, or of the recipe's that is trained like that, and the base on it.

    Their names say how the network is trained, so that what is in two series is made once.
    """
    trained = SatConfig(start="si", schedule=_going_on(config), **settings)
    own = f"sat__{trained.switching}_{trained.gamma:g}".replace(".", "-")
    network = next((name for name, known in config.networks.items() if known == trained), own)
    row0 = PassConfig(network=network, method=UnadaptedConfig(), search_as=base)
    adapted = config.passes[base].model_copy(update={"network": network, "search_as": base})
    return [
        Variant(f"{base}__{network}_row_0", "row 0", label, row0, trained),
        Variant(f"{base}__{network}", base, label, adapted, trained),
    ]


def _going_on(config: ExperimentConfig) -> NewbobConfig:
    """Of a network that is trained on: rates as the speaker-independent one ended with, halved after each epoch."""
    return NewbobConfig(
        learning_rate=config.trainer.schedule.learning_rate / 8, halve_below=2.0, stop_below=0.0, max_epochs=SAT_EPOCHS
    )


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
        "the bottom layer alone gives most of it, and each further layer helps",
        _layers,
    ),
    "steps": Series("Sweeps and learning rate", "sweeps", "one sweep is enough, and more do no harm", _steps),
    "seconds": Series(
        "Seconds of a speaker's data",
        "adapted on",
        "ten seconds already help, by 0.5 to 0.8 points (figure 7)",
        _seconds,
    ),
    "utterances": Series(
        "Utterances of a speaker", "adapted on", "not looked at; talks of ten minutes are adapted on", _utterances
    ),
    "targets": Series(
        "What a frame is taken for",
        "targets",
        "references give much more than a first pass; its language model hardly matters (figures 7, 8)",
        _targets,
        joined=False,
    ),
    "silence": Series("Weight of silence", "weight", "not looked at", _silence),
    "one_shot": Series(
        "What was adapted on is decoded, or what came after",
        "mode",
        "what was learned on other recordings is as good, within 0.1 points (table IX)",
        _modes,
        joined=False,
    ),
    "gamma": Series(
        "SAT-LHUC, trained on from si: share of frames with row 0",
        "gamma",
        "0.5 to 0.6 is good whatever the task; below 0.3 the first pass suffers",
        _gammas,
    ),
    "switching": Series(
        "SAT-LHUC, trained on from si: what takes row 0 as a whole",
        "switching",
        "frames and segments are alike; speakers are worse, through a worse first pass (table III)",
        _switching,
        joined=False,
    ),
}
