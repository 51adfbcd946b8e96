"""The corpus stage: manifests of every split, and the sample rates of the recordings.

It is run again when a table of the corpus has other content, when a recording is added or removed, and when a recording
that it read, or made, has other content.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lhuc_asr.base.fingerprint import InputFiles, files_below
from lhuc_asr.base.stage_key import PartOf
from lhuc_asr.base.stages import Stages
from lhuc_asr.corpus.splits import NOISY_FOLDER, SplitOptions, fold_splits, read_splits, write_splits
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.experiment import Experiment
from lhuc_asr.pipeline.inputs import own_tags
from lhuc_asr.pipeline.sample_rates import SampleRates

# Name of the stage.
CORPUS = "corpus"
# Endings of recordings. In the folders of a corpus they count by their names; the stage names those that it has read.
# A corpus may have a thousand hours of which one is used.
RECORDINGS = frozenset(
    {".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".m4a", ".mp3", ".mp4", ".nist", ".oga", ".ogg", ".opus"}
    | {".pcm", ".raw", ".snd", ".sph", ".w64", ".wav"}
)


@dataclass(frozen=True)
class CorpusOptions:
    """Everything that the corpus stage depends on, apart from files.

    Attributes:
        splits: Options of the splits.
    """

    splits: SplitOptions

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
            own_tags=own_tags(config),
        )
        return cls(splits)

    @property
    def files(self) -> InputFiles:
        """The files of the corpus and of the noise."""
        noise = [self.splits.noise.dir] if self.splits.noise else []
        corpus = self.splits.corpus
        return InputFiles((*corpus.paths(), *noise), by_name=RECORDINGS, versions=corpus.versions())


def transcripts_of(experiment: Experiment, splits: Iterable[str]) -> PartOf:
    """What the corpus stage says of some splits, apart from their recordings."""
    return PartOf(CORPUS, tuple(experiment.folder.manifest(split) for split in splits))


def recordings_of(experiment: Experiment, split: str, corpus_read: bool) -> PartOf:
    """What the corpus stage says of a split, and the split's recordings.

    Args:
        experiment: The experiment.
        split: The split.
        corpus_read: Whether the folder has the corpus; the recordings are not known if not.
    """
    recordings = {utterance.audio for utterance in experiment.utterances(split)} if corpus_read else ()
    return PartOf(CORPUS, (experiment.folder.manifest(split), *sorted(recordings)))


def corpus_stage(stages: Stages, experiment: Experiment, options: CorpusOptions) -> None:
    """Add the stage that reads the corpus."""
    folder = experiment.folder
    noisy = [folder.folder / "corpus" / NOISY_FOLDER] if options.splits.noise else []
    stages.run(
        CORPUS,
        partial(_prepare, experiment),
        options=options,
        inputs=options.files,
        outputs=[
            folder.sample_rate,
            *(folder.manifest(split) for split in options.splits.names),
            *options.splits.corpus.made_folders(folder.folder),
            *noisy,
        ],
    )


def _prepare(experiment: Experiment, options: CorpusOptions) -> set[Path]:
    """Write manifests and sample rates; return the recordings, and all files of made folders.

    A later run sees whether they have changed.
    """
    folder, wanted = experiment.folder, options.splits
    splits = read_splits(wanted, folder.folder, experiment.processes)
    if wanted.fold is not None:
        splits = fold_splits(splits, wanted.folds, wanted.fold, wanted.seed)
    recordings = write_splits(splits, wanted, folder.folder / "corpus", experiment.processes)
    utterances = [*splits.train, *(utterance for test in splits.tests.values() for utterance in test)]
    SampleRates.of(utterances).write(folder.sample_rate)
    made = (file for place in wanted.corpus.made_folders(folder.folder) for file in files_below(place))
    return recordings.union(made)
