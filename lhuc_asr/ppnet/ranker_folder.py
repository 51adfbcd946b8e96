"""A trained ranking network as one folder that serves.

```
ranker.json            the network's configuration, the schema, and the SHA-256 of every other file
network.safetensors    the weights
vocabularies.json      from categories to rows, and where the numbers lie
scoring.pt2            the scoring function, for programs without this package (``scoring.py``)
```
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from lhuc_asr.base.atomic import DamagedFileError, atomic_folder, read_json, sha256_of, write_json
from lhuc_asr.base.config import StrictModel, parse_config
from lhuc_asr.base.errors import CheckpointError, ConfigError
from lhuc_asr.base.version import __version__
from lhuc_asr.nnet.checkpoint import load_tensors, save_tensors
from lhuc_asr.ppnet.model import RankingConfig, RankingNetwork, build
from lhuc_asr.ppnet.schema import Schema
from lhuc_asr.ppnet.scoring import export_scoring
from lhuc_asr.ppnet.vocabulary import Vocabularies

RANKER_JSON, NETWORK_FILE = "ranker.json", "network.safetensors"
VOCABULARIES_FILE, SCORING_FILE = "vocabularies.json", "scoring.pt2"
FILES = (NETWORK_FILE, VOCABULARIES_FILE, SCORING_FILE)


class RankerDescription(StrictModel):
    """What ``ranker.json`` says.

    Attributes:
        format: Of the folder.
        made_by: Version of lhuc_asr.
        network: Its configuration.
        examples: The schema of what it ranks.
        sha256: Of every other file, by its name.
    """

    format: Literal["lhuc-asr-ranker-1"] = "lhuc-asr-ranker-1"
    made_by: str
    network: RankingConfig
    examples: Schema
    sha256: dict[str, str]


@dataclass(frozen=True)
class Ranker:
    """A network and what it takes to read examples for it.

    Attributes:
        network: In evaluation mode.
        vocabularies: Of its features.
    """

    network: RankingNetwork
    vocabularies: Vocabularies

    @property
    def schema(self) -> Schema:
        """Of the examples."""
        return self.network.schema


def save_ranker(folder: Path, ranker: Ranker) -> None:
    """Write a network's folder, whole or not at all; a ranker that was there before is replaced.

    Raises:
        CheckpointError: ``folder`` is something else, or the exported scoring function is not the network's.
    """
    if folder.exists() and not (folder / RANKER_JSON).is_file():
        raise CheckpointError(f"{folder}: is there already, and no ranker; choose another folder")
    with atomic_folder(folder) as temporary:
        save_tensors(temporary / NETWORK_FILE, ranker.network.state_dict(), {})
        ranker.vocabularies.save(temporary / VOCABULARIES_FILE)
        export_scoring(ranker.network, temporary / SCORING_FILE)
        description = RankerDescription(
            made_by=__version__,
            network=ranker.network.config,
            examples=ranker.schema,
            sha256={name: sha256_of(temporary / name) for name in FILES},
        )
        write_json(temporary / RANKER_JSON, description.model_dump(mode="json"))


def load_ranker(folder: Path) -> Ranker:
    """Read a network's folder, its files compared with their hashes.

    Raises:
        CheckpointError: There is no such folder, it is damaged or of another version, or its files do not belong
            together.
    """
    description = _description(folder / RANKER_JSON)
    for name in FILES:
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file; copy the folder again")
        if sha256_of(path) != description.sha256.get(name):
            raise CheckpointError(f"{path}: not the file that was saved; copy the folder again")
    vocabularies = Vocabularies.load(folder / VOCABULARIES_FILE, description.examples)
    tensors, _ = load_tensors(folder / NETWORK_FILE)
    # Names, shapes and types only: the numbers are the file's.
    with torch.device("meta"):
        network = build(description.network, description.examples, vocabularies.rows, torch.Generator())
    types = {name: tensor.dtype for name, tensor in network.state_dict().items()}
    for name, tensor in tensors.items():
        if tensor.dtype != types.get(name, tensor.dtype) or not bool(tensor.isfinite().all()):
            raise CheckpointError(
                f"{folder / NETWORK_FILE}: {name} is {tensor.dtype}, expected finite {types.get(name)}; copy the "
                "folder again"
            )
    try:
        network.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise CheckpointError(f"{folder}: the weights are not of this network and schema ({error})") from error
    return Ranker(network.eval(), vocabularies)


def _description(path: Path) -> RankerDescription:
    try:
        tree: Any = read_json(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file; name the folder of a trained ranker") from error
    except DamagedFileError as error:
        raise CheckpointError(f"{path}: damaged ({error}); copy the folder again") from error
    found = tree.get("format") if isinstance(tree, dict) else None
    expected = RankerDescription.model_fields["format"].default
    if found != expected:
        raise CheckpointError(f"{path}: expected format {expected!r}, found {found!r}")
    try:
        return parse_config(RankerDescription, tree, str(path))
    except ConfigError as error:
        raise CheckpointError(f"{error}; copy the folder again") from error
