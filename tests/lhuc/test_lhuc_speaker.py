"""Speakers' files: shipped alone, bound to their model, hostile ones refused."""

import copy
import json
import struct
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from lhuc_asr.base.errors import CheckpointError, ModelMismatchError, SpeakerError
from lhuc_asr.base.tensors import read_format
from lhuc_asr.lhuc import Amplitude, SpeakerBank, SpeakerState, attach, model_hash, write_archive
from lhuc_asr.lhuc.speaker import check_speaker_name

SITES = "hidden.*.activation"


def test_save_and_load(bank, mlp, tmp_path, randn):
    x = randn(3, 5)
    with bank.rows(["alice", "bob", ""]):
        expected = mlp(x)
    bank.save(tmp_path)
    bank.detach()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "alice.safetensors",
        "bob.safetensors",
        "speaker-independent.safetensors",
    ]
    loaded = SpeakerBank.load(tmp_path, model=mlp)
    assert loaded.attached
    assert loaded.sites == bank.sites
    with loaded.rows(["alice", "bob", ""]):
        assert torch.equal(mlp(x), expected)


def test_one_speaker_ships_alone(bank, mlp, tmp_path):
    bank.state("alice").save(tmp_path / "a file of any name.safetensors")
    bank.detach()
    fresh = attach(mlp, SITES, ["zoe"])
    fresh.put(SpeakerState.load(tmp_path / "a file of any name.safetensors"))
    assert fresh.speakers == ("zoe", "alice")
    assert torch.equal(fresh.tables[0][2], bank.tables[0][1])
    fresh.reset(["alice"])
    fresh.put(SpeakerState.load(tmp_path / "a file of any name.safetensors"))
    assert torch.equal(fresh.tables[1][2], bank.tables[1][1])


def test_own_amplitude_must_be_passed(mlp, tmp_path):
    xi = Amplitude("square", torch.square, 1.0)
    bank = attach(mlp, SITES, ["a"], amplitude=xi)
    bank.save(tmp_path)
    bank.detach()
    with pytest.raises(ValueError, match="no amplitude is called 'square'"):
        SpeakerBank.load(tmp_path, mlp)
    assert SpeakerBank.load(tmp_path, mlp, xi).amplitude is xi


def test_hash_is_the_models_alone(bank, mlp):
    attached = model_hash(mlp)
    bank.detach()
    assert model_hash(mlp) == attached == model_hash(copy.deepcopy(mlp))


def test_another_model_is_refused(bank, mlp, tmp_path):
    bank.save(tmp_path)
    other = copy.deepcopy(mlp)
    with torch.no_grad():
        other.output.bias[0] += 1e-6
    message = r"alice\.safetensors: speaker 'alice' was adapted on the model [0-9a-f]{12}, this one is [0-9a-f]{12}"
    with pytest.raises(ModelMismatchError, match=message):
        SpeakerBank.load(tmp_path, other)
    twin = attach(other, SITES)
    with pytest.raises(ModelMismatchError, match=message):
        twin.put(SpeakerState.load(tmp_path / "alice.safetensors"))
    assert twin.speakers == ()


@pytest.mark.parametrize(
    "name",
    [
        "../../x",
        "/etc/passwd",
        "a\\b",
        "..",
        ".",
        ".hidden",
        "",
        "a\0b",
        "a\nb",
        " a",
        "C:x",
        "x" * 201,
        None,
        "\ud800",
    ],
)
def test_hostile_names(name, bank):
    with pytest.raises(SpeakerError, match="speaker name"):
        bank.add([name])
    assert bank.speakers == ("alice", "bob")


@pytest.mark.parametrize("name", ["sw02001-A", "AMI_EN2001a_H00", "fash.b@an4", "Jürgen 2", "alice+street", "1089"])
def test_usual_names(name):
    check_speaker_name(name)


def test_name_of_row_zero_is_kept(bank):
    with pytest.raises(SpeakerError, match="'speaker-independent' is reserved for row 0"):
        bank.add(["speaker-independent"])


def header(tree, data=b"", length=None):
    text = json.dumps(tree).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


