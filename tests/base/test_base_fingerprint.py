"""A fingerprint changes with the names, sizes and times of files, through links too."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from lhuc_asr.base.fingerprint import files_below, fingerprint, times_of


def test_a_fingerprint_sees_names_sizes_and_times(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    (folder / "deep").mkdir(parents=True)
    path = folder / "deep" / "a"
    path.write_text("one")
    os.utime(path, ns=(0, 10**18))
    seen = [fingerprint([folder])]
    assert fingerprint([folder]) == seen[0]

    def changed() -> bool:
        seen.append(fingerprint([folder]))
        return seen.count(seen[-1]) == 1

    path.write_text("two!")
    os.utime(path, ns=(0, 10**18))
    assert changed()
    os.utime(path, ns=(0, 10**18 + 1))
    assert changed()
    path.rename(path.with_name("b"))
    assert changed()
    (folder / "c").write_text("")
    assert changed()
    assert fingerprint([tmp_path / "nowhere"]) != fingerprint([tmp_path / "nowhere2"])
    assert fingerprint([]) == fingerprint([])


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A folder with a link to another folder, which has a link to a file in a third one."""
    corpus, disk, far = (tmp_path / name for name in ("corpus", "disk", "far"))
    for folder in (corpus, disk, far):
        folder.mkdir()
    (corpus / "own").write_text("own")
    (far / "file").write_text("far")
    (disk / "one").write_text("one")
    (disk / "link").symlink_to(far / "file")
    (corpus / "disk").symlink_to(disk)
    return corpus


@pytest.mark.parametrize("changed", ["disk/one", "far/file"])
def test_a_fingerprint_sees_what_links_lead_to(changed: str, linked: Path, tmp_path: Path) -> None:
    before = fingerprint([linked])
    os.utime(tmp_path / changed, ns=(0, 0))
    assert fingerprint([linked]) != before
    again = fingerprint([linked])
    (tmp_path / changed).unlink()
    assert fingerprint([linked]) != again


def test_files_in_linked_folders_are_listed_under_the_link(linked: Path) -> None:
    assert list(files_below(linked)) == [linked / name for name in ("disk/link", "disk/one", "own")]


def test_a_linked_root_is_followed(linked: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.symlink_to(linked)
    assert list(files_below(root)) == [root / name for name in ("disk/link", "disk/one", "own")]


def test_a_circle_of_links_ends(linked: Path, tmp_path: Path) -> None:
    (linked / "self").symlink_to(linked)
    (tmp_path / "disk" / "up").symlink_to(tmp_path)
    files = list(files_below(linked))
    assert linked / "disk" / "one" in files
    assert len(files) == len(set(files)) < 20
    assert fingerprint([linked]) == fingerprint([linked])


def test_a_link_to_nowhere_counts_as_missing(linked: Path, tmp_path: Path) -> None:
    (linked / "lost").symlink_to(tmp_path / "nowhere")
    before = fingerprint([linked])
    (tmp_path / "nowhere").touch()
    assert fingerprint([linked]) != before


def test_files_that_were_made_in_one_tick_of_the_clock_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their folders may be renamed, which changes no time of a file."""
    old, new = tmp_path / "old", tmp_path / "new"
    for folder, content in ((old, "one"), (new, "two")):
        folder.mkdir()
        (folder / "a.wav").write_text(content)
    real, settled = Path.stat, time.time_ns() - 10**10

    def stat(self: Path) -> os.stat_result:
        fields = list(real(self).__reduce__()[1][0])
        times = {"st_mtime_ns": settled, "st_ctime_ns": settled}
        return os.stat_result(fields, {**real(self).__reduce__()[1][1], **times})

    monkeypatch.setattr(Path, "stat", stat)
    before = times_of(old / "a.wav")
    assert before == times_of(old / "a.wav")
    old.rename(tmp_path / "kept")
    new.rename(old)
    assert times_of(old / "a.wav") != before
