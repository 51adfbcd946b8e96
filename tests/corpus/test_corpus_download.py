"""Downloads from a server in this process: broken, changed and full disks included."""

from __future__ import annotations

import fcntl
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from openslr_site import FILES, NOISE, SUBSET, Site, assert_whole, checksum, get, pack

from lhuc_asr.base.errors import DownloadError
from lhuc_asr.corpus import http_file
from lhuc_asr.corpus.download import ARCHIVES, download_librispeech, download_subsets
from lhuc_asr.corpus.http_file import fetch


def test_a_subset_is_fetched_checked_and_unpacked(site: Site, tmp_path: Path) -> None:
    assert get(site, tmp_path) == tmp_path / "LibriSpeech" / SUBSET
    assert_whole(tmp_path)
    assert site.asked == [(f"/resources/31/{SUBSET}.tar.gz", None)]


def test_mini_librispeech_is_both_of_its_subsets(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = {"LibriSpeech/train-clean-5/20/8/20-8.trans.txt": b"20-8-0000 WORD\n"}
    site.others["/resources/31/train-clean-5.tar.gz"] = pack(training)
    for name, content in ((SUBSET, site.content), ("train-clean-5", pack(training))):
        monkeypatch.setitem(ARCHIVES, name, replace(ARCHIVES[name], checksum=checksum(content), recordings=0))
    home = tmp_path / "LibriSpeech"
    for _ in range(2):
        folders = download_subsets("mini", tmp_path, base_url=site.url)
        assert folders == [home / "train-clean-5", home / SUBSET]
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {tmp_path / name for name in FILES | training}
    assert [path for path, _ in site.asked] == [
        "/resources/31/train-clean-5.tar.gz",
        "/resources/31/dev-clean-2.tar.gz",
    ]


def test_what_is_there_is_not_fetched_again(site: Site, tmp_path: Path) -> None:
    get(site, tmp_path)
    get(site, tmp_path)
    assert len(site.asked) == 1


def test_a_broken_connection_is_continued(site: Site, tmp_path: Path) -> None:
    site.break_after = [1_500_000, 1_000_000]
    get(site, tmp_path)
    assert_whole(tmp_path)
    assert [asked for _, asked in site.asked] == [None, "bytes=1500000-", "bytes=2500000-"]


def test_a_later_attempt_continues_an_earlier_one(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.break_after = [1_500_000]
    monkeypatch.setattr(http_file, "ATTEMPTS", 1)
    with pytest.raises(DownloadError, match=r"broke at 1500000 of .* 1500000 bytes are kept in"):
        get(site, tmp_path)
    get(site, tmp_path)
    assert_whole(tmp_path)
    assert site.asked[1][1] == "bytes=1500000-"


def test_a_file_that_changed_meanwhile_is_fetched_from_the_beginning(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_file, "ATTEMPTS", 1)
    site.content, site.break_after = b"x" * 2_000_000, [1_500_000]
    with pytest.raises(DownloadError, match="broke"):
        get(site, tmp_path)
    site.content, site.etag = pack(FILES), '"two"'
    get(site, tmp_path)
    assert_whole(tmp_path)


@pytest.mark.parametrize("lack", [{"ranges": False}, {"etag": None}, {"etag": 'W/"weak"'}])
def test_a_server_that_cannot_continue_starts_again(site: Site, tmp_path: Path, lack: dict) -> None:
    for name, value in lack.items():
        setattr(site, name, value)
    site.break_after = [1_500_000]
    get(site, tmp_path)
    assert_whole(tmp_path)
    assert len(site.asked) == 2


def test_a_download_killed_after_the_last_byte(site: Site, tmp_path: Path) -> None:
    part = tmp_path / f"{SUBSET}.tar.gz.part"
    part.write_bytes(site.content)
    url = f"{site.url}/31/{SUBSET}.tar.gz"
    (tmp_path / f"{part.name}.json").write_text(f'{{"url": "{url}", "validator": "\\"one\\""}}')
    get(site, tmp_path)
    assert_whole(tmp_path)
    assert len(site.asked) == 1


def test_a_part_longer_than_the_file_is_fetched_again(site: Site, tmp_path: Path) -> None:
    part = tmp_path / f"{SUBSET}.tar.gz.part"
    part.write_bytes(site.content + b"more")
    url = f"{site.url}/31/{SUBSET}.tar.gz"
    (tmp_path / f"{part.name}.json").write_text(f'{{"url": "{url}", "validator": "\\"one\\""}}')
    get(site, tmp_path)
    assert_whole(tmp_path)


def test_a_busy_server_is_asked_again(site: Site, tmp_path: Path) -> None:
    site.statuses = [503, 429, 500]
    get(site, tmp_path)
    assert_whole(tmp_path)


def test_patience_ends(site: Site, tmp_path: Path) -> None:
    site.statuses = [503] * 100
    with pytest.raises(DownloadError, match=r"answers 503 .*gave up after 6 attempts that brought hardly a byte"):
        get(site, tmp_path)
    assert len(site.asked) == 6


def test_a_server_that_always_breaks_at_the_same_place(site: Site, tmp_path: Path) -> None:
    site.ranges, site.break_after = False, [1_000_000] * 100
    with pytest.raises(DownloadError, match="gave up"):
        get(site, tmp_path)
    assert len(site.asked) == 6


def test_a_missing_file_is_not_asked_for_again(site: Site, tmp_path: Path) -> None:
    site.statuses = [404]
    with pytest.raises(DownloadError, match="the server answers 404"):
        get(site, tmp_path)
    assert len(site.asked) == 1


def test_a_wrong_checksum_deletes_the_archive(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=f"sha256 {checksum(site.content)[7:]}, expected 00ff: damaged"):
        get(site, tmp_path, "sha256:00ff")
    assert list(tmp_path.iterdir()) == []


def test_the_known_checksum_is_the_default(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=f"expected {ARCHIVES[SUBSET].checksum.split(':')[1]}"):
        download_librispeech(SUBSET, tmp_path, base_url=site.url)


@pytest.mark.parametrize("name", [f"LibriSpeech/{SUBSET}", f"{SUBSET}.tar.gz"])
def test_what_is_in_the_way_is_named_before_the_download(site: Site, tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).symlink_to("nowhere")
    with pytest.raises(DownloadError, match="is in the way"):
        get(site, tmp_path)
    assert not site.asked


def test_a_full_disk_is_noticed_before_the_download(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5_000_000))
    with pytest.raises(DownloadError, match=r"0\.0 GB needed to download and unpack, 0\.0 GB free"):
        get(site, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_wrong_requests(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="no subset 'dev-cleen'; expected one of mini, dev-clean, dev-other"):
        download_librispeech("dev-cleen", tmp_path)
    with pytest.raises(DownloadError, match="expected an address that begins with http"):
        download_librispeech(SUBSET, tmp_path, base_url="file:///etc")
    with pytest.raises(DownloadError, match="'crc32:1': expected 'sha256:DIGEST' or 'md5:DIGEST'"):
        download_librispeech(SUBSET, tmp_path, checksum="crc32:1")


def test_a_second_download_of_a_file_is_refused_and_the_first_kept(site: Site, tmp_path: Path) -> None:
    part = tmp_path / "dev-clean-2.tar.gz.part"
    part.write_bytes(b"begun by another")
    with part.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DownloadError, match=r"\.part: another download is writing this file; wait for it"):
            fetch(f"{site.url}/31/dev-clean-2.tar.gz", tmp_path / "dev-clean-2.tar.gz")
    assert part.read_bytes() == b"begun by another"


def test_a_link_in_the_parts_place_is_not_written_through(site: Site, tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"kept")
    (tmp_path / "dev-clean-2.tar.gz.part").symlink_to("precious")
    with pytest.raises(DownloadError, match=r"\.part: cannot be written"):
        fetch(f"{site.url}/31/dev-clean-2.tar.gz", tmp_path / "dev-clean-2.tar.gz")
    assert (tmp_path / "precious").read_bytes() == b"kept"


def test_a_subset_that_another_program_left_half_there_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "LibriSpeech" / SUBSET
    (folder / "19").mkdir(parents=True)
    (folder / "19" / "19-7-0000.flac").write_bytes(NOISE[:9])
    with pytest.raises(DownloadError, match=rf"{SUBSET}: 1 recordings, expected 1089: the subset is not whole; delete"):
        download_librispeech(SUBSET, tmp_path)
    for number in range(1089):
        (folder / "19" / f"{number}.FLAC").touch()
    assert download_librispeech(SUBSET, tmp_path) == folder
