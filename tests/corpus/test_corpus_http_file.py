"""Servers that lie, stall, lead elsewhere or break: one error of one line each, and what is of use is kept.

The server sends what a test tells it, byte for byte, over a bare socket.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lhuc_asr.base.errors import DownloadError
from lhuc_asr.base.outputs import OutputError
from lhuc_asr.corpus import connections, http_file
from lhuc_asr.corpus.http_file import fetch

CONTENT = bytes(range(256)) * 4


class Server:
    """Answers each connection with the next of ``answers``; the last one again and again.

    An answer is bytes, or a function that gets the connection.
    """

    def __init__(self) -> None:
        self.answers: list[bytes | Callable[[socket.socket], None]] = []
        self.requests: list[str] = []
        self.closing = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}/file"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listening.accept()
            with connection:
                if self.closing.is_set():
                    return
                self.requests.append(connection.recv(65536).decode("latin-1"))
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                try:
                    if callable(answer):
                        answer(connection)
                    else:
                        connection.sendall(answer)
                except OSError:
                    continue  # the client has had enough

    def close(self) -> None:
        self.closing.set()
        socket.create_connection(self._listening.getsockname()).close()
        self._thread.join()
        self._listening.close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(http_file, "FIRST_WAIT_SECONDS", 0.001)
    server = Server()
    yield server
    server.close()


def answer(status: str = "200 OK", *headers: str, body: bytes = CONTENT) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", "Connection: close", *headers, "", ""]).encode("latin-1") + body


def length(value: object) -> str:
    return f"Content-Length: {value}"


def refusal(server: Server, path: Path) -> str:
    with pytest.raises(DownloadError) as caught:
        fetch(server.url, path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.isprintable()
    assert len(message) < 1000
    assert not path.exists()
    return message


def begun(server: Server, path: Path, content: bytes = CONTENT[:300], validator: object = '"one"') -> Path:
    """A part that an earlier attempt left."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    record = {"url": server.url, "validator": validator}
    part.with_name(part.name + ".json").write_text(json.dumps(record), encoding="utf-8")
    return part


# Lengths.


@pytest.mark.parametrize(
    "lengths", [["abc"], ["-5"], ["+5"], ["1_0"], ["٣"], ["5", "7"], ["5, 7"], ["9" * 5000], ["0x10"], [""]]
)
def test_an_impossible_length_is_refused_and_the_part_kept(server: Server, tmp_path: Path, lengths: list[str]) -> None:
    server.answers = [answer("200 OK", *(length(value.encode().decode("latin-1")) for value in lengths))]
    part = begun(server, tmp_path / "file")
    assert "expected a number of bytes; use another mirror" in refusal(server, tmp_path / "file")
    assert part.read_bytes() == CONTENT[:300]
    assert len(server.requests) == 1


