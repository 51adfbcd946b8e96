"""A recipe from recordings to the table: its stages in order."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from lhuc_asr.base.errors import ConfigError
from lhuc_asr.corpus.audio import resolve_sample_rate
from lhuc_asr.corpus.utterance import read_manifest
from lhuc_asr.decode.graph import build_graph
from lhuc_asr.hmm.topology import MonophoneTopology
from lhuc_asr.pipeline.acoustics import MODEL_FILE, TOPOLOGY_FILE, realign, train_gaussians, train_network
from lhuc_asr.pipeline.evaluate import PASSES, WER_FILE, compare_split, pool_folds, run_two_pass, tune
from lhuc_asr.pipeline.experiment import Layout, opened
from lhuc_asr.pipeline.extraction import extract
from lhuc_asr.pipeline.language import language_paths, read_experiment_lexicon, write_language
from lhuc_asr.pipeline.recipe import ExperimentConfig
from lhuc_asr.pipeline.splits import HELDOUT, TRAIN, fold_splits, read_splits, source_paths, test_names, write_splits
from lhuc_asr.pipeline.stages import Stages, fingerprint
from lhuc_asr.score.tables import PassScore

logger = logging.getLogger(__name__)


def run_recipe(config: ExperimentConfig) -> list[PassScore]:
    """Run a recipe, or what is left of it.

    Returns:
        The score of each pass over each test split.

    Raises:
        LhucError: Whatever is wrong with the corpus, the configuration or the folder; what was finished stays.
    """
    if config.device != "cpu" and not torch.cuda.is_available():
        raise ConfigError(f"device={config.device}: torch sees no such device here; use device=cpu")
    torch.set_num_threads(config.workers)
    with opened(config) as layout:
        if config.folds == 1:
            return _run_experiment(config, layout, fold=None)
        folds = [Layout(layout.folder / f"fold{fold}") for fold in range(1, config.folds + 1)]
        for fold, fold_layout in enumerate(folds, start=1):
            logger.info("fold %d of %d", fold, config.folds)
            _run_experiment(config, fold_layout, fold)
        pool_folds(layout, folds, "test")
        return compare_split(layout, "test", config.seed)


def _run_experiment(config: ExperimentConfig, layout: Layout, fold: int | None) -> list[PassScore]:
    """All stages of one experiment, or of one fold of a cross-validation."""
    tests = test_names(config)
    splits = (TRAIN, HELDOUT, *tests)
    layout.folder.mkdir(parents=True, exist_ok=True)
    stages = Stages(layout.folder, layout.metrics)
    # What every stage depends on beside its own options.
    base = {"seed": config.seed, "fold": fold, "folds": config.folds}

    def prepare_corpus() -> None:
        found = read_splits(config, layout.folder)
        if fold is not None:
            found = fold_splits(found, config.folds, fold, config.seed)
        write_splits(found, config, layout.folder / "corpus")

    stages.run(
        "corpus",
        prepare_corpus,
        options=[
            base,
            config.corpus,
            fingerprint(source_paths(config)),
            config.hours,
            config.heldout_speakers,
            config.max_skipped,
        ],
        outputs=[layout.manifest(split) for split in splits],
    )
    config = _at_corpus_rate(config, layout, splits)

    training = [utterance for split in (TRAIN, HELDOUT) for utterance in read_manifest(layout.manifest(split))]
    stages.run(
        "lang",
        lambda: write_language(config, training, layout.lang),
        after=["corpus"],
        options=[config.lexicon, config.lm, fingerprint(language_paths(config))],
    )

    def extract_features() -> None:
        for split in splits:
            utterances = read_manifest(layout.manifest(split))
            speeds = config.speeds if split == TRAIN else (1.0,)
            extract(layout.features(split), utterances, config.features, config.workers, speeds)
            if split in (TRAIN, HELDOUT):
                folder = layout.alignment_features(split)
                extract(folder, utterances, config.alignment_features, config.workers, speeds)

    stages.run(
        "features",
        extract_features,
        after=["corpus"],
        options=[config.features, config.alignment_features, config.speeds],
        outputs=[layout.features(split) for split in splits],
    )
    stages.run(
        "monophones",
        lambda: train_gaussians(config, layout),
        after=["lang", "features"],
        options=[config.monophone],
    )
    network, alignment = "monophones", "mono"
    for round_ in range(1, config.realignments + 1):
        stages.run(
            f"network{round_}",
            lambda stage=f"network{round_}", name=f"first{round_}", alignment=alignment: train_network(
                config, layout, name, alignment, stages.key(stage)
            ),
            after=[network],
            options=[config.dnn, config.trainer],
        )
        stages.run(
            f"realign{round_}",
            lambda network=f"first{round_}", name=f"dnn{round_}", previous=alignment: realign(
                config, layout, network, name, previous
            ),
            after=[f"network{round_}"],
        )
        network, alignment = f"realign{round_}", f"dnn{round_}"
    stages.run(
        "network",
        lambda: train_network(config, layout, "si", alignment, stages.key("network")),
        after=[network],
        options=[config.dnn, config.trainer],
        outputs=[layout.acoustic_model("si") / MODEL_FILE],
    )
    stages.run(
        "graph",
        lambda: _build_graph(layout, alignment),
        after=["lang", network],
    )
    stages.run(
        "tuning",
        lambda: tune(config, layout, alignment),
        after=["network", "graph"],
        options=[config.search, config.tuning, config.lhuc],
    )
    passes: list[PassScore] = []
    for split in tests:
        stages.run(
            f"two passes over {split}",
            lambda split=split: run_two_pass(config, layout, split, alignment),
            after=["tuning"],
            options=[split],
            outputs=[layout.decode(split, name) / WER_FILE for name in PASSES],
        )
        passes += compare_split(layout, split, config.seed)
    return passes


def _build_graph(layout: Layout, alignment: str) -> None:
    topology = MonophoneTopology.load(layout.hmm(alignment) / TOPOLOGY_FILE)
    build_graph(read_experiment_lexicon(layout.lang), layout.lang / "lm.arpa", topology, layout.lang)


def _at_corpus_rate(config: ExperimentConfig, layout: Layout, splits: Sequence[str]) -> ExperimentConfig:
    """The configuration with features at the recordings' sample rate, where that is lower."""
    rate = resolve_sample_rate(u for split in splits for u in read_manifest(layout.manifest(split)))
    if rate >= config.features.sample_rate:
        return config
    logger.info("recordings at %d Hz: features at that rate", rate)
    return config.model_copy(
        update={
            "features": config.features.model_copy(update={"sample_rate": rate}),
            "alignment_features": config.alignment_features.model_copy(update={"sample_rate": rate}),
        }
    )
