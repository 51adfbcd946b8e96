"""Splits of a corpus: training, held-out and test speakers, or those of a fold; each with its manifest."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lhuc_asr.audio.utterance import Utterance, write_manifest
from lhuc_asr.base.errors import CorpusError
from lhuc_asr.corpus.noise import NoiseConfig, Part, clip_paths, put_into_environments
from lhuc_asr.corpus.reading import Reading
from lhuc_asr.corpus.source import TEST, CorpusSource
from lhuc_asr.corpus.validate import validate
from lhuc_asr.lang.tags import without_tags

logger = logging.getLogger(__name__)

# The splits of the training speakers: those that networks are trained on, and those that are held out for tuning.
TRAIN, HELDOUT = "train", "heldout"
# The part of the noise clips that a split gets; a test set gets the part for testing.
NOISE_PARTS: dict[str, Part] = {TRAIN: "training", HELDOUT: "heldout"}
NOISY_FOLDER = "noisy"


@dataclass(frozen=True)
class SplitOptions:
    """Everything that the splits depend on, apart from the files of the corpus.

    Attributes:
        corpus: The corpus.
        hours: Hours of training speech to read; None for all.
        seed: Seed of every random choice.
        max_skipped: Fraction of bad recordings that is skipped with a warning; above it reading stops.
        noise: Environments that every recording is put into; None leaves the recordings as they are.
        heldout_speakers: Number of training speakers who are held out.
        folds: Number of folds of a cross-validation; 1 for none.
        fold: The fold, from 1; None without cross-validation.
        own_tags: Tags in transcripts that the recipe's lexicon lists; None for none.
    """

    corpus: CorpusSource
    hours: float | None
    seed: int
    max_skipped: float
    noise: NoiseConfig | None
    heldout_speakers: int
    folds: int
    fold: int | None
    own_tags: tuple[str, ...] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all splits."""
        return (TRAIN, HELDOUT, *(self.corpus.test_sets if self.fold is None else (TEST,)))


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


def read_splits(options: SplitOptions, folder: Path, processes: int) -> Splits:
    """Read and validate a corpus.

    Args:
        options: The corpus, and how much of it to read.
        folder: Folder of the experiment, for recordings that the corpus makes.
        processes: Number of processes for making recordings.

    Raises:
        CorpusError: The corpus is not where or what the recipe says, a test speaker is a training speaker too, or has
            said no word.
    """
    clips = clip_paths(options.noise) if options.noise else ()  # first: an error in its table is seen at once
    reading = options.corpus.read(
        folder, hours=options.hours, seed=options.seed, processes=processes, own_tags=options.own_tags or ()
    )
    splits = Splits(
        _validated("training", reading.train, options.max_skipped),
        {name: _validated(name, test, options.max_skipped) for name, test in reading.tests.items()},
        reading.recordings.union(clips),
    )
    for name, utterances in splits.tests.items():
        _refuse_shared(name, splits.train, utterances)
        _refuse_wordless(name, utterances)
    return splits


def fold_splits(splits: Splits, folds: int, fold: int, seed: int) -> Splits:
    """Splits of one fold of a cross-validation; every speaker is in the test set of exactly one fold.

    Args:
        splits: The corpus's own splits, which are pooled first.
        folds: Number of folds.
        fold: The fold, from 1.
        seed: Seed of the speakers' order.

    Raises:
        CorpusError: There are fewer than two speakers per fold.
    """
    utterances = splits.train + [u for test in splits.tests.values() for u in test]
    speakers = sorted({utterance.speaker for utterance in utterances})
    if len(speakers) < 2 * folds:
        raise CorpusError(
            f"{len(speakers)} speakers are too few for {folds} folds, expected at least two per fold; lower folds"
        )
    order = np.random.default_rng(seed).permutation(len(speakers))
    chosen = {speakers[i] for i in order[fold - 1 :: folds]}
    return Splits(
        [utterance for utterance in utterances if utterance.speaker not in chosen],
        {TEST: [utterance for utterance in utterances if utterance.speaker in chosen]},
        splits.recordings,
    )


def choose_heldout(train: Sequence[Utterance], options: SplitOptions) -> set[str]:
    """The training speakers who are held out.

    Raises:
        CorpusError: All training speakers would be held out.
    """
    speakers = sorted({utterance.speaker for utterance in train})
    if len(speakers) <= options.heldout_speakers:
        raise CorpusError(
            f"{len(speakers)} training speakers, of which heldout_speakers={options.heldout_speakers} are kept back: "
            "none is left to train on; lower heldout_speakers or add speakers"
        )
    order = np.random.default_rng(options.seed).permutation(len(speakers))
    return {speakers[i] for i in order[: options.heldout_speakers]}


def write_splits(splits: Splits, options: SplitOptions, folder: Path, processes: int) -> set[Path]:
    """Write the manifests of train, heldout and test splits, and the noisy copies where the recipe has noise.

    Returns:
        All recordings that the splits depend on: the corpus's, the clips of noise, the noisy copies.

    Raises:
        CorpusError: All training speakers would be held out, or a clip of noise cannot be used.
    """
    heldout = choose_heldout(splits.train, options)
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


def _refuse_wordless(name: str, test: Sequence[Utterance]) -> None:
    """Refuse speakers of a test set without a single word, whose error rate is not defined."""
    speaking = {utterance.speaker for utterance in test if without_tags(utterance.words)}
    if silent := sorted({utterance.speaker for utterance in test} - speaking):
        raise CorpusError(
            f"the test set {name}: transcripts of noises and pauses without a word, of {len(silent)} speakers: "
            f"{', '.join(silent[:5])}; leave them out, they have no word error rate"
        )