@pytest.mark.parametrize("headers", [[], [length(1024)], [length(1024)] * 2, [length("1024, 1024")]])
def test_a_missing_length_and_one_that_is_repeated_are_taken(
    server: Server, tmp_path: Path, headers: list[str]
) -> None:
    server.answers = [answer("200 OK", *headers)]
    fetch(server.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_an_absurd_length_is_more_than_the_disk_has(server: Server, tmp_path: Path) -> None:
    server.answers = [answer("200 OK", length(10**17))]
    assert "100000000.0 GB needed" in refusal(server, tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_chunks_have_no_length_and_lies_about_it_are_not_asked(server: Server, tmp_path: Path) -> None:
    chunks = b"200\r\n" + CONTENT[:512] + b"\r\n200\r\n" + CONTENT[512:] + b"\r\n0\r\n\r\n"
    server.answers = [answer("200 OK", "Transfer-Encoding: chunked", length(3), body=chunks)]
    fetch(server.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize("chunks", [b"zz\r\n", b"-5\r\nabcde\r\n", b"f" * 30 + b"\r\nabc", b"", b"5\r\nab"])
def test_broken_chunks_end_in_one_error(server: Server, tmp_path: Path, chunks: bytes) -> None:
    server.answers = [answer("200 OK", "Transfer-Encoding: chunked", body=chunks)]
    assert "gave up after 6 attempts" in refusal(server, tmp_path / "file")


# Ranges.


@pytest.mark.parametrize(
    "content_range",
    [
        "bytes 0-1023/1024", "bytes 300-1023", "bytes 300-200/1024", "bytes 300-1023/700", "bytes 300-1024/1024",
        "bytes -/1024", "items 300-1023/1024", "bytes 300-1023/" + "9" * 5000, "\xff", "",
    ],
)  # fmt: skip
def test_a_lying_range_is_refused_and_the_part_kept(server: Server, tmp_path: Path, content_range: str) -> None:
    server.answers = [answer("206 Partial Content", f"Content-Range: {content_range}", body=CONTENT[300:])]
    part = begun(server, tmp_path / "file")
    assert "asked for bytes from 300 on, got" in refusal(server, tmp_path / "file")
    assert part.read_bytes() == CONTENT[:300]


@pytest.mark.parametrize("total", ["1024", "*"])
def test_the_rest_is_appended(server: Server, tmp_path: Path, total: str) -> None:
    server.answers = [answer("206 Partial Content", f"Content-Range: bytes 300-1023/{total}", body=CONTENT[300:])]
    begun(server, tmp_path / "file")
    fetch(server.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_more_bytes_than_announced_do_not_fill_the_disk(server: Server, tmp_path: Path) -> None:
    body = CONTENT[300:] + b"x" * 100
    server.answers = [answer("206 Partial Content", "Content-Range: bytes 300-1023/1024", body=body)]
    begun(server, tmp_path / "file")
    assert "sends more than the 1024 bytes it announced" in refusal(server, tmp_path / "file")


@pytest.mark.parametrize(
    "headers", [[], ["Content-Range: bytes */*"], ["Content-Range: x"], ["Content-Range: bytes */9"]]
)
def test_a_whole_part_is_known_by_the_files_length_where_416_says_nothing(
    server: Server, tmp_path: Path, headers: list[str]
) -> None:
    server.answers = [
        answer("416 Range Not Satisfiable", *headers, body=b""),
        answer("200 OK", length(1024), 'ETag: "one"', body=b""),
    ]
    begun(server, tmp_path / "file", CONTENT)
    fetch(server.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert ["Range" in request for request in server.requests] == [True, False]


def test_a_server_that_always_answers_416_is_refused_and_the_part_kept(server: Server, tmp_path: Path) -> None:
    server.answers = [answer("416 Range Not Satisfiable", body=b"")]
    part = begun(server, tmp_path / "file")
    assert "answers 416 to a request for the whole file" in refusal(server, tmp_path / "file")
    assert part.read_bytes() == CONTENT[:300]


@pytest.mark.parametrize("validator", [7, None, ["x"], "a\r\nHost: b", "☃", ""])
def test_a_validator_that_cannot_be_sent_means_a_new_start(server: Server, tmp_path: Path, validator: object) -> None:
    server.answers = [answer("200 OK", length(1024))]
    begun(server, tmp_path / "file", validator=validator)
    fetch(server.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert "Range" not in server.requests[0]


@pytest.mark.parametrize("text", ["", "[]", "3", "{", '{"url": 3}', "\x00"])
def test_a_damaged_record_of_the_part_means_a_new_start(server: Server, tmp_path: Path, text: str) -> None:
    server.answers = [answer("200 OK", length(1024))]
    begun(server, tmp_path / "file")
    (tmp_path / "file.part.json").write_text(text, encoding="utf-8")
    fetch(server.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


# Pages and codings.


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "TEXT/HTML", "application/json", "application/xhtml+xml"])
def test_a_page_with_status_200_is_not_the_file_and_the_part_is_kept(server: Server, tmp_path: Path, kind: str) -> None:
    server.answers = [answer("200 OK", f"Content-Type: {kind}", body=b"<html>Please log in</html>")]
    part = begun(server, tmp_path / "file")
    assert "sends a page" in refusal(server, tmp_path / "file")
    assert part.read_bytes() == CONTENT[:300]


def test_a_coding_that_was_not_asked_for_is_refused(server: Server, tmp_path: Path) -> None:
    server.answers = [answer("200 OK", "Content-Encoding: br")]
    assert "in the coding 'br'; use another mirror" in refusal(server, tmp_path / "file")


def test_what_some_servers_say_of_an_archive_as_it_is(server: Server, tmp_path: Path) -> None:
    server.answers = [answer("200 OK", "Content-Encoding: x-gzip", "Content-Type: application/x-gzip", length(1024))]
    fetch(server.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


# Statuses and redirects.


@pytest.mark.parametrize(
    "status", ["204 No Content", "202 Accepted", "304 Not Modified", "403 " + "x\x1b[31m" * 999, "407 P"]
)
def test_other_statuses_are_one_short_line(server: Server, tmp_path: Path, status: str) -> None:
    server.answers = [answer(status, body=b"")]
    assert f"the server answers {status[:3]}" in refusal(server, tmp_path / "file")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://127.0.0.1/file", "data:,x", "gopher://x", "javascript:1"]
)
def test_a_redirect_to_another_scheme_is_refused(server: Server, tmp_path: Path, target: str) -> None:
    server.answers = [answer("302 Found", f"Location: {target}", body=b"")]
    assert "the server leads to" in refusal(server, tmp_path / "file")


def test_a_redirect_from_https_to_http_is_refused() -> None:
    request = connections.urllib.request.Request("https://example.org/file")
    with pytest.raises(DownloadError, match=r"leads to http://example\.org/file, from https to http"):
        connections._redirected(request, "http://example.org/file")


@pytest.mark.parametrize(
    "target", ["http://[", "http://127.0.0.1:99999/", "http://127.0.0.1:port/", "http://a b/", "//"]
)
def test_a_redirect_to_nonsense_is_one_error(server: Server, tmp_path: Path, target: str) -> None:
    server.answers = [answer("302 Found", f"Location: {target}", body=b"")]
    refusal(server, tmp_path / "file")


def test_redirects_are_followed_with_the_range_but_not_for_ever(server: Server, tmp_path: Path) -> None:
    rest = answer("206 Partial Content", "Content-Range: bytes 300-1023/1024", body=CONTENT[300:])
    server.answers = [answer("302 Found", "Location: /other file", body=b""), rest]
    begun(server, tmp_path / "file")
    fetch(server.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.requests[1].startswith("GET /other%20file ")
    server.answers = [answer("301 Moved", "Location: /file", body=b"")]
    assert "more than 10 redirects" in refusal(server, tmp_path / "other")


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "http://127.0.0.1:port"])
def test_a_proxy_that_cannot_be_used_is_named_at_once(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.setenv("no_proxy", "")
    refusal(server, tmp_path / "file")
    assert not server.requests


# Answers that are not HTTP.


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"\x00" * 500, b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 9999999999999999 x\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X" * 70000, b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 500 + b"\r\n",
    ],
)  # fmt: skip
def test_an_answer_that_is_not_http_is_one_error(server: Server, tmp_path: Path, raw: bytes) -> None:
    server.answers = [raw]
    refusal(server, tmp_path / "file")


@pytest.mark.parametrize("tail", ["", "\0", "\n", " x", "\x7f", "\udcff"])
def test_odd_addresses_are_one_error(tmp_path: Path, tail: str) -> None:
    with pytest.raises(DownloadError):
        fetch(f"http://[::{tail}/file", tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


# Time.


def trickle(server: Server, head: bytes, piece: bytes) -> Callable[[socket.socket], None]:
    def send(connection: socket.socket) -> None:
        connection.sendall(head)
        while not server.closing.wait(0.005):
            connection.sendall(piece)

    return send


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (answer("200 OK", length(10**6), body=b""), b"x"),
        (answer("200 OK", body=b""), b"x"),
        (b"HTTP/1.1 200 OK\r\n", b"A"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (answer("200 OK", "Transfer-Encoding: chunked", body=b"1\r\nx\r\n0\r\n"), b"A: b\r\n"),
        (b"", b""),
    ],
    ids=["body", "no length", "header", "continue", "trailer", "nothing"],
)
def test_a_server_that_sends_a_byte_now_and_then_is_given_up(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: bytes, piece: bytes
) -> None:
    monkeypatch.setattr(connections, "SLOW_SECONDS", 0.05)
    server.answers = [trickle(server, head, piece)]
    start = time.monotonic()
    message = refusal(server, tmp_path / "file")
    assert "gave up after 6 attempts" in message
    assert "s; gave up" in message
    assert time.monotonic() - start < 20


def test_what_a_slow_server_sent_is_kept_and_continued(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "SLOW_SECONDS", 0.05)

    def first(connection: socket.socket) -> None:
        connection.sendall(answer("200 OK", length(1024), 'ETag: "one"', body=CONTENT[:300]))
        connection.recv(1)  # until the client ends it

    rest = answer("206 Partial Content", "Content-Range: bytes 300-1023/1024", body=CONTENT[300:])
    server.answers = [first, rest]
    fetch(server.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert "Range: bytes=300-" in server.requests[1]


# The disk.


def test_a_full_disk_keeps_what_came(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OutputError("full")

    server.answers = [answer("200 OK", length(1024), 'ETag: "one"')]
    part = begun(server, tmp_path / "file")
    server.answers = [answer("206 Partial Content", "Content-Range: bytes 300-1023/1024", body=CONTENT[300:])]
    monkeypatch.setattr(http_file, "_append", full)
    with pytest.raises(OutputError):
        fetch(server.url, tmp_path / "file")
    assert part.read_bytes() == CONTENT[:300]


@pytest.mark.parametrize("name", ["n" * 300, "a\0b", "no/where"])
def test_a_name_that_cannot_be_is_one_error(server: Server, tmp_path: Path, name: str) -> None:
    with pytest.raises(DownloadError, match="cannot be written"):
        fetch(server.url, tmp_path / name)
