"""A file fetched over HTTP, in as many attempts as it takes; what each brings is kept.

The file is written to ``<name>.part``, with the server's validator (ETag or date) beside it, so that a later attempt
continues the same file and never joins parts of two files (RFC 9110, sections 13 and 14). Nothing that a server says is
believed before it is checked, and a server that cannot be believed does not touch the part.
"""

from __future__ import annotations

import http.client
import logging
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import IO

from lhuc_asr.base.atomic import DamagedFileError, read_json, write_json
from lhuc_asr.base.descriptor_lock import lock_descriptor, open_to_lock
from lhuc_asr.base.errors import DownloadError, LhucError
from lhuc_asr.base.foreign import one_line, reason_of
from lhuc_asr.base.outputs import named
from lhuc_asr.base.runlog import progress
from lhuc_asr.corpus.connections import LEAST_BYTES, SLOW_SECONDS, Opener, Watch, watched

logger = logging.getLogger(__name__)

BLOCK_BYTES = 1 << 20

# Attempts in a row that brought less than LEAST_BYTES; one that brings more starts the count again.
ATTEMPTS = 6
FIRST_WAIT_SECONDS = 1.0

# Answers that waiting may mend, besides the server's own errors from 500 on.
BUSY = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
PAGES = re.compile(r"text/html|\S+[/+](xml|json)", re.I)
ANOTHER = "use another mirror"


class Broken(Exception):
    """An attempt failed in a way that another attempt may mend."""


@dataclass(frozen=True, slots=True)
class _Body:
    """What a server says of the bytes that it is about to send.

    Attributes:
        offset: Place in the file of the first byte.
        total: Length of the whole file, None if the server does not say.
        validator: What identifies this version of the file: a strong ETag, else its date.
    """

    offset: int
    total: int | None
    validator: str | None


def fetch(url: str, path: Path, unpacked: float = 0.0) -> None:
    """Download a file over HTTP, continuing what an earlier attempt left in ``<path>.part``.

    Args:
        url: Address of the file.
        path: The file.
        unpacked: Space that must be left over afterwards, as a multiple of the file's length.

    Raises:
        DownloadError: The server refuses, sends something else than the file, leads elsewhere, or brings hardly a byte
            in several attempts.
        OutputError: The part cannot be written, as where the disk is full; it is kept.
    """
    if not url.startswith(("http://", "https://")):
        raise DownloadError(f"{url}: expected an address that begins with http:// or https://")
    part = path.with_name(path.name + ".part")
    with _alone(part):
        _fetch_part(url, part, unpacked)
        with named(part), part.open("rb") as file:
            os.fsync(file.fileno())
        with named(path):
            part.replace(path)
            _validator_path(part).unlink(missing_ok=True)


@contextmanager
def _alone(part: Path) -> Iterator[None]:
    """Keep other downloads out of the part, whose name is the same for all of them so that it can be continued.

    Raises:
        DownloadError: Another download writes to it, or it is a link, which would lead the download elsewhere.
    """
    try:
        descriptor = open_to_lock(part, 0o666)
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        raise DownloadError(
            f"{part}: cannot be written ({reason_of(error)}); delete it, or choose another folder"
        ) from error
    try:
        lock_descriptor(descriptor, wait=False)
    except BlockingIOError as error:
        raise DownloadError(f"{part}: another download is writing this file; wait for it") from error
    else:
        yield
    finally:
        if os.fstat(descriptor).st_size == 0:
            part.unlink(missing_ok=True)
        os.close(descriptor)


def _fetch_part(url: str, part: Path, unpacked: float) -> None:
    """Download until the part is whole; attempts that fail are repeated."""
    failures, farthest = 0, _size(part)
    while True:
        try:
            _attempt(url, part, unpacked)
            return
        except Broken as error:
            reason = str(error)
        failures = 1 if _size(part) >= farthest + LEAST_BYTES else failures + 1
        farthest = max(farthest, _size(part))
        if failures == ATTEMPTS:
            raise DownloadError(
                f"{url}: {reason}; gave up after {ATTEMPTS} attempts that brought hardly a byte. "
                f"{_size(part)} bytes are kept in {part}: the same command continues from there"
            )
        wait = FIRST_WAIT_SECONDS * 2 ** (failures - 1)
        logger.warning("%s: %s; trying again in %g s", url, reason, wait)
        time.sleep(wait)


