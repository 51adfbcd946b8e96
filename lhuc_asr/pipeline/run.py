"""A recipe from recordings to the table, with or without folds."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import torch

from lhuc_asr.base.device import checked_device
from lhuc_asr.base.executor import Executor
from lhuc_asr.base.experiment_folder import LOG_FILE, ExperimentFolder
from lhuc_asr.base.followed_stages import FollowedStages
from lhuc_asr.base.locks import locked
from lhuc_asr.base.object_store import open_store
from lhuc_asr.base.ranks import ranks
from lhuc_asr.base.runlog import logged_to, setup_logging
from lhuc_asr.base.stages import Stages
from lhuc_asr.corpus.source import TEST
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.experiment import opened
from lhuc_asr.pipeline.export import remove_unsuited
from lhuc_asr.pipeline.inputs import language_lines, with_language
from lhuc_asr.pipeline.order import add_corpus_stage
from lhuc_asr.pipeline.parts import connected
from lhuc_asr.pipeline.plan import nobodys_vectors
from lhuc_asr.pipeline.planned import Part, add_rest
from lhuc_asr.pipeline.results import compare_splits, pool_folds, sum_seeds
from lhuc_asr.score.formats import check_formats
from lhuc_asr.score.judgement import PassScore

logger = logging.getLogger(__name__)


def run_recipe(config: ExperimentConfig, formats: Sequence[str] = (), *, tensorboard: bool = False) -> list[PassScore]:
    """Run a recipe, once for each of its seeds; finished stages are skipped.

    Args:
        config: The recipe.
        formats: Formats of the figures beside PNG, from ``score.formats.FORMATS``.
        tensorboard: Whether the curves of the networks' training are written for TensorBoard, to ``tensorboard/``.

    Returns:
        The score of each pass over each test split.

    Raises:
        LhucError: An error in the corpus, the configuration or the folder; finished stages stay finished.
        ScoreError: Figures have no such format.
        MissingExtraError: TensorBoard, or what draws the formats that are asked for, is not installed.
    """
    check_formats(formats)
    return _run_part(Part(config), formats, tensorboard)


def _run_part(part: Part, formats: Sequence[str], tensorboard: bool) -> list[PassScore]:
    """Run an experiment, or each of its seeds."""
    if tensorboard:
        # An extra: imported only where it is asked for, and before anything is run.
        from lhuc_asr.pipeline.curves import training_curves
    checked_device(part.config.device, "device=")
    part = replace(part, config=with_language(part.config))
    config = part.config
    with opened(config), training_curves(config) if tensorboard else nullcontext():
        for line in language_lines(config):
            logger.info(line)
        for line in nobodys_vectors(config):
            logger.warning(line)
        if config.seeds is None:
            return compare_splits(config, _make_passes(part, model=True), formats)
        for number, one in enumerate(part.seeds(), start=1):
            logger.info("seed %d, %d of %d", one.config.seed, number, len(config.seeds))
            _run_part(one, formats, tensorboard=False)  # the curves of all seeds are in one place
        splits = config.test_sets
        for split in splits:
            sum_seeds(config, split)
        return compare_splits(config, splits, formats)


def make_passes(config: ExperimentConfig, model: bool = False) -> Sequence[str]:
    """Run a recipe's unfinished stages, up to the scores of the passes; scores of folds are pooled.

    Args:
        config: The recipe; ``experiment.opened`` keeps other runs out of the experiment's folder.
        model: Whether the folder becomes a recognizer's model that adapts like the first of the recipe's ``passes``.

    Returns:
        Names of the test splits.
    """
    return _make_passes(Part(config), model)


def _make_passes(part: Part, model: bool) -> Sequence[str]:
    config = part.config
    torch.set_num_threads(config.workers)
    if config.folds == 1:
        _run_stages(part, model)
    else:
        _run_folds(part, model)
        pool_folds(config, TEST)
    return config.test_sets


def _run_folds(part: Part, model: bool) -> None:
    """Run as many folds at the same time as there are workers, which is faster than fold after fold with all workers.

    After an error no further fold begins, and those that have begun are finished before the error is raised.
    """
    config = part.config
    # Processes that train together train one network after the other.
    at_once = min(config.workers, config.folds) if ranks().count == 1 else 1
    shared = config.model_copy(update={"workers": config.workers // at_once})
    folds = replace(part, config=shared).folds()
    if at_once == 1:
        for fold in folds:
            logger.info("fold %d of %d", fold.fold, config.folds)
            _run_fold(model, None, fold)
        return
    level = logging.getLogger("lhuc_asr").getEffectiveLevel()
    with Executor(at_once) as executor:
        executor.each(partial(_run_fold, model, level), folds)


def follow_recipe(config: ExperimentConfig) -> None:
    """Take part in the training of a recipe's networks, which the first of several processes runs.

    Args:
        config: The recipe, with the same overrides as in the first process.

    Raises:
        RankError: The first process runs another recipe, or was lost.
        LhucError: As ``run_recipe``.
    """
    checked_device(config.device, "device=")
    torch.set_num_threads(config.workers)
    for seed in Part(with_language(config)).seeds():
        for part in seed.folds():
            stages = FollowedStages(part.config.folder)
            add_corpus_stage(stages, part.config, part.fold)
            add_rest(stages, part.config, model=True)


def _run_fold(model: bool, level: int | None, fold: Part) -> None:
    """Run a fold; ``level`` is the level of a log to set up in a new process, None where the log is set up already."""
    if level is not None:
        setup_logging(level, f"fold {fold.fold}: ")
    torch.set_num_threads(fold.config.workers)
    # A process lives for a second or so after its parent is killed; until then the lock keeps the next run out.
    with locked(fold.config.folder) as folder, logged_to(folder / LOG_FILE):
        _run_stages(fold, model)


def _run_stages(part: Part, model: bool) -> None:
    """Run all stages of one experiment, or of one fold of a cross-validation."""
    folder = ExperimentFolder(part.config.folder)
    folder.folder.mkdir(parents=True, exist_ok=True)
    stages = Stages(folder.folder, folder.metrics)
    if part.config.shards is not None and not folder.shards().exists():
        open_store(part.config.shards.store).has("reached")  # before hours of work that end there
    with connected(part.config.cluster):
        add_corpus_stage(stages, part.config, part.fold)
        stages.follow(part.plan_after(stages, model), part.left)
        options = add_rest(stages, part.config, model)
    if model:
        remove_unsuited(folder.folder, options)
