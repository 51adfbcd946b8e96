"""What a path names that is written: links, modes, devices, places that cannot be written."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lhuc_asr.base import outputs
from lhuc_asr.base.atomic import atomic_additions, atomic_folder, atomic_path, write_text
from lhuc_asr.base.errors import LhucError, OutputError
from lhuc_asr.base.outputs import behind_links, nameless_file


def write_folder(path: Path, text: str = "new") -> None:
    with atomic_folder(path) as temporary:
        (temporary / "a").write_text(text)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


# Links.


def test_a_link_stays_and_what_it_names_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "links").mkdir()
    (tmp_path / "data" / "file").write_text("old")
    (tmp_path / "links" / "one").symlink_to("../data/file")
    (tmp_path / "links" / "two").symlink_to("one")
    write_text(tmp_path / "links" / "two", "new")
    assert os.readlink(tmp_path / "links" / "two") == "one"
    assert os.readlink(tmp_path / "links" / "one") == "../data/file"
    assert (tmp_path / "data" / "file").read_text() == "new"
    assert sorted(os.listdir(tmp_path / "links")) == ["one", "two"]
    assert os.listdir(tmp_path / "data") == ["file"]


def test_a_linked_folder_stays_linked(tmp_path: Path) -> None:
    write_folder(tmp_path / "disk" / "folder", "old")
    (tmp_path / "folder").symlink_to(tmp_path / "disk" / "folder")
    write_folder(tmp_path / "folder")
    assert (tmp_path / "folder").is_symlink()
    assert (tmp_path / "disk" / "folder" / "a").read_text() == "new"
    assert os.listdir(tmp_path / "disk") == ["folder"]


@pytest.mark.parametrize("write", [write_text, write_folder])
def test_a_link_to_nothing_gets_what_it_names(write, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk/target")
    write(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "disk" / "target").exists()
    (tmp_path / "far").symlink_to("gone/target")
    with pytest.raises(OutputError, match=r"far: cannot be written \(.*gone.*: No such file or directory\)"):
        write(tmp_path / "far", "new")
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("write", [write_text, write_folder])
def test_links_in_a_circle_are_told(write, tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for path in (tmp_path / "a", tmp_path / "a" / "below"):
        with pytest.raises(OutputError, match=f"{path}: "):
            write(path, "new")


def test_a_link_in_the_way_of_a_temporary_name_is_not_written_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / ".lhuc-known.partial").symlink_to("precious")
    monkeypatch.setattr("secrets.token_hex", lambda _: "known")
    with pytest.raises(OutputError, match="File exists"):
        write_text(tmp_path / "a", "new")
    assert os.listdir(tmp_path / "precious") == []


def test_names_with_dots_lead_to_their_folder(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert behind_links(tmp_path / "a" / "b" / "..") == tmp_path / "a"
    (tmp_path / "up").symlink_to("a/b/..")
    assert behind_links(tmp_path / "up") == tmp_path / "a"


# Modes.


@pytest.mark.usefixtures("umask")
def test_modes_are_kept_and_new_files_take_the_umasks(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "new")
    assert mode(tmp_path / "a") == 0o640
    for kept in (0o600, 0o666, 0o400):
        (tmp_path / "a").chmod(kept)
        write_text(tmp_path / "a", "newer")
        assert (mode(tmp_path / "a"), (tmp_path / "a").read_text()) == (kept, "newer")


@pytest.mark.usefixtures("umask")
def test_modes_of_folders_and_of_files_in_them_are_kept(tmp_path: Path) -> None:
    write_folder(tmp_path / "f")
    assert (mode(tmp_path / "f"), mode(tmp_path / "f" / "a")) == (0o750, 0o640)
    (tmp_path / "f").chmod(0o2700)
    (tmp_path / "f" / "a").chmod(0o600)
    write_folder(tmp_path / "f", "newer")
    assert (mode(tmp_path / "f"), mode(tmp_path / "f" / "a")) == (0o2700, 0o600)
    assert (tmp_path / "f" / "a").read_text() == "newer"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to others")
def test_root_leaves_a_users_file_to_the_user(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    os.chown(tmp_path / "a", 1234, 1235)
    write_text(tmp_path / "a", "new")
    state = (tmp_path / "a").stat()
    assert (state.st_uid, state.st_gid) == (1234, 1235)


# Devices and pipes.


def test_a_device_is_written_to_and_stays(tmp_path: Path) -> None:
    for device in (Path("/dev/null"), tmp_path / "link"):
        if device.parent == tmp_path:
            device.symlink_to("/dev/null")
        write_text(device, "lost")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    assert os.readlink(tmp_path / "link") == "/dev/null"
    with pytest.raises(OutputError, match=r"/dev/full: cannot be written \(No space left on device\)"):
        write_text(Path("/dev/full"), "too much")
    with pytest.raises(OutputError, match="/dev/null: is not a folder"):
        write_folder(Path("/dev/null"))


def test_a_pipe_is_written_to_and_stays(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    texts: list[str] = []
    reader = threading.Thread(target=lambda: texts.append((tmp_path / "pipe").read_text()))
    reader.start()
    write_text(tmp_path / "pipe", "through the pipe")
    reader.join(timeout=60)
    assert texts == ["through the pipe"]
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_is_written_on_where_it_stands(name: str, tmp_path: Path) -> None:
    code = """
        import sys
        from pathlib import Path
        from lhuc_asr.base.atomic import write_text
        print("before", flush=True)
        write_text(Path(sys.argv[1]), "text\\n")
        print("after")
    """
    command = [sys.executable, "-c", textwrap.dedent(code), name]
    assert subprocess.run(command, capture_output=True, text=True, timeout=60).stdout == "before\ntext\nafter\n"
    with (tmp_path / "file").open("w") as file:
        subprocess.run(command, stdout=file, check=True, timeout=60)
    assert (tmp_path / "file").read_text() == "before\ntext\nafter\n"
    assert os.listdir(tmp_path) == ["file"]


def test_a_disk_is_never_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs.stat, "S_ISBLK", lambda _: True)
    with pytest.raises(OutputError, match="is a disk"):
        write_text(Path("/dev/null"), "text")


def test_a_nameless_file_is_in_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with nameless_file() as path:
        path.write_text("text")
        path.write_text("other")
        assert path.read_text() == "other"
        assert os.listdir(tmp_path) == []
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(OutputError, match=r"a temporary file cannot be made .* set TMPDIR"), nameless_file():
        pass


# Places that cannot be written.


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("folder", "folder: is a folder; name a file"),
        ("folder/..", "is a folder; name a file"),
        ("file/below", "file/below: .*Not a directory"),
        ("file/below/deeper", "file/below/deeper: .*(Not a directory|not a folder)"),
        ("x" * 256, r"x: cannot be written \(File name too long\)"),
        ("a\0b", "NUL"),
    ],
)
def test_a_place_that_cannot_be_a_file_is_told_in_one_line(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("kept")
    with pytest.raises(LhucError, match=message) as caught:
        write_text(tmp_path / name, "new")
    assert "\n" not in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_a_name_of_255_bytes_leaves_room_for_a_temporary_one(tmp_path: Path) -> None:
    for path in (tmp_path / ("ü" * 127 + "x"), tmp_path / os.fsdecode(b"\xff" * 255)):
        write_text(path, "text")
        assert path.read_text() == "text"
        path.unlink()
        write_folder(path)
        write_folder(path)
        assert (path / "a").read_text() == "new"


@pytest.mark.parametrize("write", [write_text, write_folder])
def test_a_folder_that_may_not_be_written_to_is_named(write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may write everywhere, hence the refusal by hand."""
    write(tmp_path / "a", "old")

    def refused(path: Path, *_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(os, "mkdir", refused)
    with pytest.raises(OutputError, match=f"{tmp_path}/a: cannot be written \\(Permission denied\\); choose another"):
        write(tmp_path / "a", "new")


@pytest.mark.parametrize("name", ["/", "/proc"])
def test_a_disks_own_folder_is_not_replaced(name: str) -> None:
    with pytest.raises(OutputError, match="cannot be replaced"), atomic_folder(Path(name)):
        pass


def test_a_file_is_not_replaced_by_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("kept")
    with pytest.raises(OutputError, match="a: is not a folder"):
        write_folder(tmp_path / "a")
    assert (tmp_path / "a").read_text() == "kept"


def test_additions_do_not_replace(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("kept")
    with pytest.raises(OutputError, match="File exists"), atomic_additions(tmp_path) as temporary:  # noqa: PT012
        for name in "abc":
            (temporary / name).write_text("new")
    assert os.listdir(tmp_path) == ["b"]
    assert (tmp_path / "b").read_text() == "kept"
    with pytest.raises(KeyError), atomic_additions(tmp_path / "new"):
        raise KeyError
    assert os.listdir(tmp_path) == ["b"]


def test_a_copy_that_does_not_fit_is_told_by_the_outputs_name(tmp_path: Path) -> None:
    """Copying names its source first."""
    with pytest.raises(OutputError, match=r"out: cannot be written \(No space"), atomic_path(tmp_path / "out") as new:
        raise OSError(errno.ENOSPC, "No space left on device", "source", None, str(new))
