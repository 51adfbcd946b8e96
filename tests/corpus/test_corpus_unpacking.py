"""Archives of corpora: hostile, odd, cut and huge ones, and disks that fill while they are unpacked."""

from __future__ import annotations

import errno
import gzip
import os
import tarfile
from pathlib import Path

import pytest
from openslr_site import FILES, SUBSET, Site, assert_whole, get, pack

from lhuc_asr.base.errors import DownloadError, OutputError
from lhuc_asr.corpus import download as corpus_download


def link(name: str, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member


@pytest.mark.parametrize(
    "member",
    [
        tarfile.TarInfo("/tmp/owned"),
        tarfile.TarInfo("LibriSpeech/../../owned"),
        tarfile.TarInfo(f"LibriSpeech/{SUBSET}/../../../owned"),
        link(f"LibriSpeech/{SUBSET}/19/8", "/etc"),
    ],
    ids=["absolute", "parent", "parent inside", "link"],
)
def test_hostile_members_are_refused(site: Site, tmp_path: Path, member: tarfile.TarInfo) -> None:
    site.content = pack(FILES, member)
    with pytest.raises(DownloadError, match=f"{member.name!r} is a link, has holes, or leads out of the archive"):
        get(site, tmp_path / "corpora")
    assert not (tmp_path / "corpora" / "LibriSpeech" / SUBSET).exists()
    assert not list(tmp_path.rglob("owned"))


def described(name: str, **values: object) -> tarfile.TarInfo:
    member = tarfile.TarInfo(f"LibriSpeech/{SUBSET}/{name}")
    for key, value in values.items():
        setattr(member, key, value)
    return member


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (described("19/7/19-7.trans.txt"), "is there twice"),
        (described("x" * 300), "cannot be unpacked"),
        (described("x" * 100_000), r"cannot be unpacked \(File name too long\)"),
        (described("late", mtime=10**300), "cannot be unpacked"),
        (described("late", pax_headers={"mtime": "1e308"}), "cannot be unpacked"),
        (described("nul", pax_headers={"path": f"LibriSpeech/{SUBSET}/a\0b"}), "cannot be unpacked"),
        (described("hole", type=tarfile.GNUTYPE_SPARSE), "has holes"),
        (described("hole", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}), "cannot be unpacked"),
        (described("hole", pax_headers={"GNU.sparse.size": "9" * 18, "GNU.sparse.map": "0,0"}), "has holes"),
        (described("device", type=tarfile.CHRTYPE), "is a link"),
        (described("below/19/7/19-7.trans.txt/file"), None),
        (described("19/7/19-7.trans.txt/file"), "cannot be unpacked"),
        (described(".", type=tarfile.REGTYPE), "is there twice"),
    ],
    ids=lambda value: getattr(value, "name", value)[-20:] if value else "well",
)
def test_odd_members_are_one_error(site: Site, tmp_path: Path, member: tarfile.TarInfo, message: str | None) -> None:
    site.content = pack(FILES, member)
    if message is None:
        get(site, tmp_path)
        return
    with pytest.raises(DownloadError, match=message) as caught:
        get(site, tmp_path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert not (tmp_path / "LibriSpeech" / SUBSET).exists()


def test_an_archive_of_very_many_members_is_refused(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_download, "LEAST_LIMIT", 1 << 16)
    folder = tarfile.TarInfo(f"LibriSpeech/{SUBSET}/folder")
    folder.type = tarfile.DIRTYPE
    site.content = gzip.compress(folder.tobuf(tarfile.PAX_FORMAT) * 20_000)
    with pytest.raises(DownloadError, match="unpacks to far more than a corpus of speech does"):
        get(site, tmp_path)


def test_a_name_that_says_it_is_gigabytes_long_is_not_read(site: Site, tmp_path: Path) -> None:
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1 << 33
    site.content = gzip.compress(header.tobuf(tarfile.GNU_FORMAT))
    with pytest.raises(DownloadError, match="unpacks to far more"):
        get(site, tmp_path)


def test_a_disk_that_fills_while_unpacking_keeps_the_archive(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(tarfile.TarFile, "extract", full)
        with pytest.raises(OutputError, match=r"No space left on device.*free some space"):
            get(site, tmp_path)
    get(site, tmp_path)
    assert_whole(tmp_path)
    assert len(site.asked) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pack({"other/file": b""}), "'other' does not belong to LibriSpeech/dev-clean-2"),
        (pack({"LibriSpeech/SPEAKERS.TXT": b""}), "holds no LibriSpeech/dev-clean-2"),
        (pack(FILES)[:-2000], "cannot be unpacked"),
        (b"<html>Not an archive</html>", "cannot be unpacked"),
    ],
    ids=["another archive", "no subset", "cut", "no archive"],
)
def test_what_cannot_be_unpacked_leaves_no_subset(site: Site, tmp_path: Path, content: bytes, message: str) -> None:
    site.content = content
    with pytest.raises(DownloadError, match=message):
        get(site, tmp_path)
    assert not (tmp_path / "LibriSpeech" / SUBSET).exists()