def _attempt(url: str, part: Path, unpacked: float) -> None:
    """Request the missing bytes and append them.

    Raises:
        Broken: The connection failed or ended before the file did, or the server is busy.
    """
    opener, offset = Opener(), _size(part)
    with watched(opener) as watch:
        validator = _saved_validator(part, url) if offset else None
        answer = _opened(opener, watch, url, offset, validator)
        if validator and answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            answer.close()
            if answer.headers.get("Content-Range") == f"bytes */{offset}":
                return  # killed after the last byte: it is all there
            # The part is longer than the server's file, or as long. The whole file's length tells.
            answer = _opened(opener, watch, url, offset, None)
        with answer:
            body = _checked(answer, url, offset if answer.status == HTTPStatus.PARTIAL_CONTENT else 0)
            if validator and (validator, offset) == (body.validator, body.total):
                return
            _require_space(part, body, unpacked)
            count = None if body.total is None else -(-(body.total - body.offset) // BLOCK_BYTES)
            _write(part, url, body, progress(_blocks(answer, watch), f"{part.stem} (MiB)", total=count))
    if body.total is not None and _size(part) != body.total:
        raise Broken(f"the connection broke at {_size(part)} of {body.total} bytes")


def _require_space(part: Path, body: _Body, unpacked: float) -> None:
    """Refuse at once a download that would fill the disk hours later."""
    if body.total is None:
        return
    needed = body.total - body.offset + round(unpacked * body.total)
    with named(part):
        free = shutil.disk_usage(part.parent).free
    if free < needed:
        raise DownloadError(
            f"{part.parent}: {needed / 1e9:.1f} GB needed to download and unpack, {free / 1e9:.1f} GB free; "
            "choose another folder or a smaller file"
        )


def _write(part: Path, url: str, body: _Body, blocks: Iterator[bytes]) -> None:
    """Put the body in its place in the part."""
    position = body.offset
    with named(part):
        file = part.open("ab" if position else "wb", buffering=0)
    with file:
        # Only now that the old bytes are gone may the new validator vouch for the part.
        if body.validator:
            write_json(_validator_path(part), {"url": url, "validator": body.validator})
        else:
            with named(part):
                _validator_path(part).unlink(missing_ok=True)
        for block in blocks:
            position += len(block)
            if body.total is not None and position > body.total:
                file.truncate(0)
                raise DownloadError(f"{url}: the server sends more than the {body.total} bytes it announced; {ANOTHER}")
            _append(part, file, block)


def _append(part: Path, file: IO[bytes], block: bytes) -> None:
    with named(part):
        rest = memoryview(block)
        while rest:
            rest = rest[file.write(rest) :]


def _blocks(answer: http.client.HTTPResponse, watch: Watch) -> Iterator[bytes]:
    """The body in blocks; what came before a connection broke is a block too."""
    ended, failure = False, None
    while not ended and failure is None:
        block = bytearray()
        try:
            while len(block) < BLOCK_BYTES and not ended:
                piece = answer.read1(BLOCK_BYTES - len(block))
                watch.bytes += len(piece)
                ended = not piece
                block += piece
        except Exception as error:  # http.client raises many kinds over what a server sends
            failure = error
        if block:
            yield bytes(block)
    if watch.has_ended_it:
        raise Broken(f"fewer than {LEAST_BYTES} bytes came in {SLOW_SECONDS:g} s")
    if failure is not None:
        raise Broken(reason_of(failure)) from failure


def _opened(opener: Opener, watch: Watch, url: str, offset: int, validator: str | None) -> http.client.HTTPResponse:
    """The server's answer: 200, 206 or 416.

    Raises:
        Broken: The server cannot be reached now.
        DownloadError: It refuses, or cannot be reached by this address at all.
    """
    try:
        request = urllib.request.Request(url)
        if validator:
            request.add_header("Range", f"bytes={offset}-")
            request.add_header("If-Range", validator)
        answer = opener.open(request)
    except LhucError:
        raise
    except Exception as error:  # urllib and http.client raise many kinds over addresses, proxies and answers
        # urllib wraps some errors of the system in its own.
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        if watch.has_ended_it:
            raise Broken(f"the answer did not come in {SLOW_SECONDS:g} s") from error
        if isinstance(cause, OSError) and not isinstance(cause, ssl.SSLCertVerificationError):
            raise Broken(one_line(str(cause)) or type(cause).__name__) from error
        if isinstance(error, http.client.HTTPException) and not isinstance(error, http.client.InvalidURL):
            raise Broken(reason_of(error)) from error
        reason = one_line(str(cause)) or type(cause).__name__
        raise DownloadError(
            f"{one_line(url)}: cannot be reached ({reason}); check the address, the proxy (http_proxy, https_proxy) "
            "and the certificates"
        ) from error
    if answer.status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE):
        return answer
    answer.close()
    said = f"the server answers {answer.status} {one_line(answer.reason or '')}".rstrip()
    if answer.status >= 500 or answer.status in BUSY:
        raise Broken(said)
    raise DownloadError(f"{url}: {said}; check the address, or {ANOTHER}")


