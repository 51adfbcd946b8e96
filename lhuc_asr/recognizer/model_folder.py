"""The folder of a model: everything that adapts and transcribes, on any machine.

```
model.json            description: features, search, adaptation, and the SHA-256 of every other file
networks/             the networks of the model's passes
topology.json         states of the phones
gmm.safetensors       the Gaussian mixtures that first aligned the training data
unadapted_gmm.safetensors, space.safetensors     these Gaussians for features without speakers' transforms, and the
                      space of their features, if the experiment's aligners made them
lang/                 lexicon.txt, phones.json, words.txt, HCLG.fst, graph.json
prepared/             a folder for each pass whose method learned from the training speakers
```

The folder of a finished experiment is a model's folder too: its ``model.json`` gives the paths of these files within
the experiment's folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, Self

from pydantic import Field, model_validator

from lhuc_asr.adapt.prepared import PreparedConfig
from lhuc_asr.adapt.speaker_data import AlignmentModel
from lhuc_asr.base.config import Seed
from lhuc_asr.base.documents import Name
from lhuc_asr.base.errors import ExperimentError
from lhuc_asr.base.experiment_folder import CONFIG_FILE, ExperimentFolder
from lhuc_asr.base.hashed_folder import FolderDescription, FolderKind
from lhuc_asr.decode.graph import DESCRIPTION_FILE, GRAPH_FILE, WORDS_FILE
from lhuc_asr.decode.lattice_search import LatticeConfig
from lhuc_asr.features.filterbank import FeatureConfig
from lhuc_asr.lang.lexicon_folder import LEXICON_FILE, PHONES_FILE
from lhuc_asr.recognizer.installed import check_model_folder
from lhuc_asr.recognizer.pass_description import PassDescription, PlainName, check_chain

MODEL_JSON = "model.json"
TOPOLOGY_FILE, GMM_FILE = "topology.json", "gmm.safetensors"
UNADAPTED_GMM_FILE, SPACE_FILE = "unadapted_gmm.safetensors", "space.safetensors"
LANG_FILES = tuple(f"lang/{name}" for name in (LEXICON_FILE, PHONES_FILE, WORDS_FILE, GRAPH_FILE, DESCRIPTION_FILE))
PREPARED_FOLDER = "prepared"
# An utterance is shorter than a day.
LONGEST_SECONDS = 86400.0


def network_file(name: str) -> str:
    """Name of a network's file in an exported folder."""
    return f"networks/{name}.safetensors"


