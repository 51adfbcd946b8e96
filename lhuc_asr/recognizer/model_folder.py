"""A recognizer as one folder that works elsewhere.

```
model.json            what it is, how it searches and adapts, and the SHA-256 of every other file
network.safetensors   the acoustic model
topology.json         states of the phones
lang/                 lexicon.txt, phones.json, words.txt, HCLG.fst, graph.json
prepared/             what the technique of adaptation learned from the training speakers, where it learns
```

An experiment's folder holds the same files at other places; ``ModelFiles`` says where they are.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from lhuc_asr.adapt.methods import MethodConfig
from lhuc_asr.adapt.targets import TargetsConfig
from lhuc_asr.base.atomic import DamagedFileError, atomic_folder, read_json, sha256_of, write_json
from lhuc_asr.base.config import StrictModel, parse_config
from lhuc_asr.base.errors import ConfigError, ExperimentError
from lhuc_asr.decode.graph import DESCRIPTION_FILE, GRAPH_FILE, WORDS_FILE
from lhuc_asr.decode.lattice_search import LatticeConfig
from lhuc_asr.decode.search import SearchConfig
from lhuc_asr.features.filterbank import FeatureConfig
from lhuc_asr.lang.lexicon_folder import LEXICON_FILE, PHONES_FILE
from lhuc_asr.pipeline.acoustics import TOPOLOGY_FILE

MODEL_JSON, NETWORK_FILE = "model.json", "network.safetensors"
LANG_FOLDER, PREPARED_FOLDER = "lang", "prepared"
LANG_FILES = (LEXICON_FILE, PHONES_FILE, WORDS_FILE, GRAPH_FILE, DESCRIPTION_FILE)


class ModelDescription(StrictModel):
    """What ``model.json`` says.

    Attributes:
        format: Of the folder.
        made_by: Version of lhuc_asr.
        experiment: Its folder's name.
        adapted_pass: The experiment's pass whose way of adapting this model has.
        network: Hash of the network; a speaker's file names the network that it belongs to by it.
        seed: Of the order in which a speaker's data is taken.
        features: What the network takes.
        whole_seconds: Recordings that are no longer are searched in one piece: the experiment's longest utterance.
        piece_seconds: Longer ones are cut into pieces of at most this length: that of the training utterances, the
            longest twentieth left out.
        first_search: The search without a speaker, as tuned for the first pass.
        adapted_search: The search with a speaker, as tuned for the adapted pass.
        lattice: How much of a search is kept for confidences.
        method: How a speaker is adapted to.
        targets: What his frames are taken for.
        sha256: Of every other file, by its path in the folder.
    """

    format: Literal["lhuc-asr-model-1"] = "lhuc-asr-model-1"
    made_by: str
    experiment: str
    adapted_pass: str
    network: str
    seed: int
    features: FeatureConfig
    whole_seconds: float = Field(gt=0.0)
    piece_seconds: float = Field(gt=0.0)
    first_search: SearchConfig
    adapted_search: SearchConfig
    lattice: LatticeConfig
    method: MethodConfig
    targets: TargetsConfig
    sha256: dict[str, str]


@dataclass(frozen=True)
class ModelFiles:
    """Where a recognizer's files are.

    Attributes:
        network: The acoustic model.
        topology: States of the phones.
        lang: Folder of lexicon and graph.
        prepared: Folder of what the technique of adaptation learned; None where it learns nothing.
    """

    network: Path
    topology: Path
    lang: Path
    prepared: Path | None

    @property
    def by_name(self) -> dict[str, Path]:
        """Every file, by its path in an exported folder."""
        prepared = sorted(self.prepared.iterdir()) if self.prepared is not None else []
        return {
            NETWORK_FILE: self.network,
            TOPOLOGY_FILE: self.topology,
            **{f"{LANG_FOLDER}/{name}": self.lang / name for name in LANG_FILES},
            **{f"{PREPARED_FOLDER}/{path.name}": path for path in prepared},
        }

    def hashes(self) -> dict[str, str]:
        """SHA-256 of every file.

        Raises:
            FileNotFoundError: One is missing.
        """
        return {name: sha256_of(path) for name, path in self.by_name.items()}


def export(description: ModelDescription, files: ModelFiles, out: Path) -> None:
    """Copy a model into one folder, whole or not at all; a model that was exported there before is replaced.

    Raises:
        ExperimentError: ``out`` is something else.
    """
    if out.exists() and not (out / MODEL_JSON).is_file():
        raise ExperimentError(f"{out}: is there already, and no exported model; choose another folder")
    with atomic_folder(out) as temporary:
        for name, path in files.by_name.items():
            (temporary / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(path, temporary / name)
        write_json(temporary / MODEL_JSON, description.model_dump(mode="json"))


def read_exported(folder: Path) -> tuple[ModelDescription, ModelFiles]:
    """An exported model, its files compared with their hashes.

    Raises:
        ExperimentError: ``model.json`` is damaged or of another version, or a file is missing or damaged.
    """
    path = folder / MODEL_JSON
    try:
        tree = read_json(path)
        found = tree.get("format") if isinstance(tree, dict) else None
        if found != (expected := ModelDescription.model_fields["format"].default):
            raise ExperimentError(
                f"{path}: expected format {expected!r}, found {found!r}; export the model with this version of lhuc_asr"
            )
        description = parse_config(ModelDescription, tree, str(path))
    except (DamagedFileError, ConfigError) as error:
        raise ExperimentError(f"{path}: damaged ({error}); copy the folder again") from error
    prepared = folder / PREPARED_FOLDER
    files = ModelFiles(
        folder / NETWORK_FILE, folder / TOPOLOGY_FILE, folder / LANG_FOLDER, prepared if prepared.is_dir() else None
    )
    try:
        hashes = files.hashes()
    except FileNotFoundError as error:
        raise ExperimentError(f"{error.filename}: no such file; copy the folder again") from error
    wrong = [name for name in {**description.sha256, **hashes} if hashes.get(name) != description.sha256.get(name)]
    if wrong:
        raise ExperimentError(f"{folder / wrong[0]}: not the file that was exported; copy the folder again")
    return description, files
