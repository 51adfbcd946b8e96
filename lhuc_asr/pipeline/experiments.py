"""The table of experiments: each is a series of passes that differ from a base pass in one thing.

The base is one of the recipe's passes that descend on the first pass' targets (``lhuc``). Every pass of a series is
searched with the scale and penalty of its base, unless what differs changes how sharp the scores are: a fixed scale
would mislead there, and each is tuned. It is compared with the unadapted network searched alike. Networks that are
trained for a series go on from the speaker-independent one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args

from lhuc_asr.adapt.lhuc import LhucConfig
from lhuc_asr.adapt.moments import MomentsConfig
from lhuc_asr.adapt.sat import SatConfig
from lhuc_asr.adapt.unadapted import UnadaptedConfig
from lhuc_asr.base.errors import ConfigError
from lhuc_asr.nnet.schedule import NewbobConfig
from lhuc_asr.pipeline.recipe import ExperimentConfig, PassConfig, first_pass

SECONDS = (5, 10, 20, 30, 60)
UTTERANCES = (1, 2, 5, 10)
SILENCE_WEIGHTS = (0.0, 0.01, 0.1, 1.0)
# Factors on the base's learning rate; sweeps.
RATES, SWEEPS = (0.2, 1.0, 5.0), (1, 3, 10)
POWERS = (1.0, 2.0)
CORRUPTED = (0.1, 0.2, 0.4)
GAMMAS = (0.3, 0.5, 0.7)
# Of the networks that series train: on from the speaker-independent one, or five of them would take hours.
SAT_EPOCHS = 3


@dataclass(frozen=True)
class Variant:
    """A pass of a series.

    Attributes:
        name: Of the pass.
        curve: Which of the series' curves it belongs to.
        label: What is different about it, as the figure says it.
        plan: What it does; None for one of the recipe's passes, and for the first pass of a network.
        trained: How its network is trained, where it is one of the series' own.
    """

    name: str
    curve: str
    label: str
    plan: PassConfig | None
    trained: SatConfig | None = None


@dataclass(frozen=True)
class Experiment:
    """A series.

    Attributes:
        title: What differs: the figure's title.
        axis: What the labels are.
        paper: What the paper (Swietojanski, Li, Renals 2016) found.
        variants: The passes, given the recipe and the name of the base.
    """

    title: str
    axis: str
    paper: str
    variants: Callable[[ExperimentConfig, str], list[Variant]]


def base_pass(config: ExperimentConfig, name: str | None) -> str:
    """The pass that series vary: the one that is named, or the recipe's first that descends on the first pass' targets.

    Raises:
        ConfigError: There is none, or the one that is named is none.
    """
    fit = [
        own
        for own, plan in config.passes.items()
        if plan.combine is None
        and plan.search_as is None
        and plan.targets.kind != "reference"
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
    """The passes of an experiment; what one of the recipe's passes does already, the base's above all, is that pass."""
    known = {own: _done(config, own, plan) for own, plan in config.passes.items()}
    found = []
    for variant in EXPERIMENTS[name].variants(config, base):
        done = None if variant.plan is None else _done(config, variant.name, variant.plan)
        same = next((own for own, other in known.items() if other == done), None)
        found.append(variant if same is None else replace(variant, name=same, plan=None))
    return found


def unadapted(config: ExperimentConfig, base: str) -> Variant:
    """The network without amplitudes, searched as the base: what the passes of a series are compared with.

    With ``si`` as it was tuned, what the choice of the base's scale and penalty brings would be seen as theirs.
    """
    plan = PassConfig(network=config.passes[base].network, method=UnadaptedConfig(), search_as=base)
    return Variant(f"{base}_unadapted", base, "unadapted", plan)


def _done(config: ExperimentConfig, name: str, plan: PassConfig) -> PassConfig:
    """What a pass does, with nothing left to be said elsewhere."""
    return plan.model_copy(update={"method": config.method_of(plan), "search_as": plan.search_as or name})


def _varied(
    config: ExperimentConfig, base: str, label: str, changes: Mapping[str, Any], tuned: bool = False
) -> Variant:
    """The base with other settings of its method."""
    plan = config.passes[base]
    settings = config.method_of(plan)
    method = type(settings).model_validate({**settings.model_dump(), **changes})
    return _variant(base, label, plan.model_copy(update={"method": method}), tuned)


def _variant(base: str, label: str, plan: PassConfig, tuned: bool = False, curve: str = "") -> Variant:
    name = f"{curve or base}_{label}".replace(" ", "_").replace(".", "-").replace("%", "")
    return Variant(name, curve or base, label, plan.model_copy(update={"search_as": None if tuned else base}))


def _amplitudes(config: ExperimentConfig, base: str) -> list[Variant]:
    return [_varied(config, base, name, {"amplitude": name}) for name in ("exp", "2sigmoid", "identity", "relu")]


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
    for curve, method in ((base, own.method), ("moments", MomentsConfig())):
        for amount in amounts:
            plan = own.model_copy(update={"method": method, "data": own.data.model_copy(update={options: amount})})
            found.append(_variant(base, f"{amount} {unit}", plan, curve=curve))
        found.append(_variant(base, "all", own.model_copy(update={"method": method}), curve=curve))
    return found


def _seconds(config: ExperimentConfig, base: str) -> list[Variant]:
    return _amounts(config, base, "seconds", SECONDS, "s")


def _utterances(config: ExperimentConfig, base: str) -> list[Variant]:
    return _amounts(config, base, "utterances", UTTERANCES, "utterances")


def _targets(config: ExperimentConfig, base: str) -> list[Variant]:
    own = config.passes[base]
    kinds: dict[str, dict[str, Any]] = {
        "best path": {"kind": "best_path"},
        "confidence": {"kind": "confidence"},
        **{f"lattice power {power:g}": {"kind": "lattice", "power": power} for power in POWERS},
        **{
            f"{order}-gram": {"kind": "best_path", "lm_order": order}
            for order in range(1, 4)
            if order != config.lm.order
        },
        "reference": {"kind": "reference"},
        **{f"{100 * share:g} % wrong": {"kind": "reference", "corrupted": share} for share in CORRUPTED},
    }
    found = []
    for label, changes in kinds.items():
        targets = type(own.targets).model_validate({"silence_weight": own.targets.silence_weight, **changes})
        # Posteriors flatten the network's outputs, references sharpen them.
        tuned = targets.kind in ("confidence", "lattice") or label == "reference"
        found.append(_variant(base, label, own.model_copy(update={"targets": targets}), tuned))
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
    for curve, method in ((base, own.method), ("moments", MomentsConfig())):
        for mode in ("two_pass", "one_shot", "online"):
            data = own.data.model_copy(update={"mode": mode})
            variant = _variant(base, mode, own.model_copy(update={"method": method, "data": data}), curve=curve)
            # What is adapted on all that is decoded is the end of the curves over amounts, too.
            found.append(replace(variant, name=f"{curve}_all") if mode == "two_pass" else variant)
    return found


def _adaptive_training(config: ExperimentConfig, base: str, label: str, **settings: Any) -> list[Variant]:
    """A network of its own, or the recipe's that is trained like that: its first pass, and the base on it.

    Their names say how the network is trained, so that what is in two series is made once.
    """
    trained = SatConfig(start="si", schedule=_going_on(config), **settings)
    own = f"sat_{trained.switching}_{trained.gamma:g}".replace(".", "-")
    network = next((name for name, known in config.networks.items() if known == trained), own)
    adapted = config.passes[base].model_copy(update={"network": network, "search_as": base})
    return [
        Variant(first_pass(network), "row 0", label, None),
        Variant(f"{base}_{network}", base, label, adapted, trained),
    ]


def _going_on(config: ExperimentConfig) -> NewbobConfig:
    """Of a network that is trained on: half of the first rate, and half of it again after every epoch."""
    return NewbobConfig(
        learning_rate=config.trainer.schedule.learning_rate / 2, halve_below=2.0, stop_below=0.0, max_epochs=SAT_EPOCHS
    )


def _gammas(config: ExperimentConfig, base: str) -> list[Variant]:
    each = [_adaptive_training(config, base, f"gamma {gamma:g}", gamma=gamma) for gamma in GAMMAS]
    return [variant for variants in each for variant in variants]


def _switching(config: ExperimentConfig, base: str) -> list[Variant]:
    kinds = get_args(SatConfig.model_fields["switching"].annotation)
    each = [_adaptive_training(config, base, f"by {kind}", switching=kind) for kind in kinds]
    return [variant for variants in each for variant in variants]


EXPERIMENTS: dict[str, Experiment] = {
    "amplitude": Experiment(
        "Amplitude functions",
        "xi",
        "no function is better than another by more than 0.1 points (table II)",
        _amplitudes,
    ),
    "layers": Experiment(
        "Hidden layers adapted, from the bottom",
        "layers",
        "the bottom layer alone gives most of it, and each further layer helps",
        _layers,
    ),
    "steps": Experiment("Sweeps and learning rate", "sweeps", "one sweep is enough, and more do no harm", _steps),
    "seconds": Experiment(
        "Seconds of a speaker's data",
        "adapted on",
        "ten seconds already help, by 0.5 to 0.8 points (figure 7)",
        _seconds,
    ),
    "utterances": Experiment(
        "Utterances of a speaker", "adapted on", "not looked at; talks of ten minutes are adapted on", _utterances
    ),
    "targets": Experiment(
        "What a frame is taken for",
        "targets",
        "references give much more than a first pass; its language model hardly matters (figures 7, 8)",
        _targets,
    ),
    "silence": Experiment("Weight of silence", "weight", "not looked at", _silence),
    "one_shot": Experiment(
        "What was adapted on is decoded, or what came after",
        "mode",
        "what was learned on other recordings is as good, within 0.1 points (table IX)",
        _modes,
    ),
    "gamma": Experiment(
        "SAT-LHUC, trained on from si: share of frames with row 0",
        "gamma",
        "0.5 to 0.6 is good whatever the task; below 0.3 the first pass suffers",
        _gammas,
    ),
    "switching": Experiment(
        "SAT-LHUC, trained on from si: what takes row 0 as a whole",
        "switching",
        "frames and segments are alike; speakers are worse, through a worse first pass (table III)",
        _switching,
    ),
}
