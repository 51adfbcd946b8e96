"""The enrolment page's server: on the loopback address, for whoever has the token, from its own page alone.

    /TOKEN/             the page
    /TOKEN/FILE         its style and scripts
    /TOKEN/session      a WebSocket: one tab (enrol_session.py)

Everything else, a wrong token, another host's name (as after a DNS rebinding) and another origin get the same answer:
there is nothing here.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import secrets
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import jinja2

from lhuc_asr.base.destinations import shown
from lhuc_asr.base.errors import LhucError
from lhuc_asr.base.extras import extra
from lhuc_asr.recognizer.recognizer import Recognizer
from lhuc_asr.web.enrol_messages import MOST_MESSAGE_BYTES
from lhuc_asr.web.enrol_session import House, Session

with extra("enrol"):
    import uvicorn
    from anyio import CapacityLimiter, Lock, WouldBlock
    from starlette.applications import Starlette
    from starlette.datastructures import Headers
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route, WebSocketRoute
    from starlette.types import ASGIApp, Receive, Scope, Send
    from starlette.websockets import WebSocket
    from uvicorn.protocols.http.h11_impl import H11Protocol

LOOPBACK = "127.0.0.1"
# Tabs at a time; each may hold ten megabytes of sound.
MOST_TABS = 16
# Connections at a time, tabs among them.
MOST_CONNECTIONS = 64
# Seconds in which a connection has to ask for something.
REQUEST_SECONDS = 10.0
# Seconds that tabs have to end when the server is told to.
ENDING_SECONDS = 2
TOKEN_BYTES = 24
HTTP_PORT = 80
# To a model that knows fewer words nobody can speak about anything.
FREE_SPEECH_WORDS = 5_000

# The page's own files alone, and a WebSocket to this server; the page is in no frame and tells nobody its address.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
TYPES = {"css": "text/css", "js": "text/javascript"}
SERVED = ("common.css", "enrol.css", "enrol.js", "microphone.js")


@dataclass(frozen=True)
class Address:
    """Where the page is.

    Attributes:
        port: The port.
        token: What the address has to name.
    """

    port: int
    token: str

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{LOOPBACK}:{self.port}/{self.token}/"

    @property
    def hosts(self) -> tuple[str, ...]:
        """What a browser may call this server."""
        names = (LOOPBACK, "localhost")
        ported = tuple(f"{name}:{self.port}" for name in names)
        return ported + (names if self.port == HTTP_PORT else ())  # which a browser leaves out


def serve(
    recognizer: Recognizer,
    sentences: Sequence[tuple[str, ...]],
    folder: Path,
    port: int = 0,
    ready: Callable[[Address], None] = lambda address: None,
) -> None:
    """Serve the page until the process is told to end.

    Args:
        recognizer: The recognizer.
        sentences: What is read, each as the model's words.
        folder: Folder of what persons keep.
        port: The port; 0 for any that is free.
        ready: Called with the address when the page can be opened.

    Raises:
        LhucError: The port is taken.
    """
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((LOOPBACK, port))
        except OSError as error:
            raise LhucError(
                f"--port {port}: cannot be used ({error.strerror}); choose another, or leave it out"
            ) from error
        listening.listen()
        address = Address(listening.getsockname()[1], secrets.token_urlsafe(TOKEN_BYTES))
        server = uvicorn.Server(
            uvicorn.Config(
                application(recognizer, sentences, folder, address),
                log_config=None,
                access_log=False,  # it would name the token
                lifespan="off",
                ws="websockets-sansio",
                ws_max_size=MOST_MESSAGE_BYTES,
                ws_per_message_deflate=False,
                ws_ping_interval=None,  # an answer would wait behind the sound of a computer that is slow
                http=Impatient,
                limit_concurrency=MOST_CONNECTIONS,
                timeout_graceful_shutdown=ENDING_SECONDS,
                proxy_headers=False,
                server_header=False,
            )
        )
        ready(address)
        server.run([listening])


def application(
    recognizer: Recognizer, sentences: Sequence[tuple[str, ...]], folder: Path, address: Address
) -> ASGIApp:
    """The page's server as an application; arguments as for ``serve``."""
    cores = os.cpu_count() or 1
    house = House(
        recognizer, sentences, folder, CapacityLimiter(cores), CapacityLimiter(2 * MOST_TABS), threading.Lock(), Lock()
    )
    tabs = CapacityLimiter(MOST_TABS)
    templates = files("lhuc_asr.web") / "templates"
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    html = environment.from_string((templates / "enrol.html.j2").read_text("utf-8")).render(
        model=recognizer.description.experiment,
        words=len(recognizer.vocabulary),
        folder=shown(folder),
        example=" ".join(sentences[0]).lower() if len(recognizer.vocabulary) < FREE_SPEECH_WORDS else "",
    )

    async def page(_: Request) -> Response:
        return Response(html, media_type="text/html", headers=HEADERS)

    async def part(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in SERVED:
            return _nothing()
        content = (templates / name).read_bytes()
        return Response(content, media_type=TYPES[name.rpartition(".")[2]], headers=HEADERS)

    async def session(connection: WebSocket) -> None:
        await connection.accept()
        try:
            tabs.acquire_nowait()
        except WouldBlock:
            await connection.send_json({"is": "problem", "text": f"{MOST_TABS} tabs are open; close one first"})
            await connection.close(1013)
            return
        try:
            await Session(house, connection).run()
        finally:
            tabs.release()

    below = f"/{address.token}"
    routes = [
        Route(f"{below}/", page, methods=["GET"]),
        Route(f"{below}/{{name}}", part, methods=["GET"]),
        WebSocketRoute(f"{below}/session", session),
    ]
    return Guard(Starlette(routes=routes, exception_handlers={404: lambda *_: _nothing()}), address)


class Guard:
    """What lets only the page's own requests through.

    Args:
        inner: The application behind it.
        address: Where the page is.
    """

    def __init__(self, inner: ASGIApp, address: Address) -> None:
        self._inner, self._address = inner, address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer that there is nothing."""
        if self._is_own(scope):
            await self._inner(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await _nothing()(scope, receive, send)

    def _is_own(self, scope: Scope) -> bool:
        headers, hosts = Headers(scope=scope), self._address.hosts
        origins = [f"http://{host}" for host in hosts]
        # A browser says where a WebSocket or a script's request comes from; of an address that is typed it may not.
        from_page = headers.get("origin") in origins
        if scope["type"] == "http":
            from_page = (from_page or "origin" not in headers) and scope["method"] == "GET"
        token = scope["path"].split("/")[1] if "/" in scope["path"] else ""
        return (
            headers.get("host") in hosts
            and from_page
            and hmac.compare_digest(token.encode(), self._address.token.encode())
        )


class Impatient(H11Protocol):
    """A connection that is closed if it asks for nothing: silent ones would take all places, and need no token."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a new connection."""
        super().connection_made(transport)
        asyncio.get_running_loop().call_later(REQUEST_SECONDS, self._give_up, transport)

    def _give_up(self, transport: asyncio.Transport) -> None:
        if self.cycle is None and transport.get_protocol() is self:  # a WebSocket has another
            transport.close()


def _nothing() -> Response:
    # A body that comes with the request would be read to its end otherwise.
    headers = HEADERS | {"Connection": "close"}
    return Response("there is nothing here\n", status_code=404, media_type="text/plain", headers=headers)
