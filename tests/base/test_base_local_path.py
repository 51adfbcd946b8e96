"""Paths of a configuration are absolute, and inputs that are missing are named all at once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from lhuc_asr.base.config import StrictModel, dump_config, load_config, parse_config
from lhuc_asr.base.errors import ConfigError
from lhuc_asr.base.local_path import InputFile, InputFolder, LocalPath, check_inputs


class Group(StrictModel):
    """Files of a group."""

    texts: tuple[InputFile, ...] = ()
    folder: InputFolder | None = None


class Files(StrictModel):
    """Paths of every form."""

    out: LocalPath | None = None
    table: InputFile | None = None
    group: Group = Group()
    named: dict[str, Group] = Field({})


def files(**tree: Any) -> Files:
    return parse_config(Files, tree, "recipe")


def test_a_relative_path_is_one_from_the_folder_of_the_command(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "recipe.yaml").write_text("table: a.csv\ngroup: {texts: [b c.txt, 'd #e.txt'], folder: ./f}")
    monkeypatch.chdir(tmp_path)
    config = load_config(Files, tmp_path / "recipe.yaml", ["out=x #2"])
    expected = files(
        out=tmp_path / "x #2",
        table=tmp_path / "a.csv",
        group={"texts": [tmp_path / "b c.txt", tmp_path / "d #e.txt"], "folder": tmp_path / "f"},
    )
    assert config == expected
    (tmp_path / "dump.yaml").write_text(dump_config(config), encoding="utf-8")
    monkeypatch.chdir("/")
    assert load_config(Files, tmp_path / "dump.yaml") == expected


def test_a_home_folder_is_written_out(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files(out="~/a", table="~").table == tmp_path
    assert files(out="~/a").out == tmp_path / "a"
    assert files(out="/b/~/a").out == Path("/b/~/a")


def test_the_way_up_from_a_link_starts_where_the_link_leads(tmp_path: Path, monkeypatch) -> None:
    """As the system does it; a path without such a way keeps its links, and so do the keys of stages."""
    (tmp_path / "far" / "inside").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "inside")
    monkeypatch.chdir(tmp_path)
    assert files(out="link/../data").out == tmp_path / "far" / "data"
    assert files(out="link/data").out == tmp_path / "link" / "data"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "the path is empty"),
        ("a\0b", "the path has a control character"),
        ("a\nb", "the path has a control character"),
        ("a\udcffb", "or is not UTF-8"),
        ("~nobody-of-this-name/a", "the path leads nowhere"),
        (3, "not a valid path"),
        (["a"], "not a valid path"),
    ],
)
def test_a_path_that_cannot_be_one_is_refused(path: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        files(table=path)
    assert str(caught.value).startswith("recipe: table: ")
    assert "\n" not in str(caught.value)


def test_every_missing_input_is_named_and_outputs_are_not(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("")
    config = files(
        out=tmp_path / "out",
        table=tmp_path,
        group={"texts": [tmp_path / "there", tmp_path / "gone"], "folder": tmp_path / "there"},
        named={"mine": {"folder": tmp_path / "there" / "below"}},
    )
    with pytest.raises(ConfigError) as caught:
        check_inputs(config)
    assert str(caught.value) == (
        f"table: {tmp_path}: is a folder, expected a file; group.texts: {tmp_path}/gone: no such file; "
        f"group.folder: {tmp_path}/there: is a file, expected a folder; "
        f"named.mine.folder: {tmp_path}/there/below: no such folder; correct the path in the recipe"
    )


def test_inputs_that_are_there_pass(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("")
    check_inputs(files(table=tmp_path / "there", group={"folder": tmp_path}))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_input_without_permission_is_named(tmp_path: Path) -> None:
    (tmp_path / "closed").touch(mode=0)
    with pytest.raises(ConfigError, match="cannot be read"):
        check_inputs(files(table=tmp_path / "closed"))


def test_a_pipe_or_device_is_not_an_input(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="is not a regular file"):
        check_inputs(files(table=tmp_path / "pipe"))
    with pytest.raises(ConfigError, match="not a file; a recipe's folder"):
        load_config(Files, tmp_path / "pipe")


def test_a_loop_of_links_is_named(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(ConfigError, match="Too many levels of symbolic links"):
        check_inputs(files(table=tmp_path / "loop"))
