"""Outputs that would destroy an input or cannot be written, and paths that cannot be shown as they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lhuc_asr.base.destinations import Inputs, check_writable, is_folder, leads_to_stream, output_of, shown
from lhuc_asr.base.errors import OutputError


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model's folder, with a link in it to a file elsewhere."""
    (tmp_path / "model/lang").mkdir(parents=True)
    (tmp_path / "model/model.json").write_text("{}")
    (tmp_path / "network").write_text("weights")
    (tmp_path / "model/network").symlink_to(tmp_path / "network")
    return tmp_path / "model"


def test_an_input_by_any_name_is_refused(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.wav").write_bytes(b"sound")
    Path("hard").hardlink_to("a.wav")
    Path("soft").symlink_to("a.wav")
    Path("elsewhere").symlink_to(tmp_path)
    inputs = Inputs([Path("a.wav")], [model])
    for name in ("a.wav", "hard", "soft", "model/../a.wav", str(tmp_path / "a.wav"), "elsewhere/a.wav"):
        with pytest.raises(OutputError, match=r"this is an input, a\.wav; choose another"):
            inputs.refuse(Path(name))
    for name in ("b.wav", "new/a.wav", "models", "/dev/null"):
        inputs.refuse(Path(name))


def test_nothing_is_written_in_a_model(tmp_path: Path, model: Path) -> None:
    (tmp_path / "way").symlink_to(model / "lang")
    inputs = Inputs([], [model])
    for name in ("model", "model/model.json", "model/new/new.txt", "model/lang/../x", "way/x"):
        with pytest.raises(OutputError, match="is inside the model"):
            inputs.refuse(tmp_path / name)
    with pytest.raises(OutputError, match="network: this is an input"):
        inputs.refuse(tmp_path / "network")


def test_what_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name, message in (
        ("file/x", "file is not a folder"), ("file/x/y", "file is not a folder"), (".", "is a folder; give the name"),
        ("x" * 300, "File name too long"),
    ):  # fmt: skip
        with pytest.raises(OutputError, match=message):
            check_writable(tmp_path / name)
    for name in ("file", "new", "new/new/new"):
        check_writable(tmp_path / name)
    assert not (tmp_path / "new").exists()


def test_a_link_that_leads_nowhere_needs_the_folder_that_it_leads_to(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("elsewhere/file")
    with pytest.raises(OutputError, match=r"link: leads to .*elsewhere, which is not a folder; make it first"):
        check_writable(link)
    (tmp_path / "elsewhere").mkdir()
    check_writable(link)
    link.unlink()
    link.symlink_to("link")
    with pytest.raises(OutputError, match="link: cannot be written"):
        check_writable(link)


def test_streams_are_written_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in ("/dev/null", "/dev/stdout", "/dev/fd/2", tmp_path / "pipe"):
        check_writable(Path(place))
        assert leads_to_stream(Path(place))
    assert not leads_to_stream(tmp_path / "new")


def test_a_slash_at_the_end_is_a_folder(tmp_path: Path) -> None:
    assert output_of(f"{tmp_path}/new/", "x") == tmp_path / "new" / "x"
    assert output_of(f"{tmp_path}", "x") == tmp_path / "x"
    assert output_of(f"{tmp_path}/new", "x") == tmp_path / "new"
    for name in ("", "a\0", "x" * 5000):
        with pytest.raises(OutputError, match="choose another output"):
            is_folder(name)


@pytest.mark.parametrize("text", ["plain", "caf\N{LATIN SMALL LETTER E WITH ACUTE}", "caf\udce9", "\ud800"])
def test_any_path_can_be_shown(text: str) -> None:
    assert shown(text).encode().decode().startswith(text[:3] if text.isprintable() else "")
