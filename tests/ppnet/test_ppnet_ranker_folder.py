"""A ranker's folder: the same probabilities after reading, and a clear refusal of everything else."""

import hashlib
import json
import math
import shutil

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save

from lhuc_asr.base.errors import CheckpointError
from lhuc_asr.ppnet.model import RankingConfig, build
from lhuc_asr.ppnet.ranker_folder import Ranker, load_ranker, save_ranker
from lhuc_asr.ppnet.schema import FieldConfig, Schema
from lhuc_asr.ppnet.scoring import trial_batch
from lhuc_asr.ppnet.vocabulary import Standard, Vocabularies

SCHEMA = Schema(
    features=(
        FieldConfig(name="item", kind="id", embedding=4),
        FieldConfig(name="age", kind="number", embedding=2),
        FieldConfig(name="user", kind="id", group="prior", embedding=3),
    ),
    labels=("click",),
    user="user",
)
VOCABULARIES = Vocabularies({"item": {"a": 1, "b": 2}, "user": {"u": 1, "v": 2}}, {}, {"age": Standard(30.0, 9.0)})


def ranker(seed: int = 0) -> Ranker:
    generator = torch.Generator().manual_seed(seed)
    # A network with defaults that its kind has no use for, which the folder must not trip over.
    network = build(RankingConfig(kind="simple", hidden_units=(4,)), SCHEMA, VOCABULARIES.rows, generator)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return Ranker(network, VOCABULARIES)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rankers") / "one"
    save_ranker(folder, ranker())
    return folder


def test_what_is_read_ranks_as_what_was_saved(saved):
    expected, loaded = ranker(), load_ranker(saved)
    assert loaded.schema == SCHEMA
    assert loaded.vocabularies == VOCABULARIES
    assert loaded.vocabularies.encode("item", pa.array(["b", "z"])).tolist() == [2, 0]
    assert not loaded.network.training
    batch = trial_batch(SCHEMA, VOCABULARIES.rows, 20)
    assert torch.equal(loaded.network(batch), expected.network.eval()(batch))


def test_a_ranker_is_replaced_and_nothing_else_is(saved, tmp_path):
    folder = tmp_path / "ranker"
    shutil.copytree(saved, folder)
    save_ranker(folder, ranker(1))
    assert not torch.equal(load_ranker(folder).network.network.final.weight, ranker(0).network.network.final.weight)
    (tmp_path / "thesis").mkdir()
    with pytest.raises(CheckpointError, match="thesis: exists and is not a trained ranker; choose another folder"):
        save_ranker(tmp_path / "thesis", ranker())


@pytest.mark.parametrize("name", ["network.safetensors", "vocabularies.json", "scoring.pt2"])
def test_a_changed_file_and_a_missing_one_are_told(name, saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "ranker")
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{name}: not the file that was saved; copy the folder again"):
        load_ranker(folder)
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name}: no such file; copy the folder again"):
        load_ranker(folder)


def change(folder, **changes):
    tree = json.loads((folder / "ranker.json").read_text())
    (folder / "ranker.json").write_text(json.dumps(tree | changes))


