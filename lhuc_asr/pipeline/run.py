"""A recipe from recordings to the table: its stages in order."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from lhuc_asr.audio.resampling import resolve_sample_rate
from lhuc_asr.audio.utterance import read_manifest
from lhuc_asr.base.atomic import write_json
from lhuc_asr.base.errors import ConfigError
from lhuc_asr.base.executor import WorkerPool
from lhuc_asr.base.experiment_folder import ExperimentFolder
from lhuc_asr.base.fingerprint import fingerprint
from lhuc_asr.base.locks import locked
from lhuc_asr.base.runlog import setup_logging
from lhuc_asr.base.stages import Stages
from lhuc_asr.decode.graph import DESCRIPTION_FILE, GRAPH_FILE, WORDS_FILE, build_graph
from lhuc_asr.features.extraction import extract
from lhuc_asr.hmm.topology import MonophoneTopology
from lhuc_asr.nnet.trainer import TrainerConfig
from lhuc_asr.pipeline.acoustics import (
    GMM_FILE,
    MODEL_FILE,
    TOPOLOGY_FILE,
    alignment_path,
    realign,
    train_gaussians,
    train_network,
)
from lhuc_asr.pipeline.adaptive import train_sat
from lhuc_asr.pipeline.config import SI, ExperimentConfig
from lhuc_asr.pipeline.evaluate import compare_split, pool_folds
from lhuc_asr.pipeline.experiment import MONOPHONES, at_corpus_rate, opened, realigned
from lhuc_asr.pipeline.language import (
    ARPA_FILE,
    LEXICON_FILE,
    PHONES_FILE,
    check_language_files,
    lexicon_sources,
    order_folder,
    other_orders,
    read_experiment_lexicon,
    tuning_folder,
    write_experiment_lexicon,
    write_language_models,
)
from lhuc_asr.pipeline.passes import (
    network_of,
    networks,
    pass_names,
    pass_outputs,
    preparation_of,
    prepare,
    run_pass,
    tuned_as,
)
from lhuc_asr.pipeline.splits import (
    HELDOUT,
    TRAIN,
    fold_splits,
    made_paths,
    read_splits,
    source_paths,
    test_names,
    write_splits,
)
from lhuc_asr.score.tables import PassScore

logger = logging.getLogger(__name__)

# What a graph's folder holds.
GRAPH_FILES = (GRAPH_FILE, WORDS_FILE, DESCRIPTION_FILE)
# The test split of a cross-validation: all speakers, each from the fold that has not seen him.
POOLED = "test"


def run_recipe(config: ExperimentConfig) -> list[PassScore]:
    """Run a recipe, or what is left of it.

    Returns:
        The score of each pass over each test split.

    Raises:
        LhucError: Whatever is wrong with the corpus, the configuration or the folder; what was finished stays.
    """
    check_device(config)
    with opened(config) as layout:
        names = pass_names(config)
        splits = make_passes(config, layout)
        return [line for split in splits for line in compare_split(layout, split, names, config.seed)]


def check_device(config: ExperimentConfig) -> None:
    """Find out that the device is not there before anything is written.

    Raises:
        ConfigError: torch cannot use it.
    """
    try:
        torch.zeros(1, device=config.device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device={config.device}: torch cannot use it here ({reason}); use device=cpu") from error


def make_passes(config: ExperimentConfig, layout: ExperimentFolder) -> Sequence[str]:
    """Do every stage of a recipe that is not done yet, up to the scores of its passes; those of folds are pooled.

    Args:
        config: The recipe.
        layout: The experiment's folder, taken by ``experiment.opened``.

    Returns:
        The test splits.
    """
    check_language_files(config)
    torch.set_num_threads(config.workers)
    if config.folds == 1:
        _run_experiment(config, layout, fold=None)
        return test_names(config)
    folds = fold_layouts(config, layout)
    _run_folds(config, folds)
    pool_folds(layout, folds, POOLED, pass_names(config))
    return (POOLED,)


def _run_folds(config: ExperimentConfig, folds: Sequence[ExperimentFolder]) -> None:
    """Folds side by side, as many as there are workers: two on a thread each take less than one after the other on two.

    When one fails no further one begins, and those that have begun are finished before the error is told.
    """
    at_once = min(config.workers, config.folds)
    shared = config.model_copy(update={"workers": config.workers // at_once})
    numbered = list(enumerate(folds, start=1))
    if at_once == 1:
        for number, layout in numbered:
            logger.info("fold %d of %d", number, config.folds)
            _run_fold(shared, (number, layout))
        return
    level = logging.getLogger("lhuc_asr").getEffectiveLevel()
    with WorkerPool(at_once) as pool:
        pool.each(partial(_run_fold_logged, shared, level), numbered)


def _run_fold(config: ExperimentConfig, numbered: tuple[int, ExperimentFolder]) -> None:
    number, layout = numbered
    torch.set_num_threads(config.workers)
    # A process outlives a parent that is killed by a second or so; the next run must not come between.
    with locked(layout.folder):
        _run_experiment(config, layout, number)


def _run_fold_logged(config: ExperimentConfig, level: int, numbered: tuple[int, ExperimentFolder]) -> None:
    """In a process of its own, which knows nothing yet of the log."""
    setup_logging(level, f"fold {numbered[0]}: ")
    _run_fold(config, numbered)


def fold_layouts(config: ExperimentConfig, layout: ExperimentFolder) -> list[ExperimentFolder]:
    """The folders of a cross-validation's folds; the experiment's own where it is none."""
    if config.folds == 1:
        return [layout]
    return [ExperimentFolder(layout.folder / f"fold{fold}") for fold in range(1, config.folds + 1)]


def _run_experiment(config: ExperimentConfig, layout: ExperimentFolder, fold: int | None) -> None:
    """All stages of one experiment, or of one fold of a cross-validation."""
    tests = test_names(config)
    splits = (TRAIN, HELDOUT, *tests)
    layout.folder.mkdir(parents=True, exist_ok=True)
    stages = Stages(layout.folder, layout.metrics)
    stages.run(
        "corpus",
        partial(_prepare_corpus, config, layout, fold),
        options=[
            *(config.seed, fold, config.folds, config.corpus, config.hours, config.heldout_speakers),
            *(config.max_skipped, fingerprint(source_paths(config))),
            *((config.noise,) if config.noise else ()),
        ],
        outputs=[
            layout.sample_rate,
            *(layout.manifest(split) for split in splits),
            *made_paths(config, layout.folder),
        ],
    )
    config = at_corpus_rate(config, layout)
    train, heldout = (read_manifest(layout.manifest(split)) for split in (TRAIN, HELDOUT))
    stages.run(
        "lexicon",
        partial(write_experiment_lexicon, config, train, heldout, layout.lang),
        after=["corpus"],
        options=[config.lexicon, config.lm.vocabulary, fingerprint(lexicon_sources(config))],
        outputs=[layout.lang / name for name in (LEXICON_FILE, PHONES_FILE)],
    )
    language_folders = [layout.lang, tuning_folder(config, layout.lang)]
    stages.run(
        "language model",
        lambda: write_language_models(config, train, heldout, read_experiment_lexicon(layout.lang), layout.lang),
        after=["lexicon"],
        options=[config.lm],
        outputs=[folder / ARPA_FILE for folder in language_folders],
    )
    stages.run(
        "features",
        partial(_extract_features, config, layout, tests),
        after=["corpus"],
        options=[config.features, config.alignment_features, config.speeds],
        outputs=[
            *(layout.features(split) for split in splits),
            *(layout.alignment_features(split) for split in (TRAIN, HELDOUT)),
        ],
    )
    aligner, alignment = _train_networks(stages, config, layout)
    stages.run(
        "graph",
        partial(_build_graphs, config, layout, layout.lang, alignment),
        after=["language model", aligner],
        options=[config.transition_scale],
        outputs=[folder / name for folder in language_folders for name in GRAPH_FILES],
    )
    for order in other_orders(config):
        folder = order_folder(config, layout.lang, order)
        stages.run(
            f"graph of order {order}",
            partial(_build_other_graphs, config, layout, order, alignment),
            after=["graph"],
            outputs=[place / name for place in (folder, tuning_folder(config, folder)) for name in GRAPH_FILES],
        )
    for network in networks(config)[1:]:
        _train_adaptively(stages, config, layout, network, alignment, aligner)
    # A name for each preparation that differs, and one of the passes that need it.
    for preparation, name in {preparation_of(config, name): name for name in config.passes}.items():
        if preparation is not None:
            stages.run(
                f"prepare {preparation}",
                partial(prepare, config, layout, name, alignment),
                after=[f"network {network_of(config, name)}", aligner],
                outputs=[layout.prepared(preparation)],
            )
    for split in (HELDOUT, *tests):
        for name in pass_names(config):
            # First passes are what tuned passes adapt on there.
            if split != HELDOUT or tuned_as(config, name) == name or name not in config.passes:
                _pass_stage(stages, config, layout, split, name, alignment)


def _train_networks(stages: Stages, config: ExperimentConfig, layout: ExperimentFolder) -> tuple[str, str]:
    """From Gaussians to the speaker-independent network; the stage that aligned for it, and ``hmm/<name>`` of that."""
    stages.run(
        "monophones",
        partial(train_gaussians, config, layout),
        after=["lexicon", "features"],
        options=[config.monophone],
        outputs=[layout.hmm(MONOPHONES) / GMM_FILE, *_alignment_outputs(layout, MONOPHONES)],
    )
    aligner, alignment = "monophones", MONOPHONES
    for number in range(1, config.realignments + 1):
        schedule = config.trainer.schedule.model_copy(update={"max_epochs": config.realignment_epochs})
        trainer = config.trainer.model_copy(update={"schedule": schedule})
        _train_stage(stages, config, layout, f"first{number}", alignment, aligner, trainer)
        stages.run(
            f"realign{number}",
            partial(realign, config, layout, f"first{number}", realigned(number), alignment),
            after=[f"network first{number}"],
            outputs=_alignment_outputs(layout, realigned(number)),
        )
        aligner, alignment = f"realign{number}", realigned(number)
    _train_stage(stages, config, layout, SI, alignment, aligner, config.trainer)
    return aligner, alignment


def _pass_stage(
    stages: Stages, config: ExperimentConfig, layout: ExperimentFolder, split: str, name: str, alignment: str
) -> None:
    plan = config.passes.get(name)
    after = [f"network {network_of(config, name)}", "graph"]
    tuned = split == HELDOUT and tuned_as(config, name) == name
    options: list[object] = [config.search, config.tuning if tuned else None]
    if plan is not None:
        # Options that are not used leave no trace in the key: new ones cost nobody the passes that he has.
        options.append(plan.model_dump(mode="json", exclude_none=True))
    if plan is not None and plan.combine is not None:
        after += [f"{part} over {split}" for part in plan.combine.parts]
    elif plan is not None:
        after.append(f"{config.source_of(plan)} over {split}")
        if (preparation := preparation_of(config, name)) is not None:
            after.append(f"prepare {preparation}")
        options.append(config.method_of(plan))
        if plan.targets.kind in ("lattice", "confidence"):
            options.append(config.lattice)
        if plan.targets.lm_order in other_orders(config):
            after.append(f"graph of order {plan.targets.lm_order}")
    if not tuned:
        after.append(f"{tuned_as(config, name)} over {HELDOUT}")
    stages.run(
        f"{name} over {split}",
        partial(run_pass, config, layout, split, name, alignment),
        after=after,
        options=options,
        outputs=pass_outputs(config, layout, split, name),
    )


def _alignment_outputs(layout: ExperimentFolder, name: str) -> list[Path]:
    return [layout.hmm(name) / TOPOLOGY_FILE, *(alignment_path(layout, name, split) for split in (TRAIN, HELDOUT))]


def _train_stage(
    stages: Stages,
    config: ExperimentConfig,
    layout: ExperimentFolder,
    name: str,
    alignment: str,
    after: str,
    trainer: TrainerConfig,
) -> None:
    stage = f"network {name}"
    stages.run(
        stage,
        lambda: train_network(config, layout, name, alignment, trainer, stages.key(stage)),
        after=[after],
        options=[config.dnn, trainer],
        outputs=[layout.acoustic_model(name) / MODEL_FILE],
    )


def _train_adaptively(
    stages: Stages, config: ExperimentConfig, layout: ExperimentFolder, name: str, alignment: str, after: str
) -> None:
    stage, sat = f"network {name}", config.networks[name]
    stages.run(
        stage,
        lambda: train_sat(config, layout, name, alignment, config.trainer, sat, stages.key(stage)),
        after=[after] if sat.start is None else [after, f"network {sat.start}"],
        options=[config.dnn, config.trainer, sat.model_dump(mode="json", exclude_none=True)],
        outputs=[layout.acoustic_model(name) / MODEL_FILE],
    )


def _prepare_corpus(config: ExperimentConfig, layout: ExperimentFolder, fold: int | None) -> set[Path]:
    """Write manifests and sample rate; returns the recordings, for which a later run looks whether they changed."""
    splits = read_splits(config, layout.folder)
    if fold is not None:
        splits = fold_splits(splits, config.folds, fold, config.seed)
    recordings = write_splits(splits, config, layout.folder / "corpus")
    utterances = [*splits.train, *(utterance for test in splits.tests.values() for utterance in test)]
    write_json(layout.sample_rate, resolve_sample_rate(utterances))
    return recordings


def _extract_features(config: ExperimentConfig, layout: ExperimentFolder, tests: Sequence[str]) -> None:
    for split in (TRAIN, HELDOUT, *tests):
        utterances = read_manifest(layout.manifest(split))
        speeds = config.speeds if split == TRAIN else (1.0,)
        extract(layout.features(split), utterances, config.features, config.workers, speeds)
        if split in (TRAIN, HELDOUT):
            extract(layout.alignment_features(split), utterances, config.alignment_features, config.workers, speeds)


def _build_graphs(config: ExperimentConfig, layout: ExperimentFolder, folder: Path, alignment: str) -> None:
    topology = MonophoneTopology.load(layout.hmm(alignment) / TOPOLOGY_FILE)
    lexicon = read_experiment_lexicon(layout.lang)
    for place in {folder, tuning_folder(config, folder)}:
        build_graph(lexicon, place / ARPA_FILE, topology, place, config.transition_scale)


def _build_other_graphs(config: ExperimentConfig, layout: ExperimentFolder, order: int, alignment: str) -> None:
    """Language models and graphs of an order that is not the recipe's."""
    train, heldout = (read_manifest(layout.manifest(split)) for split in (TRAIN, HELDOUT))
    folder = order_folder(config, layout.lang, order)
    other = config.model_copy(update={"lm": config.lm.model_copy(update={"order": order})})
    write_language_models(other, train, heldout, read_experiment_lexicon(layout.lang), folder)
    _build_graphs(config, layout, folder, alignment)
