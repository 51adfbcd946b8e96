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

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lhuc_asr import __version__
from lhuc_asr.adapt.methods import MethodConfig
from lhuc_asr.base.atomic import DamagedFileError, atomic_folder, read_json, write_json
from lhuc_asr.base.config import StrictModel, parse_config
from lhuc_asr.base.errors import ConfigError, ExperimentError
from lhuc_asr.decode.graph import DESCRIPTION_FILE, GRAPH_FILE, WORDS_FILE
from lhuc_asr.decode.lattice_search import LatticeConfig
from lhuc_asr.decode.search import SearchConfig
from lhuc_asr.features.filterbank import FeatureConfig
from lhuc_asr.lhuc.speaker import model_hash
from lhuc_asr.nnet.checkpoint import load_model
from lhuc_asr.pipeline.acoustics import MODEL_FILE, TOPOLOGY_FILE
from lhuc_asr.pipeline.experiment import last_alignment, read_experiment
from lhuc_asr.pipeline.language import LEXICON_FILE, PHONES_FILE
from lhuc_asr.pipeline.passes import preparation_of, tuned_search
from lhuc_asr.pipeline.recipe import FIRST_PASSES, DataConfig, ExperimentConfig, TargetsConfig

MODEL_JSON, NETWORK_FILE = "model.json", "network.safetensors"
LANG_FOLDER, PREPARED_FOLDER = "lang", "prepared"
LANG_FILES = (LEXICON_FILE, PHONES_FILE, WORDS_FILE, GRAPH_FILE, DESCRIPTION_FILE)
FORMAT = "lhuc-asr-model-1"


class ModelDescription(StrictModel):
    """What ``model.json`` says.

    Attributes:
        format: Of the folder.
        made_by: Version of lhuc_asr.
        experiment: Its name.
        adapted_pass: The experiment's pass that adapts as this model does.
        model: Hash of the network; speakers' files name the network that they belong to by it.
        seed: Of the order in which a speaker's data is taken.
        features: What the network takes.
        first_search: The search without a speaker, as tuned for the first pass.
        adapted_search: The search with a speaker, as tuned for the adapted pass.
        lattice: How much of a search is kept for confidences.
        method: How a speaker is adapted to.
        targets: What his frames are taken for.
        sha256: Of every other file, by its path in the folder.
    """

    format: Literal["lhuc-asr-model-1"] = FORMAT
    made_by: str = __version__
    experiment: str
    adapted_pass: str
    model: str
    seed: int
    features: FeatureConfig
    first_search: SearchConfig
    adapted_search: SearchConfig
    lattice: LatticeConfig
    method: MethodConfig
    targets: TargetsConfig
    sha256: dict[str, str]


@dataclass(frozen=True)
class ModelFiles:
    """Where a recognizer's files are, and what they are.

    Attributes:
        folder: That the user named.
        description: What it is.
        network: The acoustic model.
        topology: States of the phones.
        lang: Folder of lexicon and graph.
        prepared: Folder of what the technique of adaptation learned; it need not exist.
    """

    folder: Path
    description: ModelDescription
    network: Path
    topology: Path
    lang: Path
    prepared: Path

    def files(self) -> Iterator[tuple[str, Path]]:
        """Every file: its path in an exported folder, and where it is."""
        yield from _files(self.network, self.topology, self.lang, self.prepared)

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(path.stat().st_size for _, path in self.files())


def find_model(folder: Path) -> ModelFiles:
    """The files of an exported folder, or of an experiment's with the first of its passes that adapts.

    Raises:
        ExperimentError: It is neither, or a file is missing or damaged.
    """
    if (folder / MODEL_JSON).exists():
        return read_exported(folder)
    if not folder.is_dir():
        raise ExperimentError(f"{folder}: no such folder; give one that lhuc-asr export made, or an experiment's")
    return of_experiment(folder)


