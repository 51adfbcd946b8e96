"""The exported scoring function: the network's probabilities, for batches of any size, without a pickle."""

import zipfile

import pytest
import torch

from lhuc_asr.base.errors import CheckpointError
from lhuc_asr.ppnet.scoring import check_scoring, export_scoring, scoring_inputs

# Kinds that between them have every kind of module.
KINDS = ["simple", "ppnet", "pepnet"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_back_scores_as_the_network(kind, make_network, make_batch, tmp_path):
    network = make_network(kind, scatter=0.3, **({"batch_norm": True, "dropout": 0.5} if kind == "ppnet" else {}))
    export_scoring(network, tmp_path / "scoring.pt2")
    assert network.training
    scoring = torch.export.load(tmp_path / "scoring.pt2").module()
    for size in (1, 2, 33):
        batch = make_batch(size, size)
        with torch.no_grad():
            expected = torch.sigmoid(network.eval()(batch))
            probabilities = scoring(*scoring_inputs(batch))
        assert probabilities.shape == (size, 2)
        assert (probabilities - expected).abs().max() <= 1e-5


def test_features_come_in_alphabetical_order(make_batch):
    """torch 2.9 refuses a dictionary in another order than the export's."""
    batch = make_batch(3, 3)
    for mapping in scoring_inputs(batch):
        assert list(mapping) == sorted(mapping)
    ids, bags, numbers = scoring_inputs(batch)
    assert (ids, numbers) == (batch.ids, batch.numbers)
    assert {name: (bag["values"], bag["offsets"]) for name, bag in bags.items()} == {
        name: (bag.values, bag.offsets) for name, bag in batch.bags.items()
    }


def test_no_pickle_is_written(make_network, tmp_path):
    export_scoring(make_network("simple"), tmp_path / "scoring.pt2")
    with zipfile.ZipFile(tmp_path / "scoring.pt2") as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    # Pickles of protocol 2 and later begin with this byte; torch's older ones are zip files themselves.
    assert not [n for n, c in contents.items() if "/weights/weight_" not in n and c[:2] in (b"\x80\x02", b"PK")]
    assert not [name for name in contents if name.endswith((".pkl", ".pickle"))]


def test_another_networks_function_is_told_apart(make_network, tmp_path):
    path = tmp_path / "scoring.pt2"
    export_scoring(make_network("dnn", seed=1), path)
    with pytest.raises(CheckpointError, match=r"scoring.pt2: the exported scoring function is off by .*, expected"):
        check_scoring(make_network("dnn", seed=2), path)
