"""The folder of a model: everything that adapts and transcribes, on any machine.

```
model.json            description: features, search, adaptation, and the SHA-256 of every other file
network.safetensors   the acoustic model
topology.json         states of the phones
gmm.safetensors       the Gaussian mixtures that first aligned the training data
lang/                 lexicon.txt, phones.json, words.txt, HCLG.fst, graph.json
prepared/             what the adaptation method learned from the training speakers, if it learns from them
```

The folder of a finished experiment is a model's folder too: its ``model.json`` gives the paths of these files within
the experiment's folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, Self

from pydantic import Field, model_validator

from lhuc_asr.adapt.methods import AnyMethod
from lhuc_asr.adapt.speaker_data import AlignmentModel
from lhuc_asr.adapt.targets import TargetsConfig
from lhuc_asr.base.config import Seed
from lhuc_asr.base.documents import Name
from lhuc_asr.base.errors import ExperimentError
from lhuc_asr.base.experiment_folder import CONFIG_FILE, ExperimentFolder
from lhuc_asr.base.hashed_folder import FolderDescription, FolderKind
from lhuc_asr.decode.graph import DESCRIPTION_FILE, GRAPH_FILE, WORDS_FILE
from lhuc_asr.decode.lattice_search import LatticeConfig
from lhuc_asr.decode.search import SearchConfig
from lhuc_asr.features.filterbank import FeatureConfig
from lhuc_asr.lang.lexicon_folder import LEXICON_FILE, PHONES_FILE

MODEL_JSON = "model.json"
NETWORK_FILE, TOPOLOGY_FILE, GMM_FILE = "network.safetensors", "topology.json", "gmm.safetensors"
# Gaussians of unadapted features; a model of a ladder with speakers' transforms has this file.
UNADAPTED_GMM_FILE = "unadapted_gmm.safetensors"
LANG_FILES = tuple(f"lang/{name}" for name in (LEXICON_FILE, PHONES_FILE, WORDS_FILE, GRAPH_FILE, DESCRIPTION_FILE))
PREPARED_FOLDER = "prepared"
# An utterance is shorter than a day.
LONGEST_SECONDS = 86400.0


class ModelDescription(FolderDescription):
    """Content of ``model.json``.

    Attributes:
        format: Format of the folder.
        experiment: Name of the experiment's folder.
        adapted_pass: Name of the experiment's pass that the model adapts as.
        network: ``model_hash`` of the network; the speakers' files have it too.
        seed: Seed of the order of a speaker's data.
        features: Options of the network's features.
        alignment_features: Options of the Gaussian mixtures' features.
        whole_seconds: Maximum length of a recording that is searched in one piece: the length of the experiment's
            longest utterance.
        piece_seconds: Maximum length of the pieces of longer recordings: the length that 95 % of the training
            utterances do not exceed, and at most 20 s.
        first_search: Options of the search without a speaker, as tuned for the first pass.
        adapted_search: Options of the search with a speaker, as tuned for the adapted pass.
        lattice: Options of the lattices that confidences are computed from.
        method: Options of the adaptation method.
        targets: Options of the adaptation targets.
    """

    format: Literal["lhuc-asr-model-2"] = "lhuc-asr-model-2"
    experiment: Name
    adapted_pass: Name
    network: str = Field(pattern=r"^[0-9a-f]{64}(:[ -~]*)?$")
    seed: Seed
    features: FeatureConfig
    alignment_features: FeatureConfig
    whole_seconds: float = Field(gt=0.0, le=LONGEST_SECONDS)
    piece_seconds: float = Field(gt=0.0, le=LONGEST_SECONDS)
    first_search: SearchConfig
    adapted_search: SearchConfig
    lattice: LatticeConfig
    method: AnyMethod
    targets: TargetsConfig

    @model_validator(mode="after")
    def _folders_stay_together(self) -> Self:
        """Files that are found by their folder are there under their names, as their hashes say."""
        for folder in ("lang", PREPARED_FOLDER):
            places = {PurePosixPath(name): PurePosixPath(self.files.get(name, name)) for name in self.sha256}
            within = {name: place for name, place in places.items() if name.parts[0] == folder}
            parents = {place.parent for place in within.values()}
            if len(parents) > 1 or any(len(n.parts) != 2 or n.name != place.name for n, place in within.items()):
                raise ValueError(f"the files of {folder}/ are not in one folder under their own names")
        return self


MODELS = FolderKind(
    ModelDescription, MODEL_JSON, "model", ExperimentError, "export the model with this version of lhuc_asr"
)


@dataclass(frozen=True)
class ModelFiles:
    """Paths of a model's files.

    Attributes:
        by_name: Path of every file, by the file's name in an exported folder.
    """

    by_name: dict[str, Path]

    @classmethod
    def of(cls, description: ModelDescription, folder: Path) -> ModelFiles:
        """The paths of the files that a description names."""
        return cls({name: description.path(folder, name) for name in description.sha256})

    @property
    def network(self) -> Path:
        """File of the acoustic model."""
        return self.by_name[NETWORK_FILE]

    @property
    def topology(self) -> Path:
        """File of the states of the phones."""
        return self.by_name[TOPOLOGY_FILE]

    @property
    def lang(self) -> Path:
        """Folder of the lexicon and the graph."""
        return self.by_name[LANG_FILES[0]].parent

    @property
    def prepared(self) -> Path | None:
        """Folder of what the adaptation method learned from the training speakers; None if it learns nothing."""
        learned = (path for name, path in self.by_name.items() if name.startswith(f"{PREPARED_FOLDER}/"))
        return next((path.parent for path in learned), None)

    def alignment_model(self, pdf_count: int) -> AlignmentModel:
        """The mixtures of the last rung; their files are read when a method asks for them."""
        return AlignmentModel(self.by_name[GMM_FILE], self.by_name.get(UNADAPTED_GMM_FILE), pdf_count)


def read_model(folder: Path) -> tuple[ModelDescription, ModelFiles]:
    """Read a model's folder, and compare its files with their hashes.

    Args:
        folder: An exported model; or a finished experiment's folder, or that of one fold of a cross-validation.

    Raises:
        ExperimentError: The folder is not a model's, ``model.json`` is damaged or of another version, or a file is
            missing or damaged.
    """
    if not folder.is_dir():
        raise ExperimentError(f"{folder}: not a folder; give one that lhuc-asr export made, or an experiment's")
    is_experiment = (folder / CONFIG_FILE).is_file() or ExperimentFolder(folder).sample_rate.is_file()
    if not (folder / MODEL_JSON).exists():
        _refuse_experiment(folder, is_experiment)
    try:
        description = MODELS.read(
            folder, required=(NETWORK_FILE, TOPOLOGY_FILE, GMM_FILE, *LANG_FILES), complete=[PREPARED_FOLDER]
        )
    except ExperimentError as error:
        if not is_experiment:
            raise
        raise ExperimentError(f"{error}, or run the experiment's recipe again: lhuc-asr run") from error
    return description, ModelFiles.of(description, folder)


def is_model(folder: Path) -> bool:
    """Whether a path is an exported model's folder, or an experiment's, finished or not."""
    if not folder.is_dir():
        return False
    is_experiment = (folder / CONFIG_FILE).is_file() or ExperimentFolder(folder).sample_rate.is_file()
    return is_experiment or (folder / MODEL_JSON).exists() or any(folder.glob(f"fold*/{MODEL_JSON}"))


def _refuse_experiment(folder: Path, is_experiment: bool) -> None:
    """Say what to do about an experiment's folder without a description; do nothing about any other folder."""
    folds = sorted(folder.glob(f"fold*/{MODEL_JSON}"))
    if folds:
        raise ExperimentError(
            f"{folder}: a cross-validation has a model for each fold; give one of them, such as {folds[0].parent}"
        )
    if is_experiment:
        raise ExperimentError(
            f"{folder}: the experiment has no {MODEL_JSON}; if it is not finished, run its recipe again: lhuc-asr run; "
            "if its first pass does not suit a new speaker, export another: lhuc-asr export --pass NAME"
        )
