"""Recordings of a recipe, as splits: training speakers, held-out training speakers, test sets."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lhuc_asr.audio.utterance import Utterance, write_manifest
from lhuc_asr.base.errors import CorpusError
from lhuc_asr.corpus.noise import Part, clip_paths, put_into_environments
from lhuc_asr.corpus.reading import Reading
from lhuc_asr.corpus.validate import validate
from lhuc_asr.pipeline.config import ExperimentConfig

logger = logging.getLogger(__name__)

TRAIN, HELDOUT = "train", "heldout"
# Whose clips of noise a split gets; a test set gets those for testing.
NOISE_PARTS: dict[str, Part] = {TRAIN: "training", HELDOUT: "heldout"}
NOISY_FOLDER = "noisy"


@dataclass(frozen=True)
class Splits:
    """Training and test utterances of a corpus.

    Attributes:
        train: Utterances of the training speakers.
        tests: Utterances of each test set.
        recordings: All recordings that the utterances are made from: those that the corpus names, even if they cannot
            be used, and the clips of noise.
    """

    train: list[Utterance]
    tests: dict[str, list[Utterance]]
    recordings: frozenset[Path] = frozenset()


def test_names(config: ExperimentConfig) -> tuple[str, ...]:
    """Names of the test sets, known before anything is read."""
    return config.corpus.test_sets


def source_paths(config: ExperimentConfig) -> list[Path]:
    """The files and folders that the corpus is read from, and its noise."""
    return [*config.corpus.paths(), *([config.noise.dir] if config.noise else [])]


def made_paths(config: ExperimentConfig, folder: Path) -> list[Path]:
    """The folders of recordings that preparing the corpus makes: synthetic voices, noisy copies."""
    return [*config.corpus.made_folders(folder), *([folder / "corpus" / NOISY_FOLDER] if config.noise else [])]


def read_splits(config: ExperimentConfig, folder: Path) -> Splits:
    """Read and validate a recipe's corpus.

    Args:
        config: The recipe.
        folder: Folder of the experiment, for recordings that the corpus makes.

    Raises:
        CorpusError: The corpus is not where or what the recipe says.
    """
    clips = clip_paths(config.noise) if config.noise else []  # first: an error in its table is found at once
    reading = config.corpus.read(folder, hours=config.hours, seed=config.seed, workers=config.workers)
    splits = Splits(
        _validated("training", reading.train, config),
        {name: _validated(name, test, config) for name, test in reading.tests.items()},
        reading.recordings.union(clips),
    )
    for name, utterances in splits.tests.items():
        _refuse_shared(name, splits.train, utterances)
    return splits


def fold_splits(splits: Splits, folds: int, fold: int, seed: int) -> Splits:
    """Splits of one fold of a cross-validation over all speakers, each in the test set of exactly one fold.

    Args:
        splits: The corpus' own splits, pooled first.
        folds: Number of folds.
        fold: Which, from 1.
        seed: Of the speakers' order.

    Raises:
        CorpusError: Fewer speakers than folds.
    """
    utterances = splits.train + [u for test in splits.tests.values() for u in test]
    speakers = sorted({utterance.speaker for utterance in utterances})
    if len(speakers) < 2 * folds:
        raise CorpusError(f"{len(speakers)} speakers are too few for {folds} folds; expected two a fold at least")
    order = np.random.default_rng(seed).permutation(len(speakers))
    chosen = {speakers[i] for i in order[fold - 1 :: folds]}
    return Splits(
        [utterance for utterance in utterances if utterance.speaker not in chosen],
        {"test": [utterance for utterance in utterances if utterance.speaker in chosen]},
        splits.recordings,
    )


def write_splits(splits: Splits, config: ExperimentConfig, folder: Path) -> set[Path]:
    """Write the manifests of train, heldout and test splits, and the noisy copies where the recipe has noise.

    Returns:
        ``splits.recordings`` and the recordings that the manifests name, which are the noisy copies too.

    Raises:
        CorpusError: So few training speakers that none is left to train on, or noise that cannot be used.
    """
    speakers = sorted({utterance.speaker for utterance in splits.train})
    if len(speakers) <= config.heldout_speakers:
        raise CorpusError(
            f"{len(speakers)} training speakers, of which heldout_speakers={config.heldout_speakers} are kept back: "
            "none is left to train on; lower heldout_speakers or add speakers"
        )
    order = np.random.default_rng(config.seed).permutation(len(speakers))
    heldout = {speakers[i] for i in order[: config.heldout_speakers]}
    parts = {
        TRAIN: [utterance for utterance in splits.train if utterance.speaker not in heldout],
        HELDOUT: [utterance for utterance in splits.train if utterance.speaker in heldout],
        **splits.tests,
    }
    if config.noise is not None:
        parts = put_into_environments(
            {name: (NOISE_PARTS.get(name, "test"), utterances) for name, utterances in parts.items()},
            config.noise,
            folder / NOISY_FOLDER,
            config.seed,
            config.workers,
        )
    for name, utterances in parts.items():
        write_manifest(folder / f"{name}.jsonl", utterances)
        logger.info(
            "%s: %d utterances of %d speakers, %.1f minutes",
            name, len(utterances), len({u.speaker for u in utterances}), sum(u.seconds for u in utterances) / 60,
        )  # fmt: skip
    return {*splits.recordings, *(utterance.audio for part in parts.values() for utterance in part)}


def _validated(name: str, reading: Reading, config: ExperimentConfig) -> list[Utterance]:
    validated = validate(reading, max_skipped=config.max_skipped)
    if not validated.utterances:
        raise CorpusError(f"the {name} set has no usable utterance")
    return validated.utterances


def _refuse_shared(name: str, train: Sequence[Utterance], test: Sequence[Utterance]) -> None:
    shared = sorted({u.speaker for u in train} & {u.speaker for u in test})
    if shared:
        raise CorpusError(
            f"{len(shared)} speakers of the test set {name} are training speakers too: {', '.join(shared[:5])}; "
            "a test speaker must be unseen in training"
        )