def _checked(answer: http.client.HTTPResponse, url: str, offset: int) -> _Body:
    """What the server says of the body, if it can be the file.

    Args:
        answer: The answer, before its body is read.
        url: Address that was asked for.
        offset: Place of the first byte that an answer with a part of the file must have.

    Raises:
        DownloadError: It is a page in place of the file, in another coding, of an impossible length, or another part.
    """
    headers = answer.headers
    if answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        raise DownloadError(f"{url}: the server answers 416 to a request for the whole file; {ANOTHER}")
    if PAGES.match(page := headers.get("Content-Type", "")):
        raise DownloadError(
            f"{url}: the server sends a page ({one_line(page)}) in place of the file, perhaps a proxy's or a login's; "
            f"open the address in a browser, or {ANOTHER}"
        )
    # "gzip" is what some servers say of a .gz file as it is. The checksum tells if it is packed once more.
    coding = headers.get("Content-Encoding", "").strip().lower()
    if coding not in ("", "identity", "gzip", "x-gzip"):
        raise DownloadError(f"{url}: the server sends the file in the coding {one_line(coding)!r}; {ANOTHER}")
    if answer.status == HTTPStatus.PARTIAL_CONTENT:
        total = _total_of_range(headers.get("Content-Range", ""), url, offset)
    else:
        total = None if answer.chunked else _length(headers.get_all("Content-Length", []), url)
    return _Body(offset, total, _validator(answer))


def _length(lengths: list[str], url: str) -> int | None:
    """Length of the body, None if it is not given."""
    values = {value.strip() for text in lengths for value in text.split(",")}
    if len(values) > 1 or not all(re.fullmatch(r"[0-9]{1,18}", value) for value in values):
        shown = one_line(", ".join(lengths))
        raise DownloadError(f"{url}: the server gives the length {shown!r}, expected a number of bytes; {ANOTHER}")
    return int(values.pop()) if values else None


def _total_of_range(content_range: str, url: str, offset: int) -> int | None:
    """Length of the whole file, by an answer with the rest of it; None if it is not given."""
    match = re.fullmatch(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", content_range.strip())
    if match is not None:
        first, last, total = int(match[1]), int(match[2]), None if match[3] == "*" else int(match[3])
        if first == offset <= last and (total is None or last < total):
            return total
    raise DownloadError(f"{url}: asked for bytes from {offset} on, got {one_line(content_range)!r}; {ANOTHER}")


def _validator(answer: http.client.HTTPResponse) -> str | None:
    """A strong ETag, else the date (a weak ETag may not be used for this)."""
    etag = answer.headers.get("ETag")
    validator = etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified")
    # It is sent back in a header, which cannot hold a line break.
    return validator if validator and validator.isascii() and validator.isprintable() else None


def _validator_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _saved_validator(part: Path, url: str) -> str | None:
    """The validator of the part, None if there is not a usable one: the download then starts again."""
    saved = None
    with suppress(DamagedFileError, OSError):
        saved = read_json(_validator_path(part))
    validator = saved.get("validator") if isinstance(saved, dict) and saved.get("url") == url else None
    usable = isinstance(validator, str) and validator.isascii() and validator.isprintable()
    return validator if usable else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