def read_exported(folder: Path) -> ModelFiles:
    """The files of an exported folder, whose hashes are compared.

    Raises:
        ExperimentError: ``model.json`` is damaged or of another version, or a file is missing or damaged.
    """
    path = folder / MODEL_JSON
    try:
        tree = read_json(path)
        if not isinstance(tree, dict) or tree.get("format") != FORMAT:
            found = tree.get("format") if isinstance(tree, dict) else None
            raise ExperimentError(
                f"{path}: expected format {FORMAT!r}, found {found!r}; export the model again with this version, "
                "or use the version that exported it"
            )
        description = parse_config(ModelDescription, tree, str(path))
    except (DamagedFileError, ConfigError) as error:
        raise ExperimentError(f"{path}: not a model's description ({error}); export the model again") from error
    found = ModelFiles(
        folder,
        description,
        folder / NETWORK_FILE,
        folder / TOPOLOGY_FILE,
        folder / LANG_FOLDER,
        folder / PREPARED_FOLDER,
    )
    expected = dict(description.sha256)
    for name, file in found.files():
        if expected.pop(name, None) != _sha256(file):
            raise ExperimentError(f"{file}: damaged, or not the file that was exported; copy the folder again")
    if expected:
        raise ExperimentError(f"{folder / min(expected)}: no such file; copy the folder again")
    return found


def of_experiment(folder: Path, adapted_pass: str | None = None) -> ModelFiles:
    """The files of a finished experiment, or of one fold of a cross-validation.

    Args:
        folder: The experiment's, such as ``exp/an4`` or ``exp/an4_folds5/fold1``.
        adapted_pass: The pass whose way of adapting the model has; the recipe's first unless given.

    Raises:
        ExperimentError: The folder is no finished experiment.
        ConfigError: There is no such pass, or a new speaker cannot be adapted to as it does.
    """
    config, layout = read_experiment(folder)
    name = adapted_pass or next(iter(config.passes))
    _check_pass(config, name)
    plan = config.passes[name]
    preparation = preparation_of(config, name)
    prepared = None if preparation is None else layout.prepared(preparation)
    network, topology = (
        layout.acoustic_model(plan.network) / MODEL_FILE,
        layout.hmm(last_alignment(config)) / TOPOLOGY_FILE,
    )
    try:
        description = ModelDescription(
            experiment=str(config.folder) if folder.name == config.folder.name else f"{config.name}/{folder.name}",
            adapted_pass=name,
            model=model_hash(load_model(network)),
            seed=config.seed,
            features=config.features,
            first_search=tuned_search(config, layout, FIRST_PASSES[plan.network]),
            adapted_search=tuned_search(config, layout, name),
            lattice=config.lattice,
            method=config.method_of(plan),
            targets=plan.targets,
            sha256={file: _sha256(path) for file, path in _files(network, topology, layout.lang, prepared)},
        )
    except FileNotFoundError as error:
        raise ExperimentError(f"{error.filename}: no such file; lhuc-asr run goes on with the experiment") from error
    return ModelFiles(folder, description, network, topology, layout.lang, prepared)


def export(model: ModelFiles, out: Path) -> ModelFiles:
    """Copy a model's files into one folder, whole or not at all.

    Raises:
        ExperimentError: ``out`` is there already and is no exported model.
    """
    if out.exists() and not (out / MODEL_JSON).is_file():
        raise ExperimentError(f"{out}: is there already and no exported model; choose another folder")
    with atomic_folder(out) as temporary:
        for name, path in model.files():
            (temporary / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(path, temporary / name)
        write_json(temporary / MODEL_JSON, model.description.model_dump(mode="json"))
    return read_exported(out)


def _check_pass(config: ExperimentConfig, name: str) -> None:
    if name not in config.passes:
        raise ConfigError(f"no pass {name!r} that adapts; the experiment has {', '.join(config.passes)}")
    plan = config.passes[name]
    what = None
    if plan.targets.kind == "reference":
        what = "on reference transcripts (lhuc-asr adapt --transcripts does so with any pass)"
    elif config.source_of(plan) != FIRST_PASSES[plan.network]:
        what = f"on what the pass {config.source_of(plan)} found"
    elif plan.data != DataConfig():
        what = "on a part of a speaker's recordings"
    if what:
        raise ConfigError(f"the pass {name!r} adapts {what}, which is for experiments; choose another with --pass")


def _files(network: Path, topology: Path, lang: Path, prepared: Path) -> Iterator[tuple[str, Path]]:
    yield NETWORK_FILE, network
    yield TOPOLOGY_FILE, topology
    yield from ((f"{LANG_FOLDER}/{name}", lang / name) for name in LANG_FILES)
    if prepared.is_dir():
        yield from ((f"{PREPARED_FOLDER}/{path.name}", path) for path in sorted(prepared.iterdir()))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
