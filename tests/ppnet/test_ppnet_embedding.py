"""Embeddings against torch's own modules: ids, bags with empty cells, shared tables, numbers, row 0."""

import pytest
import torch
from torch import nn

from lhuc_asr.ppnet.batch import Bag, Batch
from lhuc_asr.ppnet.embedding import Embeddings
from lhuc_asr.ppnet.schema import FieldConfig

FEATURES = (
    FieldConfig(name="keys", kind="id", embedding=3),  # also the name of a dictionary's method
    FieldConfig(name="mean", kind="sequence", vocabulary_of="keys", embedding=3),
    FieldConfig(name="a.b", kind="multi", embedding=2, pooling="sum"),
    FieldConfig(name="age", kind="number", embedding=4),
)
# Three examples; the second has no genre, the last no history.
IDS = torch.tensor([2, 0, 4])
HISTORY = [[1, 2, 0], [3], []]
GENRES = [[1, 1], [], [2]]
AGES = torch.tensor([0.5, -1.0, 0.0])


def bag(cells):
    lengths = torch.tensor([len(cell) for cell in cells])
    return Bag(torch.tensor([row for cell in cells for row in cell]), lengths.cumsum(0) - lengths)


@pytest.fixture
def batch():
    bags = {"mean": bag(HISTORY), "a.b": bag(GENRES)}
    return Batch({"keys": IDS}, bags, {"age": AGES}, torch.empty(3, 0), torch.zeros(3, dtype=torch.int64))


def embeddings(group="shared"):
    features = [feature.model_copy(update={"group": group}) for feature in FEATURES]
    return Embeddings(features, {"keys": 5, "a.b": 3}, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("group", ["shared", "prior"])
def test_what_stands_where(group, batch):
    module = embeddings(group)
    items, genres, age = (p.detach() for p in (*module.tables, *module.vectors))
    assert (items[0] == 0.0).all()
    output = module(batch)
    assert output.shape == (3, module.width) == (3, 12)
    assert torch.equal(output[:, :3], items[IDS])
    # A gate's tables leave unknown categories out of the mean; among shared ones they are categories like others.
    first = (items[1] + items[2]) / (3 if group == "shared" else 2)
    torch.testing.assert_close(output[:, 3:6], torch.stack([first, items[3], torch.zeros(3)]))
    torch.testing.assert_close(output[:, 6:8], torch.stack([2 * genres[1], torch.zeros(2), genres[2]]))
    torch.testing.assert_close(output[:, 8:], AGES[:, None] * age)


@pytest.mark.parametrize("group", ["shared", "prior"])
def test_gradients_dense_and_sparse_and_row_0(group, batch):
    """A table that two features share gets both gradients; row 0 of a gate's table gets none."""
    gradients = []
    for sparse in (False, True):
        module = embeddings(group)
        module.sparse = sparse
        (module(batch) * torch.arange(36.0).reshape(3, 12)).sum().backward()
        assert all(table.grad.is_sparse == sparse for table in module.tables)
        gradients.append([table.grad.to_dense() for table in module.tables])
    for dense, sparse in zip(*gradients, strict=True):
        torch.testing.assert_close(dense, sparse)
    items = gradients[0][0]
    assert (items[0] != 0.0).all() == (group == "shared")
    assert (items[1] != 0.0).all()  # in the history only
    assert (items[4] != 0.0).all()  # in the ids only


def test_all_parameters_are_told_to_torch():
    module = embeddings()
    assert sorted(name for name, _ in module.named_parameters()) == ["tables.0", "tables.1", "vectors.0"]
    assert isinstance(module, nn.Module)
