"""The stages that a run of a recipe would make, and those that are finished, before anything is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lhuc_asr.base.device import checked_device
from lhuc_asr.base.experiment_folder import ExperimentFolder
from lhuc_asr.base.stage_plan import PlannedStage, about, recorded_seconds, seconds_left
from lhuc_asr.base.stages import PlannedStages, Stages
from lhuc_asr.features.filterbank import USUAL_RATE
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.experiment import at_corpus_rate, check_folder, fold_configs, seed_configs
from lhuc_asr.pipeline.export import ModelOptions, model_stage
from lhuc_asr.pipeline.inputs import with_language
from lhuc_asr.pipeline.order import add_corpus_stage, add_later_stages


@dataclass(frozen=True)
class Part:
    """An experiment among others with the same stages: one of several seeds, a fold of a cross-validation.

    Attributes:
        config: The recipe of the part.
        fold: Number of the fold, from 1; None without cross-validation.
        others: Folders of the others.
        left: Whose time a log line speaks of, such as ``for this fold``; empty for a whole experiment.
    """

    config: ExperimentConfig
    fold: int | None = None
    others: tuple[Path, ...] = ()
    left: str = ""

    def seeds(self) -> list[Part]:
        """The experiment of each seed; without seeds, this one."""
        if self.config.seeds is None:
            return [self]
        configs = seed_configs(self.config)
        folders = tuple(config.folder for config in configs)
        return [Part(config, None, folders, "for this seed") for config in configs]

    def folds(self) -> list[Part]:
        """Each fold of the cross-validation; without folds, this one."""
        if self.config.folds == 1:
            return [self]
        configs = fold_configs(self.config)
        folders = tuple(config.folder for config in configs)
        return [
            Part(config, fold, (*(other / config.folder.name for other in self.others), *folders), "for this fold")
            for fold, config in enumerate(configs, start=1)
        ]

    def plan_after(self, stages: Stages, model: bool) -> list[PlannedStage]:
        """The plan of all stages, when the corpus stage is finished."""
        planned = PlannedStages(self.config.folder, self._seconds(), stages)
        add_rest(planned, self.config, model)
        return planned.plan

    def plan(self) -> list[PlannedStage]:
        """The plan of all stages of a run that has not begun."""
        planned = PlannedStages(self.config.folder, self._seconds())
        add_corpus_stage(planned, self.config, self.fold)
        add_rest(planned, self.config, model=True, corpus_read=planned.plan[0].finished)
        return planned.plan

    def _seconds(self) -> dict[str, float]:
        return recorded_seconds([ExperimentFolder(path).metrics.path for path in (*self.others, self.config.folder)])


def add_rest(stages: Stages, config: ExperimentConfig, model: bool, corpus_read: bool = True) -> ModelOptions:
    """Add the stages after the corpus.

    Args:
        stages: The stages, the first of them added.
        config: The recipe of an experiment or a fold.
        model: Whether the folder becomes a recognizer's model that adapts like the first of the recipe's ``passes``.
        corpus_read: Whether the folder has the corpus; a plan takes the usual sample rate, and all passes for possible,
            if not.

    Returns:
        The options of the model that the folder may become.
    """
    config = at_corpus_rate(config) if corpus_read else _at_usual_rate(config)
    experiment = add_later_stages(stages, config, corpus_read)
    options = ModelOptions.of(config, next(iter(config.passes)))
    if model:
        model_stage(stages, experiment, options)
    return options


def plan_lines(config: ExperimentConfig) -> list[str]:
    """What a run of a recipe would do, a stage a line; nothing is written.

    Raises:
        LhucError: What a run would refuse before its first stage.
    """
    checked_device(config.device, "device=")
    config = with_language(config)
    check_folder(config)
    parts = [fold for seed in Part(config).seeds() for fold in seed.folds()]
    lines = [line for part in parts for line in _lines(part.config.folder, part.plan())]
    if any(not (part.config.folder / "stages" / "corpus.json").exists() for part in parts):
        lines.append("Passes with other speakers' parameters are left out where a test set has one speaker.")
    return lines


def _lines(folder: Path, plan: Sequence[PlannedStage]) -> list[str]:
    waiting = [stage for stage in plan if not stage.finished and not stage.depends]
    left, dependent = seconds_left(waiting), sum(stage.depends for stage in plan)
    total = f", {about(left)}" if waiting and left is not None else ""
    more = f"; {dependent} more if those before them make other files than last time" if dependent else ""
    width = max(len(stage.name) for stage in plan)
    return [
        f"{folder}: {len(waiting)} of {len(plan)} stages to run{total}{more}",
        *(f"  {stage.name:{width}}  {_state(stage)}".rstrip() for stage in plan),
    ]


def _state(stage: PlannedStage) -> str:
    state = "finished" if stage.finished else "to run if files before it change" if stage.depends else "to run"
    if stage.seconds is None:
        return state
    return f"{state}, took {stage.seconds:.1f} s" if stage.finished else f"{state}, took {stage.seconds:.1f} s before"


def _at_usual_rate(config: ExperimentConfig) -> ExperimentConfig:
    features, alignment = config.features, config.alignment_features
    return config.model_copy(
        update={
            "features": features.with_rate(features.sample_rate or USUAL_RATE),
            "alignment_features": alignment.with_rate(alignment.sample_rate or USUAL_RATE),
        }
    )
