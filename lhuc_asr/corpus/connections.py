"""HTTP connections that lead where they were told to, and that end when they bring hardly a byte."""

from __future__ import annotations

import http.client
import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from lhuc_asr.base.errors import DownloadError
from lhuc_asr.base.foreign import one_line

# One wait for the network, such as for a connection or for the next bytes.
TIMEOUT_SECONDS = 60.0

# A connection that brings fewer bytes in this time is ended, whatever it waits for, such as the rest of a header.
SLOW_SECONDS = 60.0
LEAST_BYTES = 1 << 16

MOST_REDIRECTS = 10
REDIRECTS = {
    HTTPStatus.MOVED_PERMANENTLY,
    HTTPStatus.FOUND,
    HTTPStatus.SEE_OTHER,
    HTTPStatus.TEMPORARY_REDIRECT,
    HTTPStatus.PERMANENT_REDIRECT,
}


class Opener:
    """Opens addresses over HTTP and HTTPS, through the proxies of the environment; an answer's status is not judged.

    Redirects are followed, but not to another scheme, nor from https to http. All calls but ``end`` come from one
    thread.
    """

    def __init__(self) -> None:
        self._director = urllib.request.OpenerDirector()
        for handler in (urllib.request.ProxyHandler(), urllib.request.UnknownHandler(), _Http(self), _Https(self)):
            self._director.add_handler(handler)
        self.socket: socket.socket | None = None

    def open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        """The answer to a request, after redirects.

        Raises:
            DownloadError: A redirect leads elsewhere, or there are too many.
            Exception: Whatever urllib and http.client raise, among them OSError and HTTPException.
        """
        for _ in range(MOST_REDIRECTS + 1):
            answer: http.client.HTTPResponse = self._director.open(request, timeout=TIMEOUT_SECONDS)
            location = answer.headers.get("Location")
            if answer.status not in REDIRECTS or location is None:
                return answer
            answer.close()
            request = _redirected(request, location)
        raise DownloadError(f"{one_line(request.full_url)}: more than {MOST_REDIRECTS} redirects; use another mirror")

    def end(self) -> None:
        """End the connection, from another thread: what waits for it goes on at once."""
        if self.socket is not None:
            with suppress(OSError):  # it has ended by itself
                # Not the method of an SSLSocket, which would take the encryption from under the thread that reads.
                socket.socket.shutdown(self.socket, socket.SHUT_RDWR)


class Watch:
    """Looks whether a connection brings bytes.

    Attributes:
        bytes: Number of bytes that came.
        has_ended_it: Whether there were too few.
    """

    def __init__(self, opener: Opener) -> None:
        self.bytes = 0
        self.has_ended_it = False
        self._opener = opener
        self._stopped = threading.Event()

    def look(self) -> None:
        """Look from time to time until ``stop`` is called."""
        seen = 0
        while not self._stopped.wait(SLOW_SECONDS):
            if self.bytes - seen < LEAST_BYTES:
                self.has_ended_it = True
                self._opener.end()
            seen = self.bytes

    def stop(self) -> None:
        """Let ``look`` return."""
        self._stopped.set()


@contextmanager
def watched(opener: Opener) -> Iterator[Watch]:
    """End the connections of an opener that bring too few bytes while the block runs; the block counts them."""
    watch = Watch(opener)
    thread = threading.Thread(target=watch.look, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        watch.stop()
        thread.join()


def _redirected(request: urllib.request.Request, location: str) -> urllib.request.Request:
    """The request for the address that an answer leads to."""
    # Some servers send blanks and letters that are not ASCII; an address has them encoded.
    target = urljoin(request.full_url, quote(location, safe="%/:=&?~#+!$,;'@()*[]", encoding="latin-1"))
    before, after = urlsplit(request.full_url).scheme, urlsplit(target).scheme
    if after not in ("http", "https") or (before == "https" and after == "http"):
        raise DownloadError(
            f"{one_line(request.full_url)}: the server leads to {one_line(target)}, from {before} to {after}; "
            "use another mirror"
        )
    return urllib.request.Request(target, headers=request.headers)


class _Connection(http.client.HTTPConnection):
    """A connection that tells its opener the socket, which urllib hides."""

    opener: Opener

    def connect(self) -> None:
        super().connect()
        self.opener.socket = self.sock


class _SecureConnection(http.client.HTTPSConnection):
    opener: Opener

    def connect(self) -> None:
        super().connect()
        self.opener.socket = self.sock


class _Http(urllib.request.HTTPHandler):
    def __init__(self, opener: Opener) -> None:
        super().__init__()
        self._opener = opener

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_with_opener(_Connection, self._opener), req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, opener: Opener) -> None:
        super().__init__()
        self._opener = opener

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_with_opener(_SecureConnection, self._opener), req)


def _with_opener(kind: type[_Connection] | type[_SecureConnection], opener: Opener) -> Any:
    def connection(*arguments: Any, **options: Any) -> http.client.HTTPConnection:
        made = kind(*arguments, **options)
        made.opener = opener
        return made

    return connection
