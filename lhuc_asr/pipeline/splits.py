"""The corpus stage: recordings as splits of training, held-out and test speakers, or of a fold's."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from lhuc_asr.audio.resampling import resolve_sample_rate
from lhuc_asr.audio.utterance import Utterance, write_manifest
from lhuc_asr.base.atomic import write_json
from lhuc_asr.base.errors import CorpusError
from lhuc_asr.base.fingerprint import fingerprint
from lhuc_asr.base.stages import Stages
from lhuc_asr.corpus.noise import NoiseConfig, Part, clip_paths, put_into_environments
from lhuc_asr.corpus.reading import Reading
from lhuc_asr.corpus.source import CorpusSource
from lhuc_asr.corpus.validate import validate
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.experiment import HELDOUT, TRAIN, Experiment

logger = logging.getLogger(__name__)

# The part of the noise clips that a split gets; a test set gets the part for testing.
NOISE_PARTS: dict[str, Part] = {TRAIN: "training", HELDOUT: "heldout"}
NOISY_FOLDER = "noisy"


@dataclass(frozen=True)
class CorpusOptions:
    """Everything that the splits depend on.

    Attributes:
        corpus, hours, seed, max_skipped, noise: As in the recipe.
        heldout_speakers: Number of training speakers who are kept back.
        folds: Number of folds.
        fold: The fold, from 1; None without cross-validation.
        files: Fingerprint of the files of the corpus and of the noise.
    """

    corpus: CorpusSource
    hours: float | None
    seed: int
    max_skipped: float
    noise: NoiseConfig | None
    heldout_speakers: int
    folds: int
    fold: int | None
    files: str

    @classmethod
    def of(cls, config: ExperimentConfig, fold: int | None) -> CorpusOptions:
        """The options of a recipe."""
        return cls(
            corpus=config.corpus,
            hours=config.hours,
            seed=config.seed,
            max_skipped=config.max_skipped,
            noise=config.noise,
            heldout_speakers=config.heldout_speakers,
            folds=config.folds,
            fold=fold,
            files=fingerprint([*config.corpus.paths(), *([config.noise.dir] if config.noise else [])]),
        )


@dataclass(frozen=True)
class Splits:
    """Training and test utterances of a corpus.

    Attributes:
        train: Utterances of the training speakers.
        tests: Utterances of each test set.
        recordings: All recordings that the corpus names, usable or not, and the clips of noise.
    """

    train: list[Utterance]
    tests: dict[str, list[Utterance]]
    recordings: frozenset[Path] = frozenset()


def corpus_stage(stages: Stages, experiment: Experiment, options: CorpusOptions) -> None:
    """Add the stage that reads the corpus; it is stale when a file of the corpus, or a recording, has changed."""
    folder = experiment.folder
    noisy = [folder.folder / "corpus" / NOISY_FOLDER] if options.noise else []
    stages.run(
        "corpus",
        partial(_prepare, experiment),
        options=options,
        outputs=[
            folder.sample_rate,
            *(folder.manifest(split) for split in experiment.splits),
            *options.corpus.made_folders(folder.folder),
            *noisy,
        ],
    )


def _prepare(experiment: Experiment, options: CorpusOptions) -> set[Path]:
    """Write manifests and sample rate; returns the recordings, so that a later run sees whether they have changed."""
    folder = experiment.folder
    splits = read_splits(options, folder.folder, experiment.processes)
    if options.fold is not None:
        splits = fold_splits(splits, options.folds, options.fold, options.seed)
    recordings = write_splits(splits, options, folder.folder / "corpus", experiment.processes)
    utterances = [*splits.train, *(utterance for test in splits.tests.values() for utterance in test)]
    write_json(folder.sample_rate, resolve_sample_rate(utterances))
    return recordings


def read_splits(options: CorpusOptions, folder: Path, processes: int) -> Splits:
    """Read and validate a corpus.

    Args:
        options: The corpus, and how much of it to read.
        folder: Folder of the experiment, for recordings that the corpus makes.
        processes: Number of processes for making recordings.

    Raises:
        CorpusError: The corpus is not where or what the recipe says.
    """
    clips = clip_paths(options.noise) if options.noise else ()  # first: an error in its table is seen at once
    reading = options.corpus.read(folder, hours=options.hours, seed=options.seed, workers=processes)
    splits = Splits(
        _validated("training", reading.train, options.max_skipped),
        {name: _validated(name, test, options.max_skipped) for name, test in reading.tests.items()},
        frozenset(reading.recordings).union(clips),
    )
    for name, utterances in splits.tests.items():
        _refuse_shared(name, splits.train, utterances)
    return splits


def fold_splits(splits: Splits, folds: int, fold: int, seed: int) -> Splits:
    """Splits of one fold of a cross-validation over all speakers, each in the test set of exactly one fold.

    Args:
        splits: The corpus's own splits, which are pooled first.
        folds: Number of folds.
        fold: The fold, from 1.
        seed: Seed of the speakers' order.

    Raises:
        CorpusError: There are fewer than two speakers a fold.
    """
    utterances = splits.train + [u for test in splits.tests.values() for u in test]
    speakers = sorted({utterance.speaker for utterance in utterances})
    if len(speakers) < 2 * folds:
        raise CorpusError(
            f"{len(speakers)} speakers are too few for {folds} folds, expected at least two a fold; lower folds"
        )
    order = np.random.default_rng(seed).permutation(len(speakers))
    chosen = {speakers[i] for i in order[fold - 1 :: folds]}
    return Splits(
        [utterance for utterance in utterances if utterance.speaker not in chosen],
        {"test": [utterance for utterance in utterances if utterance.speaker in chosen]},
        splits.recordings,
    )


def write_splits(splits: Splits, options: CorpusOptions, folder: Path, processes: int) -> set[Path]:
    """Write the manifests of train, heldout and test splits, and the noisy copies where the recipe has noise.

    Returns:
        All recordings that the splits depend on: the corpus's, the clips of noise, the noisy copies.

    Raises:
        CorpusError: All training speakers would be held out, or a clip of noise cannot be used.
    """
    speakers = sorted({utterance.speaker for utterance in splits.train})
    if len(speakers) <= options.heldout_speakers:
        raise CorpusError(
            f"{len(speakers)} training speakers, of which heldout_speakers={options.heldout_speakers} are kept back: "
            "none is left to train on; lower heldout_speakers or add speakers"
        )
    order = np.random.default_rng(options.seed).permutation(len(speakers))
    heldout = {speakers[i] for i in order[: options.heldout_speakers]}
    parts = {
        TRAIN: [utterance for utterance in splits.train if utterance.speaker not in heldout],
        HELDOUT: [utterance for utterance in splits.train if utterance.speaker in heldout],
        **splits.tests,
    }
    if options.noise is not None:
        parts = put_into_environments(
            {name: (NOISE_PARTS.get(name, "test"), utterances) for name, utterances in parts.items()},
            options.noise,
            folder / NOISY_FOLDER,
            options.seed,
            processes,
        )
    for name, utterances in parts.items():
        write_manifest(folder / f"{name}.jsonl", utterances)
        logger.info(
            "%s: %d utterances of %d speakers, %.1f minutes",
            name, len(utterances), len({u.speaker for u in utterances}), sum(u.seconds for u in utterances) / 60,
        )  # fmt: skip
    return {*splits.recordings, *(utterance.audio for part in parts.values() for utterance in part)}


def _validated(name: str, reading: Reading, max_skipped: float) -> list[Utterance]:
    validated = validate(reading, max_skipped=max_skipped)
    if not validated.utterances:
        raise CorpusError(f"the {name} set has no usable utterance, expected at least one; correct the recordings")
    return validated.utterances


def _refuse_shared(name: str, train: Sequence[Utterance], test: Sequence[Utterance]) -> None:
    shared = sorted({u.speaker for u in train} & {u.speaker for u in test})
    if shared:
        raise CorpusError(
            f"{len(shared)} speakers of the test set {name} are training speakers too: {', '.join(shared[:5])}; "
            "a test speaker must be unseen in training"
        )
