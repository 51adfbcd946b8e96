"""The corpus stage: manifests of every split, and the sample rates of the recordings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lhuc_asr.base.fingerprint import fingerprint
from lhuc_asr.base.stages import Stages
from lhuc_asr.corpus.splits import NOISY_FOLDER, SplitOptions, fold_splits, read_splits, write_splits
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.experiment import Experiment
from lhuc_asr.pipeline.sample_rates import SampleRates


@dataclass(frozen=True)
class CorpusOptions:
    """Everything that the corpus stage depends on.

    Attributes:
        splits: Options of the splits.
        files: Fingerprint of the files of the corpus and of the noise.
    """

    splits: SplitOptions
    files: str

    @classmethod
    def of(cls, config: ExperimentConfig, fold: int | None) -> CorpusOptions:
        """The options of a recipe, or of a fold of its cross-validation."""
        splits = SplitOptions(
            corpus=config.corpus,
            hours=config.hours,
            seed=config.seed,
            max_skipped=config.max_skipped,
            noise=config.noise,
            heldout_speakers=config.heldout_speakers,
            folds=config.folds,
            fold=fold,
        )
        return cls(splits, fingerprint([*config.corpus.paths(), *([config.noise.dir] if config.noise else [])]))


def corpus_stage(stages: Stages, experiment: Experiment, options: CorpusOptions) -> None:
    """Add the stage that reads the corpus; it is run again when a file of the corpus or a recording has changed."""
    folder = experiment.folder
    noisy = [folder.folder / "corpus" / NOISY_FOLDER] if options.splits.noise else []
    stages.run(
        "corpus",
        partial(_prepare, experiment),
        options=options,
        outputs=[
            folder.sample_rate,
            *(folder.manifest(split) for split in experiment.splits),
            *options.splits.corpus.made_folders(folder.folder),
            *noisy,
        ],
    )


def _prepare(experiment: Experiment, options: CorpusOptions) -> set[Path]:
    """Write manifests and sample rates; return the recordings, so that a later run sees whether they have changed."""
    folder, wanted = experiment.folder, options.splits
    splits = read_splits(wanted, folder.folder, experiment.processes)
    if wanted.fold is not None:
        splits = fold_splits(splits, wanted.folds, wanted.fold, wanted.seed)
    recordings = write_splits(splits, wanted, folder.folder / "corpus", experiment.processes)
    utterances = [*splits.train, *(utterance for test in splits.tests.values() for utterance in test)]
    SampleRates.of(utterances).write(folder.sample_rate)
    return recordings
