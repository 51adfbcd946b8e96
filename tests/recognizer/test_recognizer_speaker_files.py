"""Speakers' files in folders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lhuc_asr.base.errors import CheckpointError, ModelMismatchError, SpeakerError
from lhuc_asr.lhuc.site import Site
from lhuc_asr.lhuc.speaker import SpeakerState
from lhuc_asr.recognizer.speaker_files import delete, merge, speaker_files, spreads


def state(name: str, *r: float, model: str = "a" * 64) -> SpeakerState:
    return SpeakerState(name, "identity", model, (Site("layer", len(r), -1, 0),), {"layer": torch.tensor(r)})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """alice, bob and row 0."""
    for name, file in (("alice", "alice"), ("bob", "bob"), ("", "speaker-independent")):
        state(name, 1.0, float(len(name))).save(tmp_path / "speakers" / f"{file}.safetensors")
    return tmp_path / "speakers"


def names(*paths: Path) -> list[str]:
    return [state.speaker for state in speaker_files(paths).values()]


def test_files_and_folders_are_listed_without_row_zero(folder: Path) -> None:
    assert names(folder) == ["alice", "bob"]
    assert names(folder / "bob.safetensors") == ["bob"]
    with pytest.raises(SpeakerError, match="no speaker's file"):
        names(folder.parent)
    with pytest.raises(CheckpointError, match=r"carol\.safetensors: no such speaker's file"):
        names(folder / "carol.safetensors")


def test_amplitudes_are_summed_up_by_site() -> None:
    (spread,) = spreads(state("x", 0.5, 1.0, 1.5, 2.0))
    assert (spread.site, spread.units, spread.mean, spread.lowest, spread.highest) == ("layer", 4, 1.25, 0.5, 2.0)
    assert spread.deviation == pytest.approx((2 * (0.25**2 + 0.75**2) / 4) ** 0.5)


def test_merge_copies_bit_for_bit_and_may_be_done_again(folder: Path, tmp_path: Path) -> None:
    carol = tmp_path / "carol.safetensors"
    state("carol", 3.0, 4.0).save(carol)
    for _ in range(2):
        assert merge(tmp_path / "all", [folder, carol]) == ["alice", "bob", "carol"]
    assert names(tmp_path / "all") == ["alice", "bob", "carol"]
    for name in ("alice", "bob"):
        file = f"{name}.safetensors"
        assert (tmp_path / "all" / file).read_bytes() == (folder / file).read_bytes()


@pytest.mark.parametrize(
    ("other", "error", "message"),
    [
        (state("alice", 9.0, 9.0), SpeakerError, "there is another speaker 'alice'"),
        (state("carol", 1.0, 1.0, model="b" * 64), ModelMismatchError, "was adapted on the model bbbbbbbbbbbb"),
        (state("carol", 1.0), ModelMismatchError, "has amplitudes at"),
    ],
)
def test_merge_takes_all_or_none(
    folder: Path, tmp_path: Path, other: SpeakerState, error: type[Exception], message: str
) -> None:
    other.save(tmp_path / "other.safetensors")
    state("dora", 1.0, 1.0).save(tmp_path / "dora.safetensors")
    with pytest.raises(error, match=message):
        merge(folder, [tmp_path / "dora.safetensors", tmp_path / "other.safetensors"])
    assert names(folder) == ["alice", "bob"]


def test_a_file_called_otherwise_goes_by_the_name_inside(folder: Path, tmp_path: Path) -> None:
    state("carol", 1.0, 1.0).save(tmp_path / "x.safetensors")
    merge(folder, [tmp_path / "x.safetensors"])
    assert (folder / "carol.safetensors").exists()


def test_delete_takes_all_or_none(folder: Path) -> None:
    with pytest.raises(SpeakerError, match=r"no speaker 'carol'; the folder has alice, bob"):
        delete(folder, ["alice", "carol"])
    assert names(folder) == ["alice", "bob"]
    delete(folder, ["alice"])
    assert names(folder) == ["bob"]


@pytest.mark.parametrize("name", ["../alice", "", "speaker-independent", ".."])
def test_delete_stays_in_its_folder(folder: Path, name: str) -> None:
    state("x", 1.0, 1.0).save(folder.parent / "alice.safetensors")
    with pytest.raises(SpeakerError, match="speaker name"):
        delete(folder, [name])
    assert (folder.parent / "alice.safetensors").exists()
