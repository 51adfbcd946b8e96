"""What a series or a look of ``lhuc-asr benchmark`` still costs: passes to decode, networks to train, time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lhuc_asr.base.errors import ConfigError
from lhuc_asr.base.experiment_folder import ExperimentFolder
from lhuc_asr.base.stage_plan import PlannedStage, about, recorded_epochs
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.pass_config import SI, PassConfig, first_pass, reuse_name
from lhuc_asr.pipeline.plan import networks_of, passes_of, trained_network
from lhuc_asr.pipeline.planned import Part
from lhuc_asr.pipeline.resolved_pass import Pass, outputs_stage, stage_of
from lhuc_asr.score.series import TABLES
from lhuc_asr.study.run import KNOWN, place_of, read_finished, recipe_of, suitable_base, with_passes


@dataclass(frozen=True)
class Cost:
    """The cost of a series or a look.

    Attributes:
        passes: Number of passes over a split, in all folds together.
        finished: Number of them that are finished.
        networks: Number of networks that are still to be trained.
        seconds: Estimated time of the unfinished passes and networks; None where the experiment has no such pass yet.
        written: Whether the table is there.
        obstacle: Why there is nothing to make it from; None where there is.
    """

    passes: int = 0
    finished: int = 0
    networks: int = 0
    seconds: float | None = None
    written: bool = False
    obstacle: str | None = None

    def __str__(self) -> str:
        """The cost in words, such as ``6 of 8 passes, about 3 minutes``."""
        if self.obstacle is not None:
            return "not possible"
        left = self.passes - self.finished
        if not left and not self.networks:
            return "done" if self.written else "all passes done, no table yet"
        networks = f", {self.networks} network{'s' if self.networks > 1 else ''}" if self.networks else ""
        time = "" if self.seconds is None else f", {about(self.seconds)}"
        return f"{left} of {self.passes} passes{networks}{time}"


def costs(folder: Path, base: str | None = None) -> dict[str, Cost]:
    """The cost of every series and look on an experiment, by name; nothing is run or written.

    A pass that was never made is taken for as long as the base over the same split, a control for as long as the base's
    control, a first pass for as long as that of the base's network. A network that was never trained is taken for as
    long as the recipe's first network with speakers' rows, or else ``si``.

    Args:
        folder: Folder of an experiment.
        base: As for ``run_benchmark``.

    Raises:
        ExperimentError, ConfigError: As for ``run_benchmark``, of the folder and its configuration.
    """
    config = read_finished(folder)
    bases: dict[str, str] = {}
    recipes: dict[str, ExperimentConfig] = {}
    obstacles: dict[str, Cost] = {}
    for name in KNOWN:
        try:
            bases[name] = suitable_base(config, name, base)
            recipes[name] = recipe_of(config, name, bases[name])
        except ConfigError as error:
            obstacles[name] = Cost(obstacle=str(error))
    parts = Part(_all(config, recipes)).folds()
    plans = [{stage.name: stage for stage in part.plan()} for part in parts]
    epochs = [recorded_epochs(ExperimentFolder(part.config.folder).metrics.path) for part in parts]
    folds = list(zip(plans, epochs, strict=True))
    at_once = min(config.workers, config.folds)
    made = {
        name: _cost(recipe, bases[name], folds, at_once, (place_of(folder, name, base) / TABLES[0]).is_file())
        for name, recipe in recipes.items()
    }
    return {name: obstacles.get(name) or made[name] for name in KNOWN}


def _all(config: ExperimentConfig, recipes: Mapping[str, ExperimentConfig]) -> ExperimentConfig:
    """One recipe with the passes and networks of all: its stages are looked at once."""
    networks, passes = dict(config.networks), dict[str, PassConfig](config.passes)
    for recipe in recipes.values():
        networks |= recipe.networks
        passes |= recipe.passes
    return with_passes(config, networks, passes)


def _cost(
    recipe: ExperimentConfig,
    base: str,
    folds: Sequence[tuple[Mapping[str, PlannedStage], Mapping[str, list[float]]]],
    at_once: int,
    written: bool,
) -> Cost:
    passes = passes_of(recipe)
    stage_names, total = {stage_of(made): made for made in reversed(passes.values())}, 0
    left: list[float | None] = []
    training: list[float | None] = []
    for plan, epochs in folds:
        for stage in plan.values():
            name, _, split = stage.name.partition(" over ")
            if name in stage_names and split:
                total += 1
                alike = f"{_alike(passes, stage_names[name], base)} over {split}"
                left += [] if stage.finished else [_seconds(plan, stage, alike)]
        for name in networks_of(recipe):
            stage = plan[f"network {name}"]
            training += [] if stage.finished else [_training_seconds(recipe, name, stage.seconds, epochs)]
    known = [seconds for seconds in (*left, *training) if seconds is not None]
    time = sum(known) / at_once if known and len(known) == len(left) + len(training) else None
    return Cost(total, total - len(left), len(training), time, written)


def _training_seconds(
    recipe: ExperimentConfig, name: str, seconds: float | None, epochs: Mapping[str, list[float]]
) -> float | None:
    """Time of training a network: in an earlier run, or else of its epochs; None where no network was trained."""
    alike = next((other for other in (*recipe.networks, SI) if f"am/{other}" in epochs), None)
    if seconds is not None or alike is None:
        return seconds
    trained = trained_network(recipe, name)
    recorded, schedule = epochs[f"am/{alike}"], None if trained is None else trained.schedule
    return sum(recorded) * (1.0 if schedule is None else schedule.max_epochs / len(recorded))


def _alike(passes: Mapping[str, Pass], made: Pass, base: str) -> str:
    """The stage of the recipe that takes about as long as a pass: the base's, its control's, or the first pass."""
    if made.adaptation is None:
        alike = first_pass(passes[base].network)
    else:
        alike = reuse_name(base, "others_mean") if made.borrows else base
    return alike if made.output is None else outputs_stage(alike)


def _seconds(plan: Mapping[str, PlannedStage], stage: PlannedStage, alike: str) -> float | None:
    """Time of a pass in an earlier run, or else of the one that takes about as long; None where neither was made."""
    if stage.seconds is not None:
        return stage.seconds
    return plan[alike].seconds if alike in plan else None