class ModelDescription(FolderDescription):
    """Content of ``model.json``.

    Attributes:
        format: Format of the folder.
        experiment: Name of the experiment's folder.
        network: ``model_hash`` of the acoustic model of the last pass; the speakers' files have it too.
        seed: Seed of the order of a speaker's data.
        whole_seconds: Maximum length of a recording that is searched in one piece: the length of the experiment's
            longest utterance.
        piece_seconds: Maximum length of the pieces of longer recordings: the length that 95 % of the training
            utterances do not exceed, and at most 20 s.
        lattice: Options of the lattices that confidences are computed from.
        normalised_by: What features were normalised by in training. Recordings that are given together are normalised
            together; with ``environment`` they have to be of one. Older descriptions lack it.
        passes: The passes, in their order. A speaker is adapted by the last one on what those before it give.
        without_speaker: Name of the pass that decodes recordings of which no speaker is given.
    """

    format: Literal["lhuc-asr-model-3"] = "lhuc-asr-model-3"
    experiment: Name
    network: str = Field(pattern=r"^[0-9a-f]{64}(:[ -~]*)?$")
    seed: Seed
    whole_seconds: float = Field(gt=0.0, le=LONGEST_SECONDS)
    piece_seconds: float = Field(gt=0.0, le=LONGEST_SECONDS)
    lattice: LatticeConfig
    normalised_by: Literal["speaker", "environment"] = "speaker"
    passes: tuple[PassDescription, ...] = Field(min_length=1)
    without_speaker: PlainName

    @property
    def with_speaker(self) -> PassDescription:
        """The pass that adapts to a speaker, and decodes with the speaker's parameters."""
        return self.passes[-1]

    @property
    def features(self) -> FeatureConfig:
        """Options of the features that are decoded with a speaker's parameters."""
        return self.with_speaker.features

    def named(self, name: str) -> PassDescription:
        """The pass of a name."""
        return next(each for each in self.passes if each.name == name)

    def chain(self, last: PassDescription) -> list[PassDescription]:
        """A pass and the earlier ones that it builds on, in their order."""
        needed = {last.name}
        for each in reversed(self.passes):
            needed |= set(each.needed) if each.name in needed else set()
        return [each for each in self.passes if each.name in needed]

    @model_validator(mode="after")
    def _passes_fit(self) -> Self:
        check_chain(self.passes)
        if self.with_speaker.method is None:
            raise ValueError(f"passes: the last one, {self.with_speaker.name!r}, does not adapt")
        if self.without_speaker not in {each.name for each in self.passes}:
            raise ValueError(f"without_speaker: {self.without_speaker!r} is not one of the passes")
        for each in self.passes:
            files = [] if each.network is None else [network_file(each.network)]
            for file in (*files, *([SPACE_FILE] if each.in_space else [])):
                if file not in self.sha256:
                    raise ValueError(f"{file}: not one of the files that were saved, but {each.name!r} needs it")
            learned = f"{PREPARED_FOLDER}/{each.name}/"
            if isinstance(each.method, PreparedConfig) and not any(name.startswith(learned) for name in self.sha256):
                raise ValueError(f"{learned}: no file of it was saved, but {each.name!r} needs what was learned there")
        return self

    @model_validator(mode="after")
    def _folders_stay_together(self) -> Self:
        """Files that are found by their folder are there under their names, as their hashes say."""
        places = {PurePosixPath(name): PurePosixPath(self.files.get(name, name)) for name in self.sha256}
        folders = {PurePosixPath("lang"), *(PurePosixPath(PREPARED_FOLDER, each.name) for each in self.passes)}
        parents: dict[PurePosixPath, PurePosixPath] = {}
        for name, place in places.items():
            if name.parts[0] not in ("lang", PREPARED_FOLDER):
                continue
            together = parents.setdefault(name.parent, place.parent) == place.parent
            if name.parent not in folders or not together or name.name != place.name:
                raise ValueError(f"the files of {name.parts[0]}/ are not in one folder under their own names")
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

    def network(self, name: str) -> Path:
        """File of a network."""
        return self.by_name[network_file(name)]

    @property
    def topology(self) -> Path:
        """File of the states of the phones."""
        return self.by_name[TOPOLOGY_FILE]

    @property
    def lang(self) -> Path:
        """Folder of the lexicon and the graph."""
        return self.by_name[LANG_FILES[0]].parent

    @property
    def space(self) -> Path | None:
        """File of the space of the Gaussians' features; None if no pass has features in it."""
        return self.by_name.get(SPACE_FILE)

    def prepared(self, name: str) -> Path | None:
        """Folder of what the method of a pass learned from the training speakers; None if it learns nothing."""
        learned = (path for file, path in self.by_name.items() if file.startswith(f"{PREPARED_FOLDER}/{name}/"))
        return next((path.parent for path in learned), None)

    def alignment_model(self, pdf_count: int) -> AlignmentModel:
        """The mixtures of the last rung; their files are read when they are asked for."""
        return AlignmentModel(self.by_name[GMM_FILE], self.by_name.get(UNADAPTED_GMM_FILE), pdf_count)


def read_model(folder: Path) -> tuple[ModelDescription, ModelFiles]:
    """Read a model's folder, and compare its files with their hashes.

    Args:
        folder: An exported model; or a finished experiment's folder, or that of one fold of a cross-validation.

    Raises:
        ExperimentError: The folder is not a model's, ``model.json`` is damaged or of another version, or a file is
            missing or damaged.
    """
    check_model_folder(folder)
    is_experiment = (folder / CONFIG_FILE).is_file() or ExperimentFolder(folder).sample_rate.is_file()
    if not (folder / MODEL_JSON).exists():
        _refuse_experiment(folder, is_experiment)
    try:
        description = MODELS.read(folder, required=(TOPOLOGY_FILE, GMM_FILE, *LANG_FILES), complete=[PREPARED_FOLDER])
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
