"""A server of one small subset of LibriSpeech, in this process: it breaks, changes and refuses as it is told to."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

from lhuc_asr.corpus.download import download_librispeech

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


@contextmanager
def serving() -> Iterator[Site]:
    """A context with the server running."""
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
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def get(site: Site, folder: Path, expected: str | None = None) -> Path:
    return download_librispeech(SUBSET, folder, base_url=site.url, checksum=expected or checksum(site.content))


def assert_whole(folder: Path) -> None:
    contents = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert contents == FILES
