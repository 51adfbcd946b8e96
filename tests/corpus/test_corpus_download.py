"""Downloads from a server in this process: broken, changed, hostile and full disks included."""

import errno
import fcntl
import gzip
import hashlib
import io
import os
import re
import shutil
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lhuc_asr.base.errors import DownloadError, OutputError
from lhuc_asr.corpus import download as corpus_download
from lhuc_asr.corpus import http_file
from lhuc_asr.corpus.download import ARCHIVES, download_librispeech, download_subsets
from lhuc_asr.corpus.http_file import fetch

SUBSET = "dev-clean-2"
NOISE = np.random.default_rng(0).bytes(3_000_000)  # larger than a block, and gzip cannot shrink it
FILES = {
    "LibriSpeech/SPEAKERS.TXT": b"; readers\n",
    f"LibriSpeech/{SUBSET}/19/7/19-7.trans.txt": b"19-7-0000 WORD\n",
    f"LibriSpeech/{SUBSET}/19/7/19-7-0000.flac": NOISE,
}


def pack(files: dict[str, bytes], *members: tarfile.TarInfo) -> bytes:
    """A .tar.gz of ``files``, with their folders as OpenSLR's have them, and of bare members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        folders = dict.fromkeys(str(parent) for name in files for parent in [*Path(name).parents][-2::-1])
        for name in folders:
            folder = tarfile.TarInfo(name)
            folder.type = tarfile.DIRTYPE
            tar.addfile(folder)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for member in members:
            tar.addfile(member)
    return buffer.getvalue()


def checksum(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


@dataclass
class Site:
    """What the server does, and what it was asked."""

    content: bytes
    etag: str | None = '"one"'
    ranges: bool = True
    break_after: list[int] = field(default_factory=list)  # bytes sent before each of the first answers breaks
    statuses: list[int] = field(default_factory=list)  # errors before the first answer
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    others: dict[str, bytes] = field(default_factory=dict)  # files of other paths
    url: str = ""


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    site = Site(pack(FILES))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            site.asked.append((self.path, asked))
            if site.statuses:
                self.send_error(site.statuses.pop(0))
                return
            fits = site.ranges and self.headers.get("If-Range") == site.etag
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and fits else 0
            content = site.others.get(self.path, site.content)
            size = len(content)
            if start and start >= size:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{size}")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
            self.send_header("Content-Length", str(size - start))
            if site.etag:
                self.send_header("ETag", site.etag)
            self.end_headers()
            body = content[start:]
            self.wfile.write(body[: site.break_after.pop(0)] if site.break_after else body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}/resources"
    monkeypatch.setattr(http_file, "FIRST_WAIT_SECONDS", 0.001)
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


def get(site: Site, folder: Path, expected: str | None = None) -> Path:
    return download_librispeech(SUBSET, folder, base_url=site.url, checksum=expected or checksum(site.content))


def assert_whole(folder: Path) -> None:
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == FILES


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


@pytest.mark.parametrize("name", [f"LibriSpeech/{SUBSET}", f"{SUBSET}.tar.gz"])
def test_what_is_in_the_way_is_named_before_the_download(site: Site, tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).symlink_to("nowhere")
    with pytest.raises(DownloadError, match="is in the way"):
        get(site, tmp_path)
    assert not site.asked


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
