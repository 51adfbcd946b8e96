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
from typing import Literal

from lhuc_asr.base.errors import CheckpointError, ConfigError
from lhuc_asr.base.hashed_folder import FolderDescription, FolderKind, hashes
from lhuc_asr.base.tensors import load_tensors, save_tensors
from lhuc_asr.base.version import __version__
from lhuc_asr.ppnet.model import ModelConfig, empty_model
from lhuc_asr.ppnet.ranking_model import RankingModel
from lhuc_asr.ppnet.schema import Schema
from lhuc_asr.ppnet.scoring import export_scoring
from lhuc_asr.ppnet.table_files import one_line
from lhuc_asr.ppnet.vocabulary import Vocabularies

RANKER_JSON, NETWORK_FILE = "ranker.json", "network.safetensors"
VOCABULARIES_FILE, SCORING_FILE = "vocabularies.json", "scoring.pt2"
FILES = (NETWORK_FILE, VOCABULARIES_FILE, SCORING_FILE)


class RankerDescription(FolderDescription):
    """Content of ``ranker.json``.

    Attributes:
        format: Format of the folder.
        network: Configuration of the network.
        examples: Schema of the examples that it ranks.
    """

    format: Literal["lhuc-asr-ranker-1"] = "lhuc-asr-ranker-1"
    network: ModelConfig
    examples: Schema


RANKERS = FolderKind(
    RankerDescription, RANKER_JSON, "trained ranker", CheckpointError, "train it with this version of lhuc_asr"
)


@dataclass(frozen=True)
class Ranker:
    """A network, and the vocabularies with which examples are read for it.

    Attributes:
        network: The network, in evaluation mode.
        vocabularies: Vocabularies of its fields.
    """

    network: RankingModel
    vocabularies: Vocabularies

    @property
    def schema(self) -> Schema:
        """Schema of the examples."""
        return self.network.schema


def save_ranker(folder: Path, ranker: Ranker) -> None:
    """Write a network's folder, whole or not at all; a ranker that was there before is replaced.

    Raises:
        CheckpointError: ``folder`` is something else, or the exported scoring function is not the network's.
    """
    with RANKERS.replacing(folder) as temporary:
        save_tensors(temporary / NETWORK_FILE, ranker.network.state_dict(), {})
        ranker.vocabularies.save(temporary / VOCABULARIES_FILE)
        export_scoring(ranker.network, temporary / SCORING_FILE)
        description = RankerDescription(
            made_by=__version__,
            network=ranker.network.config,
            examples=ranker.schema,
            sha256=hashes({name: temporary / name for name in FILES}),
        )
        RANKERS.write(temporary, description)


def load_ranker(folder: Path) -> Ranker:
    """Read a network's folder; its files are compared with their hashes.

    Raises:
        CheckpointError: The folder is missing, damaged or of another version, or its files do not belong together.
    """
    description = RANKERS.read(folder, required=FILES)
    vocabularies = Vocabularies.load(description.path(folder, VOCABULARIES_FILE), description.examples)
    path = description.path(folder, NETWORK_FILE)
    tensors, _ = load_tensors(path, "copy the folder again")
    # Names, shapes and types only: the numbers are the file's.
    try:
        network = empty_model(description.network, description.examples, vocabularies.rows)
    except ConfigError as error:
        raise CheckpointError(f"{folder / RANKER_JSON}: {error}; copy the folder again") from error
    types = {name: tensor.dtype for name, tensor in network.state_dict().items()}
    for name, tensor in tensors.items():
        if tensor.dtype != types.get(name, tensor.dtype) or not bool(tensor.isfinite().all()):
            raise CheckpointError(
                f"{path}: {name} is {tensor.dtype}, expected finite {types.get(name)}; copy the folder again"
            )
    try:
        network.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise CheckpointError(
            f"{folder}: the weights are not of this network and schema ({one_line(error)})"
        ) from error
    return Ranker(network.eval(), vocabularies)
