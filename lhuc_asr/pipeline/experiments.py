"""The table of experiments: each is a series of passes that differ from a base pass in one thing.

The base is one of the recipe's passes that descend on the first pass' targets (``lhuc``). Every pass of a series is
searched with the scale and penalty of its base, unless what differs changes how sharp the scores are: a fixed scale
would mislead there, and each is tuned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lhuc_asr.adapt.lhuc import LhucConfig
from lhuc_asr.adapt.moments import MomentsConfig
from lhuc_asr.base.errors import ConfigError
from lhuc_asr.pipeline.recipe import ExperimentConfig, PassConfig

SECONDS = (5, 10, 20, 30, 60)
UTTERANCES = (1, 2, 5, 10)
SILENCE_WEIGHTS = (0.0, 0.01, 0.1, 1.0)
# Factors on the base's learning rate; sweeps.
RATES, SWEEPS = (0.2, 0.5, 1.0, 2.0, 5.0), (1, 3, 5, 10)
POWERS = (1.0, 2.0, 4.0)


@dataclass(frozen=True)
class Variant:
    """A pass of a series.

    Attributes:
        name: Of the pass.
        curve: Which of the series' curves it belongs to.
        label: What is different about it, as the figure says it.
        plan: What it does.
    """

    name: str
    curve: str
    label: str
    plan: PassConfig


@dataclass(frozen=True)
class Experiment:
    """A series.

    Attributes:
        title: What differs: the figure's title.
        axis: What the labels are.
        variants: The passes, given the recipe and the name of the base.
    """

    title: str
    axis: str
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
    layers = range(1, config.dnn.hidden_layers + 1)
    return [_varied(config, base, f"bottom {count}", {"layers": tuple(range(count))}) for count in layers]


def _steps(config: ExperimentConfig, base: str) -> list[Variant]:
    settings = config.method_of(config.passes[base])
    assert isinstance(settings, LhucConfig)  # base_pass chose it
    found = []
    for factor in RATES:
        rate = float(f"{factor * settings.learning_rate:.3g}")
        for sweeps in SWEEPS:
            changes = {"learning_rate": rate, "sweeps": sweeps}
            variant = _varied(config, base, f"rate {rate:g}, {sweeps} sweeps".replace(",", ""), changes)
            found.append(Variant(variant.name, f"rate {rate:g}", f"{sweeps}", variant.plan))
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
        "reference": {"kind": "reference"},
    }
    found = []
    for label, changes in kinds.items():
        targets = type(own.targets).model_validate({"silence_weight": own.targets.silence_weight, **changes})
        # Posteriors flatten the network's outputs, references sharpen them.
        found.append(_variant(base, label, own.model_copy(update={"targets": targets}), tuned=True))
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
            found.append(_variant(base, mode, own.model_copy(update={"method": method, "data": data}), curve=curve))
    return found


EXPERIMENTS: dict[str, Experiment] = {
    "amplitude": Experiment("Amplitude functions", "xi", _amplitudes),
    "layers": Experiment("Hidden layers adapted, from the bottom", "layers", _layers),
    "steps": Experiment("Sweeps and learning rate", "sweeps", _steps),
    "seconds": Experiment("Seconds of a speaker's data", "adapted on", _seconds),
    "utterances": Experiment("Utterances of a speaker", "adapted on", _utterances),
    "targets": Experiment("What a frame is taken for", "targets", _targets),
    "silence": Experiment("Weight of silence", "weight", _silence),
    "one_shot": Experiment("What was adapted on is decoded, or what came after", "mode", _modes),
}
