"""The folder of an experiment: the places of its files, and the record of the run that made it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from lhuc_asr.base.atomic import write_json, write_text
from lhuc_asr.base.config import StrictModel, dump_config, load_config, read_tree
from lhuc_asr.base.errors import ConfigError, ExperimentError
from lhuc_asr.base.runlog import Metrics
from lhuc_asr.base.version import __version__

CONFIG_FILE, RUN_FILE, LOG_FILE = "config.yaml", "run.json", "run.log"
METRICS_FILE = "metrics.jsonl"
# Folder of the event files of --tensorboard.
TENSORBOARD = "tensorboard"
RECORDED_PACKAGES = ("torch", "torchaudio", "numpy", "kaldifst", "kaldi-decoder", "kaldi-native-fbank", "jiwer")
ANOTHER_FOLDER = "choose another folder with exp=DIR, or delete this one"
# Names in an experiment's folder, of both kinds, speech and ranking. Logs and notes may be there before its first run.
MADE = (
    *(CONFIG_FILE, METRICS_FILE, "stages", "model.json", "benchmark", TENSORBOARD),
    *("corpus", "recordings", "features", "lang", "hmm", "am", "speakers", "decode"),
    *("data", "vocabularies.json", "unseen.json", "results.json", "results.txt", "by_user"),
)
# Options that no result depends on, of both kinds.
FREE = {"name", "exp", "workers", "device", "executor", "ray"}
# A checkout on a network disk that is away makes git wait for ever.
GIT_SECONDS = 10.0

# The name of an experiment is that of its folder below ``exp/``.
ExperimentName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", max_length=200)]


@dataclass(frozen=True)
class ExperimentFolder:
    """The places of files in an experiment's folder; other programs read them.

    Attributes:
        folder: The experiment's folder.
    """

    folder: Path

    @property
    def lang(self) -> Path:
        """Folder of lexicon, words, language model and decoding graph."""
        return self.folder / "lang"

    @property
    def metrics(self) -> Metrics:
        """Log of the figures of every stage."""
        return Metrics(self.folder / METRICS_FILE)

    def manifest(self, split: str) -> Path:
        """File of the utterances of a split."""
        return self.folder / "corpus" / f"{split}.jsonl"

    @property
    def sample_rate(self) -> Path:
        """File of the sample rates of the recordings, in hertz."""
        return self.folder / "corpus" / "sample_rate.json"

    def features(self, split: str, kind: str = "") -> Path:
        """Folder of a split's features.

        Args:
            split: The split.
            kind: "" for the networks' own; ``mfcc`` for the first Gaussians'; otherwise the name of an aligner whose
                transform made them.
        """
        return self.folder / "features" / (f"{split}_{kind}" if kind else split)

    def shards(self, kind: str = "") -> Path:
        """File that names the shards of the training features of a kind."""
        return self.folder / "features" / f"shards_{kind or 'features'}.jsonl"

    def hmm(self, name: str) -> Path:
        """Folder of topology, Gaussians and alignments: that of a rung, or ``dnn<n>`` where the network aligned."""
        return self.folder / "hmm" / name

    def topology(self, name: str) -> Path:
        """The states of the phones in ``hmm/<name>``."""
        return self.hmm(name) / "topology.json"

    def gmm(self, name: str) -> Path:
        """The Gaussian mixtures in ``hmm/<name>``."""
        return self.hmm(name) / "gmm.safetensors"

    def unadapted_gmm(self, name: str) -> Path:
        """The Gaussian mixtures in ``hmm/<name>`` for features without speakers' transforms."""
        return self.hmm(name) / "unadapted.safetensors"

    def space(self, name: str) -> Path:
        """The space of the features in ``hmm/<name>``."""
        return self.hmm(name) / "space.safetensors"

    def alignment(self, name: str, split: str) -> Path:
        """The alignment of a split in ``hmm/<name>``."""
        return self.hmm(name) / f"{split}.ali"

    def network(self, name: str) -> Path:
        """The file of a network."""
        return self.folder / "am" / name / "model.safetensors"

    @property
    def training_figure(self) -> Path:
        """The figure of the networks' cross-entropy by epoch."""
        return self.folder / "am" / "training.png"

    def speakers(self, split: str, name: str) -> Path:
        """Folder of the speakers' files of a pass over a split."""
        return self.folder / "speakers" / name / split

    def prepared(self, preparation: str) -> Path:
        """Folder of what a method learned from the training speakers; several passes may share it."""
        return self.folder / "speakers" / "prepared" / preparation

    def decode(self, split: str, name: str = "") -> Path:
        """Folder of a pass's hypotheses and scores over a split; without a name, the folder of the split."""
        return self.folder / "decode" / split / name


def refuse_another(folder: Path, config: StrictModel, name: str) -> None:
    """Refuse a folder that is not this experiment's: what it holds would be lost, or mixed with ours.

    Args:
        folder: Folder of the experiment.
        config: Configuration of the experiment.
        name: Its name.

    Raises:
        ExperimentError: The folder holds an experiment of another kind, or of another name and with other options, or
            files that no run made: a recipe, a model, a corpus.
    """
    if not (folder / RUN_FILE).exists():
        if foreign := next((entry for entry in MADE if os.path.lexists(folder / entry)), None):
            raise ExperimentError(f"{folder}: holds a {foreign} that no run made; choose another folder with exp=DIR")
        return
    try:
        tree = read_tree(folder / CONFIG_FILE)
    except ConfigError:  # missing or damaged
        return
    kind = type(config)
    if tree and not {key for key, field in kind.model_fields.items() if field.is_required()} <= tree.keys():
        raise ExperimentError(f"{folder}: holds an experiment of another kind; {ANOTHER_FOLDER}")
    before = tree.get("name", name)
    if before == name:
        return
    try:
        old = load_config(kind, folder / CONFIG_FILE)
    except ConfigError:  # of another version
        old = None
    if old is None or old.model_dump(exclude=FREE) != config.model_dump(exclude=FREE):
        raise ExperimentError(
            f"{folder}: holds the experiment {before!r}, and the recipe is {name!r}; {ANOTHER_FOLDER}"
        )


def record_run(folder: Path, config: StrictModel, seed: int | Sequence[int]) -> None:
    """Write ``run.json`` and ``config.yaml`` into a folder that ``refuse_another`` does not refuse.

    Args:
        folder: Folder of the experiment.
        config: Configuration of the experiment.
        seed: Seed or seeds of the experiment.
    """
    # In this order, so that a run that is killed in between can be resumed.
    write_json(folder / RUN_FILE, run_record(seed))
    write_text(folder / CONFIG_FILE, dump_config(config))


def run_record(seed: int | Sequence[int]) -> dict[str, Any]:
    """The record that makes a figure reproducible: versions, command, seed or seeds, machine, commit."""
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
    """The commit and whether files differ from it; None outside a checkout, and where git fails or hangs."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-c", "core.fsmonitor=false", "-C", str(here), *arguments]
        # Nothing is asked, locked or waited for: the commit is not worth a run that hangs.
        environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=environment,
            timeout=GIT_SECONDS,
            check=True,
        )
        return done.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None
