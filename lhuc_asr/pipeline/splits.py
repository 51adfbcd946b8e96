"""Recordings of a recipe, as splits: training speakers, held-out training speakers, test sets."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lhuc_asr.audio.utterance import Utterance, write_manifest
from lhuc_asr.base.errors import CorpusError
from lhuc_asr.corpus.an4 import read_an4
from lhuc_asr.corpus.kaldi_dir import read_kaldi_dir
from lhuc_asr.corpus.librispeech import read_librispeech
from lhuc_asr.corpus.noise import Part, put_into_environments
from lhuc_asr.corpus.reading import Reading
from lhuc_asr.corpus.synthetic import SyntheticConfig, generate
from lhuc_asr.corpus.validate import validate
from lhuc_asr.pipeline.config import (
    An4Source,
    ExperimentConfig,
    KaldiSource,
    LibriSpeechSource,
    SyntheticSource,
)

logger = logging.getLogger(__name__)

TRAIN, HELDOUT = "train", "heldout"
# Whose clips of noise a split gets; a test set gets those for testing.
NOISE_PARTS: dict[str, Part] = {TRAIN: "training", HELDOUT: "heldout"}
NOISY_FOLDER = "noisy"


@dataclass(frozen=True)
class Splits:
    """Utterances of the training speakers, and of each test set."""

    train: list[Utterance]
    tests: dict[str, list[Utterance]]


def test_names(config: ExperimentConfig) -> tuple[str, ...]:
    """Names of the test sets, known before anything is read."""
    if isinstance(config.corpus, LibriSpeechSource):
        return config.corpus.test
    return ("test", "control") if isinstance(config.corpus, SyntheticSource) else ("test",)


def source_paths(config: ExperimentConfig) -> list[Path]:
    """The files and folders that the corpus is read from, and its noise."""
    return [*_corpus_paths(config), *([config.noise.dir] if config.noise else [])]


def _corpus_paths(config: ExperimentConfig) -> list[Path]:
    match config.corpus:
        case An4Source(dir=root):
            return [root]
        case LibriSpeechSource(dir=root, train=train, test=test):
            return [root / subset for subset in (*train, *test)]
        case KaldiSource(train=train_folder, test=test_folder):
            return [train_folder, test_folder]
        case SyntheticSource():
            return []


def made_paths(config: ExperimentConfig, folder: Path) -> list[Path]:
    """The folders of recordings that preparing the corpus makes: synthetic voices, noisy copies."""
    noisy = [folder / "corpus" / NOISY_FOLDER] if config.noise else []
    match config.corpus:
        case SyntheticSource(voices=voices):
            return [_voices_folder(voices, folder), *noisy]
        case _:
            return noisy


def _voices_folder(voices: SyntheticConfig, folder: Path) -> Path:
    """Voices of other options are other voices: they get a folder of their own."""
    return folder / f"voices-{hashlib.sha256(voices.model_dump_json().encode()).hexdigest()[:8]}"


def read_splits(config: ExperimentConfig, folder: Path) -> Splits:
    """Read and validate a recipe's corpus.

    Args:
        config: The recipe.
        folder: The experiment's folder, where synthetic voices go.

    Raises:
        CorpusError: The corpus is not where or what the recipe says.
    """
    train, tests = _read(config, folder)
    splits = Splits(
        _validated("training", train, config), {name: _validated(name, test, config) for name, test in tests.items()}
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
    )


def write_splits(splits: Splits, config: ExperimentConfig, folder: Path) -> None:
    """Write the manifests of train, heldout and test splits, and the noisy copies where the recipe has noise.

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


def _read(config: ExperimentConfig, folder: Path) -> tuple[Reading, dict[str, Reading]]:
    match config.corpus:
        case An4Source(dir=root):
            return read_an4(root, "train"), {"test": read_an4(root, "test")}
        case LibriSpeechSource(dir=root, train=train, test=test):
            return (
                read_librispeech(root, train, hours=config.hours, seed=config.seed),
                {name: read_librispeech(root, [name]) for name in test},
            )
        case KaldiSource(train=train_folder, test=test_folder):
            return read_kaldi_dir(train_folder), {"test": read_kaldi_dir(test_folder)}
        case SyntheticSource(voices=voices):
            root = _voices_folder(voices, folder)
            if not root.exists():
                generate(voices, root, config.workers)
            return (
                read_librispeech(root, ["train"]),
                {name: read_librispeech(root, [name]) for name in ("test", "control")},
            )


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
