"""Speakers' files in folders."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from lhuc_asr.base.errors import CheckpointError, LhucError, ModelMismatchError, OutputError, SpeakerError
from lhuc_asr.cli.speakers import speakers
from lhuc_asr.hmm.speaker_transforms import SpeakerTransforms
from lhuc_asr.lhuc.site import Site
from lhuc_asr.lhuc.speaker import SpeakerState
from lhuc_asr.recognizer.speaker_file import SpeakerFile
from lhuc_asr.recognizer.speaker_files import delete, files_of_speakers, merge


def state(name: str, *r: float, model: str = "a" * 64) -> SpeakerState:
    return SpeakerState(name, "identity", model, (Site("layer", len(r), -1, 0),), {"layer": torch.tensor(r)})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """alice, bob and row 0."""
    for name, file in (("alice", "alice"), ("bob", "bob"), ("", "speaker-independent")):
        state(name, 1.0, float(len(name))).save(tmp_path / "speakers" / f"{file}.safetensors")
    return tmp_path / "speakers"


def names(*paths: Path) -> list[str]:
    return [file.speaker for file in files_of_speakers(paths)]


def test_files_and_folders_are_listed_without_row_zero(folder: Path) -> None:
    assert names(folder) == ["alice", "bob"]
    assert names(folder / "bob.safetensors") == ["bob"]
    with pytest.raises(SpeakerError, match="no speaker's file"):
        names(folder.parent)
    with pytest.raises(CheckpointError, match=r"carol\.safetensors: no such file"):
        names(folder / "carol.safetensors")


def test_amplitudes_are_summed_up_by_site(tmp_path: Path) -> None:
    state("x", 0.5, 1.0, 1.5, 2.0).save(tmp_path / "x.safetensors")
    (spread,) = SpeakerFile.load(tmp_path / "x.safetensors").spreads()
    assert (spread.name, spread.count, spread.mean, spread.lowest, spread.highest) == ("layer", 4, 1.25, 0.5, 2.0)
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


def test_a_folder_has_the_speakers_of_one_method(folder: Path, tmp_path: Path) -> None:
    transforms = SpeakerTransforms.identity(("carol", "../../mallory"), 3)
    transforms.save(tmp_path / "carol.safetensors", "carol", "a" * 64)
    with pytest.raises(ModelMismatchError, match=r"carol.safetensors: holds transform, .*alice.safetensors holds ampl"):
        merge(folder, [tmp_path / "carol.safetensors"])
    transforms.save(tmp_path / "m.safetensors", "../../mallory", "a" * 64)
    with pytest.raises(SpeakerError, match=r"m\.safetensors: speaker name '../../mallory' cannot be a file's name"):
        merge(tmp_path / "other", [tmp_path / "m.safetensors"])


def test_a_transform_is_listed_and_shown(tmp_path: Path) -> None:
    SpeakerTransforms.identity(("carol",), 3).save(tmp_path / "carol.safetensors", "carol", "a" * 64)
    listed = CliRunner().invoke(speakers, ["list", str(tmp_path)]).stdout
    assert listed.split() == ["carol", "a" * 12, "transform", "-", str(tmp_path / "carol.safetensors")]
    shown = CliRunner().invoke(speakers, ["show", str(tmp_path / "carol.safetensors")]).stdout.splitlines()
    assert shown[-1].split() == ["transform", "12", "0.250", "0.433", "0.000", "1.000"]


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


# Files that are called otherwise than the speaker in them.


@pytest.fixture
def crossed(tmp_path: Path) -> Path:
    """alice.safetensors holds bob, a1.safetensors alice."""
    state("bob", 1.0, 2.0).save(tmp_path / "crossed" / "alice.safetensors")
    state("alice", 3.0, 4.0).save(tmp_path / "crossed" / "a1.safetensors")
    return tmp_path / "crossed"


def test_delete_goes_by_the_name_in_the_file(crossed: Path) -> None:
    assert delete(crossed, ["alice"]) == [crossed / "a1.safetensors"]
    assert names(crossed) == ["bob"]
    with pytest.raises(SpeakerError, match="no speaker 'alice'; the folder has bob"):
        delete(crossed, ["alice"])
    assert delete(crossed, ["bob", "bob"]) == [crossed / "alice.safetensors"]
    with pytest.raises(SpeakerError, match="the folder has none"):
        delete(crossed, ["bob"])


def test_delete_takes_copies_and_refuses_two_speakers_of_one_name(crossed: Path) -> None:
    (crossed / "copy.safetensors").write_bytes((crossed / "a1.safetensors").read_bytes())
    assert delete(crossed, ["alice"]) == [crossed / "a1.safetensors", crossed / "copy.safetensors"]
    state("bob", 5.0, 6.0).save(crossed / "b2.safetensors")
    with pytest.raises(SpeakerError, match=r"alice\.safetensors and .*b2\.safetensors: hold different speakers 'bob'"):
        delete(crossed, ["bob"])
    assert names(crossed) == ["bob", "bob"]


def test_delete_finds_a_speaker_beside_files_that_cannot_be_read(crossed: Path) -> None:
    (crossed / "empty.safetensors").write_bytes(b"")
    (crossed / "._a1.safetensors").write_bytes(b"a Mac's")
    with pytest.raises(SpeakerError, match=r"the folder has alice, bob; a file cannot be read: .*empty\.safetensors"):
        delete(crossed, ["carol"])
    delete(crossed, ["alice"])
    assert sorted(os.listdir(crossed)) == ["._a1.safetensors", "alice.safetensors", "empty.safetensors"]


def test_merge_does_not_take_the_place_of_another_speaker(crossed: Path, tmp_path: Path) -> None:
    """Neither of a speaker's file, nor of row 0's, nor of anything else; and of nine new speakers none is copied."""
    (crossed / "a1.safetensors").unlink()
    state("", 0.0, 0.0).save(crossed / "zoe.safetensors")
    (crossed / "carol.safetensors").symlink_to("alice.safetensors")
    for name in ("alice", "carol", "zoe", *map(str, range(9))):
        state(name, 7.0, 8.0).save(tmp_path / "new" / f"{name}.safetensors")
    before = {name: (crossed / name).read_bytes() for name in os.listdir(crossed)}
    for name, holder in (("alice", "'bob'"), ("carol", "'bob'"), ("zoe", "''")):
        new = [tmp_path / "new" / f"{each}.safetensors" for each in (*range(9), name)]
        with pytest.raises(SpeakerError, match=rf"{name}\.safetensors: holds the speaker {holder}, and '{name}' would"):
            merge(crossed, new)
    (crossed / "dora.safetensors").mkdir()
    with pytest.raises(LhucError, match="dora"):
        merge(crossed, [tmp_path / "new" / "0.safetensors"])
    (crossed / "dora.safetensors").rmdir()
    assert {name: (crossed / name).read_bytes() for name in os.listdir(crossed)} == before


def test_merge_leaves_a_speaker_where_they_are(crossed: Path, tmp_path: Path) -> None:
    state("alice", 3.0, 4.0).save(tmp_path / "alice.safetensors")
    assert merge(crossed, [tmp_path / "alice.safetensors"]) == ["alice"]
    assert sorted(os.listdir(crossed)) == ["a1.safetensors", "alice.safetensors"]
    assert names(crossed) == ["alice", "bob"]


def test_a_disk_that_is_full_at_the_third_of_ten_leaves_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(10):
        state(f"s{number}", 1.0, 1.0).save(tmp_path / "ten" / f"{number}.safetensors")
    before, write = sorted(os.listdir(folder)), Path.write_bytes
    written: list[Path] = []

    def full(path: Path, content: bytes) -> int:
        written.append(path)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    for into in (folder, tmp_path / "none_yet"):
        written.clear()
        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(OutputError, match=rf"{into}: cannot be written \(No space left on device\); free some"):
            merge(into, [tmp_path / "ten"])
        monkeypatch.setattr(Path, "write_bytes", write)
    assert sorted(os.listdir(folder)) == before
    assert not (tmp_path / "none_yet").exists()


def test_a_private_file_stays_private_when_it_is_merged(folder: Path, tmp_path: Path) -> None:
    state("carol", 1.0, 1.0).save(tmp_path / "carol.safetensors")
    (tmp_path / "carol.safetensors").chmod(0o600)
    merge(folder, [tmp_path / "carol.safetensors"])
    assert stat.S_IMODE((folder / "carol.safetensors").stat().st_mode) == 0o600


# Files without content.


@pytest.fixture
def no_sites(tmp_path: Path) -> Path:
    SpeakerState("dave", "identity", "a" * 64, (), {}).save(tmp_path / "dave" / "dave.safetensors")
    return tmp_path / "dave" / "dave.safetensors"


def test_a_speaker_without_sites_is_refused_by_name(no_sites: Path) -> None:
    for arguments in (["list", str(no_sites.parent)], ["show", str(no_sites)]):
        refused = CliRunner().invoke(speakers, arguments)
        assert isinstance(refused.exception, CheckpointError)
        assert re.fullmatch(r"[^\n]*dave\.safetensors: [^\n]*", str(refused.exception))


def test_a_site_without_units_is_refused_by_name(tmp_path: Path) -> None:
    state("eve").save(tmp_path / "eve.safetensors")
    with pytest.raises(CheckpointError, match=r"eve\.safetensors: site 'layer'"):
        SpeakerState.load(tmp_path / "eve.safetensors")


@pytest.mark.parametrize("content", [b"", b"\0", bytes(8), b"not a speaker"])
def test_an_empty_file_is_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "empty.safetensors"
    path.write_bytes(content)
    for act in (lambda: files_of_speakers([tmp_path]), lambda: merge(tmp_path / "all", [path]), lambda: names(path)):
        with pytest.raises(CheckpointError, match=r"empty\.safetensors: not a speaker's file, or damaged") as caught:
            act()
        assert "\n" not in str(caught.value)


def test_row_zero_alone_is_not_merged(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SpeakerError, match="no speaker to copy"):
        merge(tmp_path / "all", [folder / "speaker-independent.safetensors"])
    assert not (tmp_path / "all").exists()
