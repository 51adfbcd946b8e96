"""An experiment's folder: its lock, its record, and where everything in it lies."""

from __future__ import annotations

import fcntl
import importlib.metadata
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lhuc_asr import __version__
from lhuc_asr.base.atomic import read_json, write_json, write_text
from lhuc_asr.base.config import StrictModel, dump_config, load_config
from lhuc_asr.base.errors import ExperimentError
from lhuc_asr.base.runlog import Metrics
from lhuc_asr.pipeline.recipe import ExperimentConfig

logger = logging.getLogger(__name__)

# ``hmm/<name>`` of the Gaussians' alignment.
MONOPHONES = "mono"
CONFIG_FILE, RUN_FILE = "config.yaml", "run.json"
RECORDED_PACKAGES = ("torch", "torchaudio", "numpy", "kaldifst", "kaldi-decoder", "kaldi-native-fbank", "jiwer")


@dataclass(frozen=True)
class Layout:
    """Where things lie in an experiment's folder; other programs read them."""

    folder: Path

    @property
    def lang(self) -> Path:
        """Lexicon, words, language model, decoding graph."""
        return self.folder / "lang"

    @property
    def metrics(self) -> Metrics:
        """The figures of every stage."""
        return Metrics(self.folder / "metrics.jsonl")

    def manifest(self, split: str) -> Path:
        """The utterances of a split."""
        return self.folder / "corpus" / f"{split}.jsonl"

    @property
    def sample_rate(self) -> Path:
        """The lowest sample rate among the recordings, hertz."""
        return self.folder / "corpus" / "sample_rate.json"

    def features(self, split: str) -> Path:
        """The network's features of a split."""
        return self.folder / "features" / split

    def alignment_features(self, split: str) -> Path:
        """The Gaussians' features of a split."""
        return self.folder / "features" / f"{split}_mfcc"

    def hmm(self, name: str) -> Path:
        """Topology, Gaussians and alignments: ``mono``, or ``dnn<n>`` where the network aligned."""
        return self.folder / "hmm" / name

    def acoustic_model(self, name: str) -> Path:
        """A network."""
        return self.folder / "am" / name

    def speakers(self, method: str, split: str) -> Path:
        """The speakers' files of a method."""
        return self.folder / "speakers" / method / split

    def prepared(self, preparation: str) -> Path:
        """What a technique learned from the training speakers; passes that can share it do."""
        return self.folder / "speakers" / "prepared" / preparation

    def decode(self, split: str, name: str = "") -> Path:
        """Hypotheses and scores of a pass over a split."""
        return self.folder / "decode" / split / name


def realigned(number: int) -> str:
    """``hmm/<name>`` of the alignment by the network of a realignment, from 1."""
    return f"dnn{number}"


def last_alignment(config: ExperimentConfig) -> str:
    """``hmm/<name>`` of the alignment that the networks of the passes are trained on; the graph has its topology."""
    return realigned(config.realignments) if config.realignments else MONOPHONES


def at_corpus_rate(config: ExperimentConfig, layout: Layout) -> ExperimentConfig:
    """The configuration with features at the recordings' sample rate, where that is lower."""
    rate = int(read_json(layout.sample_rate))
    if rate >= config.features.sample_rate:
        return config
    logger.info("recordings at %d Hz: features at that rate", rate)
    return config.model_copy(
        update={
            "features": config.features.model_copy(update={"sample_rate": rate}),
            "alignment_features": config.alignment_features.model_copy(update={"sample_rate": rate}),
        }
    )


def read_experiment(folder: Path) -> tuple[ExperimentConfig, Layout]:
    """The configuration and the folder of a finished experiment, or of one fold of a cross-validation.

    Raises:
        ExperimentError: It is no experiment's folder, a cross-validation's that has one for each fold, or unfinished.
        ConfigError: It was made by another version, with settings that this one does not know.
    """
    layout = Layout(folder)
    found = [path for path in (folder / CONFIG_FILE, folder.parent / CONFIG_FILE) if path.is_file()]
    if not found or (found[0].parent != folder and not layout.manifest("train").is_file()):
        raise ExperimentError(
            f"{folder}: not an experiment's folder, it has no {CONFIG_FILE}; give one such as exp/an4"
        )
    config = load_config(ExperimentConfig, found[0])
    if config.folds > 1 and found[0].parent == folder:
        raise ExperimentError(
            f"{folder}: a cross-validation has a network for each fold; give one of them, such as {folder / 'fold1'}"
        )
    if not layout.sample_rate.is_file():
        raise ExperimentError(f"{folder}: the experiment is not finished; lhuc-asr run goes on with it")
    return at_corpus_rate(config, layout), layout


@contextmanager
def opened(config: ExperimentConfig, record: bool = True) -> Iterator[Layout]:
    """Take an experiment's folder for one run.

    Args:
        config: The recipe.
        record: Whether it becomes the experiment's own: its ``config.yaml`` and ``run.json``.

    Raises:
        ExperimentError: Another run is in the folder, it cannot be written to, or it is a recipe's.
    """
    with locked(config.folder) as folder:
        if record:
            record_run(folder, config, config.seed)
        yield Layout(folder)


@contextmanager
def locked(folder: Path) -> Iterator[Path]:
    """Make a folder where it is not there, and keep other runs out of it.

    Raises:
        ExperimentError: Another run is in the folder, or it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise ExperimentError(
            f"{folder}: cannot be written to ({error.strerror}); choose another with exp=DIR"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ExperimentError(
                f"{folder}: another run is using this folder; wait for it, or choose another with exp=DIR"
            ) from error
        yield folder


def record_run(folder: Path, config: StrictModel, seed: int | Sequence[int]) -> None:
    """Write ``run.json`` and ``config.yaml``.

    Args:
        folder: Of the experiment.
        config: Its settings.
        seed: Its seed, or seeds.

    Raises:
        ExperimentError: There is a ``config.yaml`` that no run made, as in a recipe's own folder.
    """
    record = folder / RUN_FILE
    if (folder / CONFIG_FILE).exists() and not record.exists():
        raise ExperimentError(f"{folder}: holds a {CONFIG_FILE} that no run made; choose another folder with exp=DIR")
    # In this order: a run that is killed in between can go on.
    write_json(record, run_record(seed))
    write_text(folder / CONFIG_FILE, dump_config(config))


def run_record(seed: int | Sequence[int]) -> dict[str, Any]:
    """What a figure needs beside it to be had again: versions, command, seed or seeds, machine, commit."""
    return {
        "lhuc_asr": __version__,
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in RECORDED_PACKAGES},
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "seed": seed,
        "machine": {"system": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()},
        "git": _git_state(),
    }


def _git_state() -> dict[str, Any] | None:
    """Commit and whether files differ from it; None outside a checkout."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.CalledProcessError):
        return None
