"""Safetensors files: read back as written, whole or not there, refused in one line."""

from __future__ import annotations

import os

import pytest
import torch
from safetensors.torch import save_file

from lhuc_asr.base.errors import CheckpointError
from lhuc_asr.base.tensors import load_bare_tensors, load_format, load_tensors, save_tensors

TENSORS = {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.tensor([True, False])}


def test_what_is_read_is_what_was_written(tmp_path):
    path = tmp_path / "a.safetensors"
    save_tensors(path, TENSORS, {"format": "x-1", "epoch": 3})
    tensors, description = load_tensors(path)
    assert description == {"format": "x-1", "epoch": 3}
    assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())
    assert load_format(path, "a thing", "x-1")[1] == description
    assert torch.equal(load_bare_tensors(path, ["b"], "a thing", "copy it")["b"], TENSORS["b"])


def test_the_same_tensors_are_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        save_tensors(tmp_path / name, TENSORS, {"format": "x-1", "epoch": 3})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_file_that_may_not_be_read_is_not_said_to_be_missing(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    save_tensors(path, TENSORS, {"format": "x-1"})
    monkeypatch.setattr(os, "access", lambda file, mode: file != path or mode != os.R_OK)
    with pytest.raises(CheckpointError, match=r"a\.safetensors: .*Permission denied"):
        load_format(path, "a thing", "x-1")


def test_files_that_cannot_be_read_are_told(tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(CheckpointError, match=r"a\.safetensors: no such thing"):
        load_format(path, "a thing", "x-1")
    with pytest.raises(CheckpointError, match=r"a\.safetensors: cannot be read .*; train again"):
        load_tensors(path, "train again")
    save_tensors(path, TENSORS, {"format": "x-2"})
    with pytest.raises(CheckpointError, match="expected a thing of format 'x-1', found 'x-2'"):
        load_format(path, "a thing", "x-1")
    with pytest.raises(CheckpointError, match=r"a\.safetensors: not a thing \('c'\); run again"):
        load_bare_tensors(path, ["a", "c"], "a thing", "run again")
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CheckpointError, match=r"not a safetensors file, or damaged .*; copy it again"):
        load_format(path, "a thing", "x-2")
    with pytest.raises(CheckpointError, match="not a thing"):
        load_bare_tensors(path, ["a"], "a thing", "run again")


def test_a_file_of_tensors_without_a_description_is_told(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_tensors(tmp_path / "a.safetensors")


def test_a_file_is_whole_or_not_there(tmp_path):
    with pytest.raises(TypeError):
        save_tensors(tmp_path / "a.safetensors", {"a": torch.zeros(2)}, {"not": object()})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("description", ["[1]", "[" * 200_000])
def test_a_description_that_is_not_a_mapping_is_refused(tmp_path, description):
    path = tmp_path / "state.safetensors"
    save_file({"a": torch.zeros(1)}, path, {"description": description})
    with pytest.raises(CheckpointError, match=r"state\.safetensors: cannot be read"):
        load_tensors(path)
