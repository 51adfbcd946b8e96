"""Folders of models: whole or not there, and refused in one line where anything is not as it was saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest

from lhuc_asr.base.errors import CheckpointError
from lhuc_asr.base.hashed_folder import FolderDescription, FolderKind, hashes


class ThingDescription(FolderDescription):
    format: Literal["thing-1"] = "thing-1"
    colour: str


THINGS = FolderKind(ThingDescription, "thing.json", "thing", CheckpointError, "make it again")


def saved(folder: Path, places: dict[str, str], files: dict[str, str] | None = None) -> Path:
    with THINGS.replacing(folder) as temporary:
        for name, place in places.items():
            (temporary / place).parent.mkdir(parents=True, exist_ok=True)
            (temporary / place).write_text(f"content of {name}")
        sha256 = hashes({name: temporary / place for name, place in places.items()})
        THINGS.write(temporary, ThingDescription(made_by="1", colour="red", files=files or {}, sha256=sha256))
    return folder


@pytest.fixture
def thing(tmp_path: Path) -> Path:
    return saved(tmp_path / "thing", {"a": "a", "sub/b": "sub/b"})


@pytest.fixture
def placed(tmp_path: Path) -> Path:
    """A folder with an arrangement of its own, as an experiment's."""
    return saved(tmp_path / "placed", {"a": "am/si/a", "b": "b"}, {"a": "am/si/a"})


def change(folder: Path, **changes: Any) -> None:
    tree = json.loads((folder / "thing.json").read_text())
    (folder / "thing.json").write_text(json.dumps(tree | changes))


def test_what_is_read_is_what_was_written(thing: Path, placed: Path) -> None:
    description = THINGS.read(thing, required=["a"], complete=["sub"])
    assert description.colour == "red"
    assert description.path(thing, "sub/b") == thing / "sub" / "b"
    assert THINGS.read(placed).path(placed, "a") == placed / "am" / "si" / "a"
    assert list(json.loads((thing / "thing.json").read_text())) == ["format", "made_by", "colour", "sha256"]
    assert list(json.loads((placed / "thing.json").read_text())) == ["format", "made_by", "colour", "files", "sha256"]


def test_a_folder_is_replaced_whole_and_nothing_else_is(thing: Path, tmp_path: Path) -> None:
    before = (thing / "thing.json").read_bytes()
    with pytest.raises(IsADirectoryError), THINGS.replacing(thing) as temporary:
        temporary.write_text("not to be written")
    assert (thing / "thing.json").read_bytes() == before
    THINGS.read(thing)
    saved(thing, {"c": "c"})
    assert sorted(path.name for path in thing.iterdir()) == ["c", "thing.json"]
    (tmp_path / "thesis").mkdir()
    with pytest.raises(CheckpointError, match="thesis: exists and is not a thing; choose another folder"):
        saved(tmp_path / "thesis", {"a": "a"})


@pytest.mark.parametrize("name", ["alice.safetensors", "sub/notes.txt", ".git/HEAD", "link"])
def test_a_file_that_the_folder_was_not_made_with_is_not_lost(thing: Path, name: str) -> None:
    """Such as the speakers' files of a model's user, or all the rest of an experiment's folder."""
    (thing / name).parent.mkdir(exist_ok=True)
    (thing / name).symlink_to("a") if name == "link" else (thing / name).write_text("mine")
    with pytest.raises(
        CheckpointError, match=f"{name}: not a part of the thing, and would be lost; move it, or choose"
    ):
        saved(thing, {"c": "c"})
    THINGS.read(thing)
    (thing / name).unlink()
    saved(thing, {"c": "c"})


def test_a_folder_of_an_earlier_version_is_replaced_and_a_damaged_one_told(thing: Path, placed: Path) -> None:
    for folder in (thing, placed):
        change(folder, format="thing-0", colour=None, more=1)
        saved(folder, {"c": "c"})
    for text in ("{", "[]", '{"sha256": 3}', '{"sha256": {}, "files": 3}'):
        (thing / "thing.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"thing\.json: damaged .*; delete the folder, or choose another"):
            saved(thing, {"d": "d"})
        assert (thing / "c").exists()


@pytest.mark.parametrize(("folder", "place"), [("thing", "a"), ("thing", "sub/b"), ("placed", "am/si/a")])
def test_a_changed_file_and_a_missing_one_are_told(thing: Path, placed: Path, folder: str, place: str) -> None:
    path = (thing if folder == "thing" else placed) / place
    path.write_text("other")
    with pytest.raises(CheckpointError, match=f"{place}: not the file that was saved; copy the folder again"):
        THINGS.read(thing), THINGS.read(placed)
    path.unlink()
    with pytest.raises(CheckpointError, match=f"{place}: no such file; copy the folder again"):
        THINGS.read(thing), THINGS.read(placed)


def test_a_file_that_nobody_saved_is_told_where_files_must_be_known(thing: Path) -> None:
    (thing / "sub" / "stranger").write_text("")
    THINGS.read(thing)
    with pytest.raises(CheckpointError, match="sub/stranger: not one of the files that were saved"):
        THINGS.read(thing, complete=["sub"])


def test_a_name_that_must_be_there_is_asked_for(thing: Path) -> None:
    (thing / "c").write_text("nobody vouches for it")
    with pytest.raises(CheckpointError, match="c: not the file that was saved"):
        THINGS.read(thing, required=["c"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "thing-2"}, r"thing\.json: expected format 'thing-1', found 'thing-2'; make it again"),
        ({"colour": 3}, r"thing\.json: colour: .*; copy the folder again"),
        ({"size": 3}, r"thing\.json: unknown key 'size'.*; copy the folder again"),
        ({"sha256": {"../a": ""}}, r"file '\.\./a' is not a path inside the folder"),
        ({"sha256": {"/etc/passwd": ""}}, r"file '/etc/passwd' is not a path inside the folder"),
        ({"files": {"a": "sub/../../a"}}, r"file 'sub/\.\./\.\./a' is not a path inside the folder"),
        ({"files": {"a": ""}}, r"file '' is not a path inside the folder"),
        ({"files": {"c": "d"}}, r"files: 'c' has no hash in sha256"),
    ],
)
def test_a_description_that_does_not_fit_is_told(thing: Path, changes: dict[str, Any], message: str) -> None:
    change(thing, **changes)
    with pytest.raises(CheckpointError, match=message) as caught:
        THINGS.read(thing)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_description_is_told(thing: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"thing\.json: no such file; name the folder of a thing"):
        THINGS.read(tmp_path)
    for text in ("{", "[]"):
        (thing / "thing.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"thing\.json: "):
            THINGS.read(thing)
