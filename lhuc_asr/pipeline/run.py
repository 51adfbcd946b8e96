"""A recipe from recordings to the table: its stages in order."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from lhuc_asr.base.device import checked_device
from lhuc_asr.base.executor import Executor
from lhuc_asr.base.experiment_folder import ExperimentFolder
from lhuc_asr.base.locks import locked
from lhuc_asr.base.runlog import setup_logging
from lhuc_asr.base.stages import Stages
from lhuc_asr.corpus.source import TEST
from lhuc_asr.corpus.splits import HELDOUT, TRAIN
from lhuc_asr.features.extraction import extract
from lhuc_asr.features.filterbank import FeatureConfig
from lhuc_asr.pipeline.aligners import aligners
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.corpus_stage import CorpusOptions, corpus_stage
from lhuc_asr.pipeline.experiment import (
    Aligned,
    AlignedExperiment,
    Experiment,
    at_corpus_rate,
    fold_configs,
    opened,
)
from lhuc_asr.pipeline.export import ModelOptions, model_stage
from lhuc_asr.pipeline.language import (
    LanguageModelOptions,
    LexiconOptions,
    check_language_files,
    graph_stage,
    language_model_stage,
    lexicon_stage,
)
from lhuc_asr.pipeline.networks import NetworkOptions, network_stage
from lhuc_asr.pipeline.passes import pass_outputs, prepare, run_pass
from lhuc_asr.pipeline.plan import Pass, Preparation, networks_of, passes_of
from lhuc_asr.pipeline.results import compare_split, pool_folds
from lhuc_asr.score.tables import PassScore

logger = logging.getLogger(__name__)


def run_recipe(config: ExperimentConfig) -> list[PassScore]:
    """Run a recipe; finished stages are skipped.

    Returns:
        The score of each pass over each test split.

    Raises:
        LhucError: An error in the corpus, the configuration or the folder; finished stages stay finished.
    """
    checked_device(config.device, "device=")
    with opened(config) as folder:
        names = list(passes_of(config))
        splits = make_passes(config, model=True)
        return [line for split in splits for line in compare_split(folder, split, names, config.seed)]


def make_passes(config: ExperimentConfig, model: bool = False) -> Sequence[str]:
    """Run a recipe's unfinished stages, up to the scores of the passes; scores of folds are pooled.

    Args:
        config: The recipe; ``experiment.opened`` keeps other runs out of the experiment's folder.
        model: Whether the folder becomes a recognizer's model that adapts like the first of the recipe's ``passes``.

    Returns:
        Names of the test splits.
    """
    check_language_files(config)
    torch.set_num_threads(config.workers)
    if config.folds == 1:
        _run_stages(config, None, model)
        return config.corpus.test_sets
    _run_folds(config, model)
    folds = [ExperimentFolder(fold.folder) for fold in fold_configs(config)]
    pool_folds(ExperimentFolder(config.folder), folds, TEST, list(passes_of(config)))
    return (TEST,)


def _run_folds(config: ExperimentConfig, model: bool) -> None:
    """Run as many folds at the same time as there are workers, which is faster than fold after fold with all workers.

    After an error no further fold begins, and those that have begun are finished before the error is raised.
    """
    at_once = min(config.workers, config.folds)
    shared = config.model_copy(update={"workers": config.workers // at_once})
    folds = list(enumerate(fold_configs(shared), start=1))
    if at_once == 1:
        for fold in folds:
            logger.info("fold %d of %d", fold[0], config.folds)
            _run_fold(model, None, fold)
        return
    level = logging.getLogger("lhuc_asr").getEffectiveLevel()
    with Executor(at_once) as executor:
        executor.each(partial(_run_fold, model, level), folds)


def _run_fold(model: bool, level: int | None, fold: tuple[int, ExperimentConfig]) -> None:
    """Run a fold; ``level`` is the level of a log to set up in a new process, None where the log is set up already."""
    number, config = fold
    if level is not None:
        setup_logging(level, f"fold {number}: ")
    torch.set_num_threads(config.workers)
    # A process lives for a second or so after its parent is killed; until then the lock keeps the next run out.
    with locked(config.folder):
        _run_stages(config, number, model)


def _run_stages(config: ExperimentConfig, fold: int | None, model: bool) -> None:
    """Run all stages of one experiment, or of one fold of a cross-validation."""
    folder = ExperimentFolder(config.folder)
    folder.folder.mkdir(parents=True, exist_ok=True)
    stages = Stages(folder.folder, folder.metrics)
    corpus_stage(stages, Experiment.of(config), CorpusOptions.of(config, fold))
    config = at_corpus_rate(config)
    experiment, passes = Experiment.of(config), passes_of(config)
    orders = [None, *sorted({plan.lm_order for plan in passes.values() if plan.lm_order is not None})]

    lexicon_stage(stages, experiment, LexiconOptions.of(config))
    for order in orders:
        language_model_stage(stages, experiment, LanguageModelOptions.of(config, order), order)
    _feature_stage(stages, experiment, FeatureOptions(config.features, config.alignment_features, config.speeds))
    aligned: Aligned | None = None
    for aligner in aligners(config):
        aligned = aligner.align(stages, experiment, aligned)
    if aligned is None:
        raise ValueError("no aligner: networks need an alignment")
    for name in networks_of(config):
        network_stage(stages, experiment, name, NetworkOptions.of(config, name), aligned)

    experiment = AlignedExperiment.of(config)
    for order in orders:
        graph_stage(stages, experiment, config.transition_scale, aligned.stage, order)
    # Each preparation runs once, even if several passes need it.
    preparations = {plan.preparation.name: plan.preparation for plan in passes.values() if plan.preparation}
    for preparation in preparations.values():
        _preparation_stage(stages, experiment, preparation, aligned.stage)
    for split in (HELDOUT, *experiment.tests):
        for plan in passes.values():
            # Over the held-out speakers only the tuned passes are made, and the first passes, from which they start.
            if split != HELDOUT or plan.tuned or plan.adaptation is None:
                _pass_stage(stages, experiment, split, plan)
    if model:
        model_stage(stages, experiment, ModelOptions.of(config, next(iter(config.passes))))


@dataclass(frozen=True)
class FeatureOptions:
    """Everything that features depend on apart from the recordings.

    Attributes:
        features: Features of the networks.
        alignment_features: Features of the Gaussian mixtures.
        speeds: Speeds of the training recordings.
    """

    features: FeatureConfig
    alignment_features: FeatureConfig
    speeds: tuple[float, ...]


def _feature_stage(stages: Stages, experiment: Experiment, options: FeatureOptions) -> None:
    folder = experiment.folder
    stages.run(
        "features",
        partial(_extract_features, experiment),
        options=options,
        after=["corpus"],
        outputs=[
            *(folder.features(split) for split in experiment.splits),
            *(folder.alignment_features(split) for split in (TRAIN, HELDOUT)),
        ],
    )


def _extract_features(experiment: Experiment, options: FeatureOptions) -> None:
    folder, processes = experiment.folder, experiment.processes
    for split in experiment.splits:
        utterances, speeds = experiment.utterances(split), options.speeds if split == TRAIN else (1.0,)
        extract(folder.features(split), utterances, options.features, processes, speeds)
        if split in (TRAIN, HELDOUT):
            extract(folder.alignment_features(split), utterances, options.alignment_features, processes, speeds)


def _preparation_stage(stages: Stages, experiment: AlignedExperiment, preparation: Preparation, aligner: str) -> None:
    stages.run(
        f"prepare {preparation.name}",
        partial(prepare, experiment),
        options=preparation,
        after=[f"network {preparation.network}", aligner],
        outputs=[experiment.folder.prepared(preparation.name)],
    )


def _pass_stage(stages: Stages, experiment: AlignedExperiment, split: str, plan: Pass) -> None:
    after = [f"network {plan.network}", "graph", *(f"{earlier.name} over {split}" for earlier in plan.needed)]
    if plan.preparation is not None:
        after.append(f"prepare {plan.preparation.name}")
    if plan.lm_order is not None:
        after.append(f"graph of order {plan.lm_order}")
    if split != HELDOUT or not plan.tuned:
        after.append(f"{plan.searched_as} over {HELDOUT}")
    stages.run(
        f"{plan.name} over {split}",
        partial(run_pass, experiment, split),
        options=plan,
        after=after,
        outputs=pass_outputs(experiment, split, plan),
    )