def test_a_description_that_does_not_fit_is_told(saved, tmp_path):
    with pytest.raises(CheckpointError, match=r"ranker.json: no such file; name the folder of a trained ranker"):
        load_ranker(tmp_path)
    cases = [
        ({"format": "x"}, r"ranker.json: expected format 'lhuc-asr-ranker-1', found 'x'"),
        ({"network": {"kind": "tower"}}, r"ranker.json: network: .*'tower'.*; copy the folder again"),
        ({"network": {"kind": "simple", "hidden_units": [5]}}, r"the weights are not of this network and schema"),
    ]
    for number, (changes, message) in enumerate(cases):
        folder = shutil.copytree(saved, tmp_path / str(number))
        change(folder, **changes)
        with pytest.raises(CheckpointError, match=message):
            load_ranker(folder)
    (folder / "ranker.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"ranker.json: damaged .*; copy the folder again"):
        load_ranker(folder)
    other = SCHEMA.model_copy(update={"features": SCHEMA.features[:1] + SCHEMA.features[2:]})
    folder = shutil.copytree(saved, tmp_path / "schema")
    change(folder, examples=other.model_dump(mode="json"))
    with pytest.raises(CheckpointError, match=r"vocabularies.json: fitted to another schema"):
        load_ranker(folder)


def rewritten(folder, name, content):
    """A folder whose file was replaced by somebody who wrote down the new file's hash."""
    (folder / name).write_bytes(content)
    description = json.loads((folder / "ranker.json").read_text())
    description["sha256"][name] = hashlib.sha256(content).hexdigest()
    (folder / "ranker.json").write_text(json.dumps(description))


@pytest.mark.parametrize("change", [lambda t: t.double(), lambda t: t.bool(), lambda t: t * math.nan])
def test_weights_of_another_type_or_none_are_refused(saved, tmp_path, change):
    folder = tmp_path / "ranker"
    shutil.copytree(saved, folder)
    tensors = load_file(folder / "network.safetensors")
    tensors["network.final.bias"] = change(tensors["network.final.bias"])
    rewritten(folder, "network.safetensors", save(tensors, {"description": "{}"}))
    with pytest.raises(CheckpointError, match=r"network\.safetensors: network\.final\.bias is .* expected finite"):
        load_ranker(folder)


def test_a_network_larger_than_any_memory_is_refused(saved, tmp_path):
    folder = tmp_path / "ranker"
    shutil.copytree(saved, folder)
    description = json.loads((folder / "ranker.json").read_text())
    for units in (10**9, 10**12, 2**70):
        description["network"]["hidden_units"] = [units]
        (folder / "ranker.json").write_text(json.dumps(description))
        with pytest.raises(CheckpointError, match=r"hidden_units|does not fit into 64 bits") as caught:
            load_ranker(folder)
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("part", "changed"),
    [
        ("categories", None),
        ("categories", []),
        ("categories", {"item": None, "user": ["u", "v"]}),
        ("categories", {"item": [["a"], "b"], "user": ["u", "v"]}),
        ("categories", {"item": ["a", None], "user": ["u", "v"]}),
        ("categories", {"item": ["a", "b", "c"], "user": ["u", "v"]}),
        ("categories", {"item": ["a", "b"], "user": {"u": 1, "v": 2}}),
        ("buckets", {"item": 2}),
        ("buckets", {"item": True}),
        ("buckets", {"item": 10**30}),
        ("numbers", {"age": 30.0}),
        ("numbers", {"age": [30.0]}),
        ("numbers", {"age": ["30", "9"]}),
        ("numbers", {"age": [True, False]}),
        ("numbers", {"age": [10**400, 1]}),
        ("numbers", {"weight": [30.0, 9.0]}),
        ("more", {}),
    ],
)
def test_vocabularies_that_lie_are_refused_in_one_line(part, changed, saved, tmp_path):
    """By somebody who wrote down the changed file's hash."""
    folder = shutil.copytree(saved, tmp_path / "ranker")
    content = json.loads((folder / "vocabularies.json").read_text()) | {part: changed}
    rewritten(folder, "vocabularies.json", json.dumps(content).encode())
    with pytest.raises(CheckpointError) as caught:
        load_ranker(folder)
    assert str(folder) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_schema_that_the_network_does_not_fit_is_told(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "ranker")
    change(folder, network={"kind": "pepnet", "hidden_units": [4]})
    with pytest.raises(CheckpointError, match=r"ranker\.json: a network of kind 'pepnet' needs features of group"):
        load_ranker(folder)


def test_weights_of_another_shape_are_told_in_one_line(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "ranker")
    tensors = load_file(folder / "network.safetensors")
    tensors["network.final.bias"] = torch.zeros(3)
    rewritten(folder, "network.safetensors", save(tensors, {"description": "{}"}))
    with pytest.raises(
        CheckpointError, match=r"the weights are not of this network and schema .*size mismatch"
    ) as caught:
        load_ranker(folder)
    assert len(str(caught.value).splitlines()) == 1
