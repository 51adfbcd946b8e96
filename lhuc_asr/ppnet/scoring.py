"""The scoring function of a ranking network, exported to a file that serves without this package.

    scoring = torch.export.load("scoring.pt2").module()
    probabilities = scoring(ids, bags, numbers)         (B, tasks)

    ids        {feature: rows (B,) int64}
    bags       {feature: {"values": rows (N,) int64, "offsets": (B,) int64}}, as torch.nn.EmbeddingBag takes them
    numbers    {feature: standardised (B,) float32}

Rows are those of the vocabularies. B and every N may differ from call to call.
Features come in alphabetical order: torch 2.9 refuses another order.
"""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.utils._pytree import tree_map

from lhuc_asr.base.atomic import atomic_path
from lhuc_asr.base.errors import CheckpointError
from lhuc_asr.ppnet.batch import Bag, Batch
from lhuc_asr.ppnet.ranking_model import RankingModel
from lhuc_asr.ppnet.schema import BAGS, Schema

# Largest difference allowed between the exported function and the network: other kernels add in another order.
TOLERANCE = 1e-5
# Number of examples of the trial batch: any but 0 and 1, which torch.export treats as special.
TRIAL = 7

BagInputs = dict[str, dict[str, Tensor]]


class Scoring(nn.Module):
    """A network as a function from plain tensors to probabilities."""

    def __init__(self, network: RankingModel) -> None:
        super().__init__()
        self.network = network

    def forward(self, ids: dict[str, Tensor], bags: BagInputs, numbers: dict[str, Tensor]) -> Tensor:
        """Probabilities, shape (B, tasks); the inputs as this module's description says."""
        unused = torch.empty(0)  # a score depends on neither labels nor the grouping of GAUC
        cells = {name: Bag(bag["values"], bag["offsets"]) for name, bag in bags.items()}
        return torch.sigmoid(self.network(Batch(ids, cells, numbers, unused, unused)))


def scoring_inputs(batch: Batch) -> tuple[dict[str, Tensor], BagInputs, dict[str, Tensor]]:
    """The arguments of the scoring function for a batch, features in alphabetical order."""
    bags = {name: {"values": bag.values, "offsets": bag.offsets} for name, bag in sorted(batch.bags.items())}
    return dict(sorted(batch.ids.items())), bags, dict(sorted(batch.numbers.items()))


def export_scoring(network: RankingModel, path: Path) -> None:
    """Write the scoring function of a network, whole or not at all, and compare it with the network.

    Args:
        network: The trained network.
        path: The ``.pt2`` file.

    Raises:
        CheckpointError: The function, read back, gives other probabilities than the network.
    """
    scoring = Scoring(copy.deepcopy(network).cpu().eval())
    trial = scoring_inputs(trial_batch(network.schema, network.rows, TRIAL))
    # The first dimension of every tensor may differ from call to call.
    sizes = tree_map(lambda tensor: {0: Dim.DYNAMIC}, trial)
    program = torch.export.export(scoring, trial, dynamic_shapes=sizes)
    program.example_inputs = None  # they would be written as a pickle
    # As bytes first: torch's own writing of files hides from the caller that the disk is full.
    content = io.BytesIO()
    torch.export.save(program, content)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.getvalue())
        check_scoring(network, temporary)


def check_scoring(network: RankingModel, path: Path) -> None:
    """Compare an exported scoring function with its network, on batches of other sizes than it was exported with.

    Raises:
        CheckpointError: A probability differs by more than ``TOLERANCE``.
    """
    scoring = Scoring(copy.deepcopy(network).cpu().eval())
    with path.open("rb") as file, warnings.catch_warnings():
        # The reader makes tensors of memory that it must not write to, and does not.
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        exported = torch.export.load(file).module()
    with torch.no_grad():
        for examples in (1, 10 * TRIAL):
            inputs = scoring_inputs(trial_batch(network.schema, network.rows, examples))
            error = float((exported(*inputs) - scoring(*inputs)).abs().max())
            if not error <= TOLERANCE:
                raise CheckpointError(
                    f"{path}: the exported scoring function is off by {error:.2g} from the network, expected at most "
                    f"{TOLERANCE}; export it again"
                )


def trial_batch(schema: Schema, rows: Mapping[str, int], examples: int) -> Batch:
    """A batch of random examples, row 0 and empty cells among them."""
    generator = torch.Generator().manual_seed(examples)
    ids, bags, numbers = {}, {}, {}
    for feature in schema.features:
        if feature.kind == "number":
            numbers[feature.name] = torch.randn(examples, generator=generator)
        elif feature.kind in BAGS:
            lengths = torch.randint(4, (examples,), generator=generator)
            lengths[0] = 2  # not all are empty
            values = torch.randint(rows[str(feature.table)], (int(lengths.sum()),), generator=generator)
            bags[feature.name] = Bag(values, lengths.cumsum(0) - lengths)
        else:
            ids[feature.name] = torch.randint(rows[str(feature.table)], (examples,), generator=generator)
    return Batch(ids, bags, numbers, torch.empty(examples, 0), torch.zeros(examples, dtype=torch.int64))