@pytest.mark.parametrize(
    "content",
    {
        "empty": b"",
        "text": b"hello",
        "length 2^60": header({}, length=2**60),
        "offsets outside": header({"r": {"dtype": "F32", "shape": [4], "data_offsets": [0, 1 << 40]}}, b"\0" * 16),
        "offsets backwards": header({"r": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}}, b"\0" * 16),
        "shape too large": header(
            {"r": {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 16]}}, b"\0" * 16
        ),
        "not JSON": struct.pack("<Q", 4) + b"{{{{",
        "description of endless depth": header({"__metadata__": {"description": "[" * 100_000}}),
    }.values(),
)
def test_hostile_files(content, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.safetensors: not a safetensors file, or damaged"):
        SpeakerState.load(path)


def test_truncated_file(bank, tmp_path):
    bank.save(tmp_path)
    path = tmp_path / "alice.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match="damaged"):
        SpeakerState.load(path)


def test_files_that_are_not_speakers(bank, tmp_path):
    with pytest.raises(CheckpointError, match="no such speaker's file"):
        SpeakerState.load(tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match="no speaker's file"):
        SpeakerBank.load(tmp_path, bank.model)
    path = tmp_path / "x.safetensors"
    path.touch()
    with pytest.raises(CheckpointError, match=r"x\.safetensors: a file; give the folder that it is in"):
        SpeakerBank.load(path, bank.model)
    good = {"format": "lhuc-speaker-1", "speaker": "x", "amplitude": "exp", "model": "0", "sites": [["s", -1, 0]]}
    ones = {"s": torch.ones(3)}
    for tensors, description, message in (
        (ones, {}, "expected a speaker's file of format 'lhuc-speaker-1', found None"),
        (ones, {**good, "format": "lhuc-speaker-9"}, "found 'lhuc-speaker-9'"),
        (ones, {**good, "sites": "[["}, "its description does not fit its tensors"),
        (ones, {**good, "sites": [["t", -1, 0]]}, "its description does not fit its tensors"),
        ({**ones, "t": torch.ones(3)}, good, "2 tensors for 1 sites"),
        (ones, {**good, "extras": ["t"]}, "its description does not fit its tensors"),
        (
            {**ones, "t": torch.ones(3), "u": torch.ones(1)},
            {**good, "extras": ["t"]},
            "3 tensors for 1 sites and 1 ext",
        ),
        ({"s": torch.tensor([1.0, float("nan")])}, good, "expected a vector of finite numbers"),
        ({}, {**good, "sites": []}, "no sites"),
        (ones, {**good, "sites": [["s", -1, 0], ["s", -1, 0]]}, "one that occurs twice"),
        (ones, {**good, "sites": [["s", -1, 10**12]]}, "expected 2 numbers"),
        (ones, {**good, "sites": [["s", True, 0]]}, "expected a int, found True"),
        (ones, {**good, "sites": [["s", float("inf"), 0]]}, "not a number of JSON"),
        (ones, {**good, "sites": [[]]}, "no sites"),
        (ones, {**good, "model": "two\nlines"}, "cannot be shown"),
        (ones, {**good, "model": ["0"]}, "expected a str"),
        (ones, {**good, "extras": "s"}, "expected a list"),
        ({"s": torch.ones(0)}, good, "expected a vector of finite numbers"),
        ({"s": torch.tensor(1.0)}, good, "expected a vector of finite numbers"),
        ({"s": torch.ones(3).to(torch.float8_e4m3fn)}, good, "expected a vector of finite numbers"),
        ({"s": torch.ones(3, 3)}, good, "expected a vector of finite numbers"),
        ({"s": torch.ones(3, dtype=torch.int64)}, good, "expected a vector of finite numbers"),
    ):
        save_file(tensors, path, {"description": json.dumps(description)})
        with pytest.raises(CheckpointError, match=message):
            SpeakerState.load(path)
    save_file(ones, path, {"description": json.dumps({**good, "speaker": "../../x"})})
    with pytest.raises(SpeakerError, match=r"speaker name '\.\./\.\./x'"):
        SpeakerState.load(path)


def test_the_format_is_read_from_the_header_alone(bank, tmp_path):
    path = tmp_path / "x.safetensors"
    bank.state("alice").save(path)
    assert read_format(path) == "lhuc-speaker-1"
    write_archive(path, bank.states())
    assert read_format(path) == "lhuc-archive-1"
    for metadata, expected in (
        ({"description": json.dumps({"format": "affine-1"})}, "affine-1"),
        ({"description": json.dumps({"model": "m"})}, None),
        ({"description": "[1]"}, None),
        (None, None),
    ):
        save_file({"w": torch.ones(1)}, path, metadata)
        assert read_format(path) == expected
    with pytest.raises(CheckpointError, match=r"none\.safetensors: no such file"):
        read_format(tmp_path / "none.safetensors")
    path.write_bytes(b"hello")
    with pytest.raises(CheckpointError, match=r"x\.safetensors: not a safetensors file, or damaged"):
        read_format(path)


def test_a_message_names_the_file_that_a_state_was_read_from(bank, tmp_path):
    bank.save(tmp_path)
    read = SpeakerState.load(tmp_path / "alice.safetensors")
    for state, who in ((read, r"alice\.safetensors: speaker 'alice'"), (bank.state(""), r"^row 0 \(speaker-ind")):
        with pytest.raises(ModelMismatchError, match=f"{who}.* was adapted on the model"):
            state.check_fits(state.sites, state.amplitude, "0" * 64)


def test_one_speaker_in_two_files_is_refused(bank, mlp, tmp_path):
    bank.save(tmp_path)
    (tmp_path / "copy.safetensors").write_bytes((tmp_path / "alice.safetensors").read_bytes())
    with pytest.raises(SpeakerError, match="speaker 'alice' is in the bank already"):
        SpeakerBank.load(tmp_path, mlp)


def test_extras_travel_in_the_file_and_no_bank_keeps_them(bank, tmp_path):
    extras = {"cmvn.mean": torch.arange(3, dtype=torch.float64) / 7}
    replace(bank.state("alice"), extras=extras).save(tmp_path / "alice.safetensors")
    read = SpeakerState.load(tmp_path / "alice.safetensors")
    assert read.extras.keys() == extras.keys()
    assert torch.equal(read.extras["cmvn.mean"], extras["cmvn.mean"])
    bank.put(read)
    assert bank.state("alice").extras == {}


def test_an_extra_cannot_have_the_name_of_a_site(bank, tmp_path):
    state = bank.state("alice")
    with pytest.raises(SpeakerError, match="have the names of sites"):
        replace(state, extras={state.sites[0].name: torch.ones(1)}).save(tmp_path / "alice.safetensors")
    assert list(tmp_path.iterdir()) == []
