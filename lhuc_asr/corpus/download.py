"""Download of LibriSpeech and mini LibriSpeech from OpenSLR: resumed, verified, unpacked whole or not at all.

The archive is written to ``<subset>.tar.gz.part``, with the server's validator (ETag or date) beside it, so that a
later attempt continues the same file and never joins parts of two files (RFC 9110, sections 13 and 14).
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import logging
import os
import re
import shutil
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from lhuc_asr.base.atomic import atomic_folder, atomic_path, read_json, write_json
from lhuc_asr.base.errors import DownloadError, LhucError
from lhuc_asr.base.runlog import progress

logger = logging.getLogger(__name__)

OPENSLR = "https://www.openslr.org/resources"

BLOCK_BYTES = 1 << 20
TIMEOUT_SECONDS = 60.0

# Attempts in a row without a new byte; an attempt that brings some starts the count again.
ATTEMPTS = 6
FIRST_WAIT_SECONDS = 1.0

# FLAC cannot be compressed further: an unpacked subset is hardly larger than its archive.
UNPACKED_PER_ARCHIVE_BYTE = 1.1

BROKEN = (ConnectionError, TimeoutError, http.client.HTTPException, urllib.error.URLError)


@dataclass(frozen=True, slots=True)
class Archive:
    """The archive of a subset.

    Attributes:
        resource: Number of the corpus at OpenSLR: 12 is LibriSpeech, 31 is mini LibriSpeech.
        checksum: Algorithm and hexadecimal digest, "sha256:..." or "md5:...".
    """

    resource: int
    checksum: str


# The SHA-256 sums are those of torchaudio 2.11 (datasets.librispeech), which has none for mini LibriSpeech. Its MD5
# sums are those on which several public preparation scripts agree, such as that of DeepSpeech.
ARCHIVES = {
    "dev-clean": Archive(12, "sha256:76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3"),
    "dev-other": Archive(12, "sha256:12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365"),
    "test-clean": Archive(12, "sha256:39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23"),
    "test-other": Archive(12, "sha256:d09c181bba5cf717b3dee7d4d592af11a3ee3a09e08ae025c5506f6ebe961c29"),
    "train-clean-100": Archive(12, "sha256:d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2"),
    "train-clean-360": Archive(12, "sha256:146a56496217e96c14334a160df97fffedd6e0a04e66b9c5af0d40be3c792ecf"),
    "train-other-500": Archive(12, "sha256:ddb22f27f96ec163645d53215559df6aa36515f26e01dd70798188350adcb6d2"),
    "dev-clean-2": Archive(31, "md5:6d7ab67ac6a1d2c993d050e16d61080d"),
    "train-clean-5": Archive(31, "md5:5df7d4e78065366204ca6845bb08f490"),
}


def download_librispeech(subset: str, folder: Path, *, base_url: str = OPENSLR, checksum: str | None = None) -> Path:
    """Download and unpack one subset; an existing one is left as it is.

    Args:
        subset: A key of ``ARCHIVES``; "dev-clean-2" and "train-clean-5" are mini LibriSpeech.
        folder: Folder for ``LibriSpeech/<subset>`` and the tables of the corpus (SPEAKERS.TXT).
        base_url: Address of the ``resources`` folder of OpenSLR or of a mirror.
        checksum: Checksum in place of the known one, for a mirror that packs its own archives.

    Returns:
        The subset's folder.

    Raises:
        DownloadError: The subset is unknown, the disk is too small, the download fails for good, or the archive has
            another checksum.
    """
    if subset not in ARCHIVES:
        raise DownloadError(f"LibriSpeech has no subset {subset!r}; expected one of {', '.join(ARCHIVES)}")
    destination = folder / "LibriSpeech" / subset
    algorithm, _, digest = (checksum or ARCHIVES[subset].checksum).partition(":")
    if algorithm not in ("md5", "sha256") or not digest:
        raise DownloadError(f"checksum {checksum!r}: expected 'sha256:DIGEST' or 'md5:DIGEST'")
    if destination.is_dir():
        logger.info("%s is there already", destination)
        return destination
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / f"{subset}.tar.gz"
    url = f"{base_url.rstrip('/')}/{ARCHIVES[subset].resource}/{archive.name}"
    if not archive.exists():
        fetch(url, archive)
    _verify(archive, algorithm, digest, url)
    _unpack(archive, destination)
    archive.unlink()
    return destination


def fetch(url: str, path: Path) -> None:
    """Download a file over HTTP, continuing what an earlier attempt left in ``<path>.part``.

    Raises:
        DownloadError: The disk is too small, the server refuses, or the connection breaks again and again.
    """
    if not url.startswith(("http://", "https://")):
        raise DownloadError(f"{url}: expected an address that begins with http:// or https://")
    part = path.with_name(path.name + ".part")
    with _alone(part):
        _fetch_part(url, part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
        _validator_path(part).unlink(missing_ok=True)


@contextmanager
def _alone(part: Path) -> Iterator[None]:
    """Keep other downloads out of the part, whose name is the same for all of them so that it can be continued.

    Raises:
        DownloadError: Another download writes to it, or it is a link, which would lead the download elsewhere.
    """
    try:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise DownloadError(
            f"{part}: cannot be written ({error.strerror}); delete it, or choose another folder"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise DownloadError(f"{part}: another download is writing this file; wait for it") from error
    else:
        yield
    finally:
        if os.fstat(descriptor).st_size == 0:
            part.unlink(missing_ok=True)
        os.close(descriptor)


def _fetch_part(url: str, part: Path) -> None:
    """Download until the part is whole; attempts that fail are repeated."""
    failures, farthest = 0, _size(part)
    while True:
        try:
            _continue(url, part)
            return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code < 500 and error.code != HTTPStatus.TOO_MANY_REQUESTS:
                raise DownloadError(f"{url}: the server answers {error.code} {error.reason}") from error
            reason = f"the server answers {error.code} {error.reason}"
        except BROKEN as error:
            reason = str(error) or type(error).__name__
        failures = 1 if _size(part) > farthest else failures + 1
        farthest = max(farthest, _size(part))
        if failures == ATTEMPTS:
            raise DownloadError(
                f"{url}: {reason}; gave up after {ATTEMPTS} attempts without a new byte. "
                f"{_size(part)} bytes are kept in {part}: the same command continues from there"
            )
        wait = FIRST_WAIT_SECONDS * 2 ** (failures - 1)
        logger.warning("%s: %s; trying again in %g s", url, reason, wait)
        time.sleep(wait)


def _continue(url: str, part: Path) -> None:
    """One attempt: request the missing bytes and append them.

    Raises:
        ConnectionError: The connection ended before the file did.
    """
    offset = _size(part)
    request = urllib.request.Request(url)
    if offset and (validator := _saved_validator(part, url)):
        request.add_header("Range", f"bytes={offset}-")
        request.add_header("If-Range", validator)
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        error.close()
        if error.headers.get("Content-Range") == f"bytes */{offset}":
            return  # killed after the last byte: it is all there
        os.truncate(part, 0)
        raise ConnectionError("the part on disk does not fit the server's file, and was emptied") from error
    with response:
        resumed = response.status == HTTPStatus.PARTIAL_CONTENT
        if not resumed:
            offset = 0  # the server does not know ranges, or its file has changed: from the beginning
        total = _total_bytes(response, offset if resumed else None)
        _require_space(part.parent, total, offset)
        validator = _validator(response)
        with part.open("ab" if resumed else "wb") as file:
            # Only now that the old bytes are gone may the new validator vouch for the part.
            if validator:
                write_json(_validator_path(part), {"url": url, "validator": validator})
            else:
                _validator_path(part).unlink(missing_ok=True)
            count = None if total is None else -(-(total - offset) // BLOCK_BYTES)
            for block in progress(_blocks(response), f"{part.stem} (MiB)", total=count):
                file.write(block)
    if total is not None and _size(part) != total:
        raise ConnectionError(f"the connection broke at {_size(part)} of {total} bytes")


def _blocks(response: BinaryIO) -> Iterator[bytes]:
    while block := response.read(BLOCK_BYTES):
        yield block


def _total_bytes(response: http.client.HTTPResponse, offset: int | None) -> int | None:
    """Length of the whole file, if the server gives it; ``offset`` is None unless it sends only the rest."""
    if offset is None:
        length = response.headers.get("Content-Length")
        return None if length is None else int(length)
    content_range = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", content_range)
    if match is None or int(match[1]) != offset:
        raise DownloadError(
            f"{response.url}: asked for bytes from {offset} on, got {content_range!r}; use another mirror"
        )
    return int(match[3])


def _validator(response: http.client.HTTPResponse) -> str | None:
    """What identifies this version of the file: a strong ETag, else its date (a weak ETag may not be used for this)."""
    etag = response.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _validator_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _saved_validator(part: Path, url: str) -> str | None:
    path = _validator_path(part)
    saved = read_json(path) if path.exists() else {}
    return saved["validator"] if saved.get("url") == url else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _require_space(folder: Path, total: int | None, present: int) -> None:
    """Refuse at once a download that would fill the disk hours later."""
    if total is None:
        return
    needed = total - present + round(UNPACKED_PER_ARCHIVE_BYTE * total)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DownloadError(
            f"{folder}: {needed / 1e9:.1f} GB needed to download and unpack, {free / 1e9:.1f} GB free; "
            "choose another folder or a smaller subset"
        )


def _verify(archive: Path, algorithm: str, expected: str, url: str) -> None:
    """Check the digest of the archive; a wrong archive is deleted, since continuing the download would not mend it."""
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, algorithm).hexdigest()
    if digest != expected.lower():
        archive.unlink()
        raise DownloadError(
            f"{url}: {algorithm} {digest}, expected {expected}: damaged on the way or another file; "
            "it was deleted, download it again"
        )


def _unpack(archive: Path, destination: Path) -> None:
    """Unpack ``LibriSpeech/<subset>/...`` to ``destination``, and the files beside the subset next to it."""
    try:
        with tarfile.open(archive, "r:gz") as tar, atomic_folder(destination) as temporary:
            for member in progress(tar, f"unpacking {archive.name} (files)"):
                path = _safe_path(member, archive)
                if path.parts[:2] == ("LibriSpeech", destination.name):
                    inner = member.replace(name=str(PurePosixPath(*path.parts[2:])))
                    tar.extract(inner, temporary, filter="data")
                elif path.parts[:-1] == ("LibriSpeech",) and (table := tar.extractfile(member)):
                    with atomic_path(destination.parent / path.name) as target:
                        target.write_bytes(table.read())
                elif path.parts != ("LibriSpeech",):
                    raise DownloadError(f"{archive}: {member.name!r} does not belong to LibriSpeech/{destination.name}")
            if not any(temporary.iterdir()):
                raise DownloadError(f"{archive}: holds no LibriSpeech/{destination.name}")
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        if isinstance(error, LhucError):
            raise
        raise DownloadError(f"{archive}: cannot be unpacked ({error}); delete it to fetch it again") from error


def _safe_path(member: tarfile.TarInfo, archive: Path) -> PurePosixPath:
    """The path of a member, refused if it leaves the folder or is neither a file nor a folder.

    The data filter of tarfile would make an absolute path relative; here it is a sign of a hostile archive.
    """
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or not (member.isfile() or member.isdir()):
        raise DownloadError(f"{archive}: {member.name!r} is a link or leads out of the archive; delete the archive")
    return path
