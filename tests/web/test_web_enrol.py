"""The enrolment page's server, as ``lhuc-asr enrol`` starts it: who gets in, what stays, and what it survives."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from enrol_server import BLOCK, RATE, SECONDS, Server, Tab
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.web.enrol import MOST_TABS
from lhuc_asr.web.enrol_messages import MOST_BYTES, MOST_MESSAGE_BYTES


@pytest.fixture
def tab(server: Server) -> Callable[..., Any]:
    @contextmanager
    def opened(path: str | None = None, **options: Any) -> Iterator[Tab]:
        address = f"ws://{server.host}" + (f"/{server.token}/session" if path is None else path)
        options = {"origin": f"http://{server.host}", "compression": None, **options}
        with connect(address, **options) as connection:
            yield Tab(connection)

    return opened


def test_the_page_and_its_parts_are_there_and_say_what_they_may(server: Server) -> None:
    status, body, headers = server.answer("GET", f"/{server.token}/")
    assert status == 200
    text = body.decode()
    assert server.token not in text
    parts = re.findall(r'(?:src|href)="([^"]+)"', text)
    assert set(parts) == {"common.css", "enrol.css", "enrol.js"}
    for part in (*parts, "microphone.js"):
        status, content, part_headers = server.answer("GET", f"/{server.token}/{part}")
        assert (status, bool(content)) == (200, True)
        assert part_headers["x-content-type-options"] == "nosniff"
    rules = headers["content-security-policy"]
    assert "default-src 'none'" in rules
    assert "unsafe" not in rules
    assert "frame-ancestors 'none'" in rules
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert "<script>" not in text


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/", {}),
        ("GET", "/x/", {}),
        ("GET", "/{almost}/", {}),
        ("GET", "/{token}/enrol.html.j2", {}),
        ("GET", "/{token}/..%2f..%2fenrol.py", {}),
        ("GET", "/{token}/", {"Host": "evil.example:80"}),
        ("GET", "/{token}/", {"Origin": "http://evil.example"}),
        ("GET", "/{token}/", {"Origin": "null"}),
        ("HEAD", "/{token}/", {}),
        ("POST", "/{token}/", {"Content_Length": "0"}),
        ("PUT", "/{token}/enrol.js", {"Content_Length": "0"}),
        ("DELETE", "/{token}/", {}),
        ("OPTIONS", "/{token}/", {"Origin": "http://evil.example"}),
    ],
)
def test_others_get_nothing(server: Server, method: str, path: str, headers: dict[str, str]) -> None:
    almost = server.token[:-1] + ("a" if server.token[-1] != "a" else "b")
    status, body, answered = server.answer(method, path.format(token=server.token, almost=almost), **headers)
    assert (status, body) == (404, b"" if method == "HEAD" else b"there is nothing here\n")
    assert not any(name.startswith("access-control") for name in answered)


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("/session", {}),
        ("/wrong/session", {}),
        (None, {"origin": None}),
        (None, {"origin": "http://evil.example"}),
        (None, {"origin": "null"}),
        (None, {"origin": "http://127.0.0.1:1"}),
        (None, {"additional_headers": {"Host": "evil.example"}}),
    ],
)
def test_other_origins_have_no_session(tab, path: str | None, options: dict[str, Any]) -> None:
    with pytest.raises((InvalidStatus, ConnectionClosed)) as caught, tab(path, **options):
        pass
    if isinstance(caught.value, InvalidStatus):
        assert caught.value.response.status_code in (400, 403)


def test_only_the_loopback_address_listens(server: Server) -> None:
    port = int(server.host.rpartition(":")[2])
    tables = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))  # the second where there is IPv6
    table = "".join(path.read_text() for path in tables if path.exists())
    listening = re.findall(rf"\d+: ([0-9A-F]+):{port:04X} [0-9A-F]+:0000 0A", table)
    assert listening == ["0100007F"]


@pytest.mark.parametrize("way", ["read", "speak"])
def test_a_person_speaks_and_keeps_what_they_want(server: Server, tab, way: str, voices: list[np.ndarray]) -> None:
    with tab() as one:
        one.say("begin", name="Zoë", way=way, rate=RATE)
        begun = one.until("begun")
        assert len(begun["sentences"]) == (3 if way == "read" else 0)
        for number, samples in enumerate(voices):
            heard = one.speak(samples)
            if way == "read":
                one.say("sentence", number=number)
                assert one.until("read", "again")["is"] == "read"
                heard = [one.until("heard")]
        assert heard[-1]["seconds"] > 3
        one.say("finish")
        ended = one.until("result")
        assert ended["headline"].startswith("Your voice file")
        assert len(ended["rows"]) == (3 if way == "read" else 1)
        assert not server.folder.exists(), "nothing is written before it is wanted"
        one.say("keep", recordings=True, replace=False)
        kept = one.until("kept", "problem")
        assert kept["file"] == str(server.folder / "Zoë.safetensors")
        assert sorted(each.name for each in server.folder.iterdir()) == ["Zoë", "Zoë.safetensors"]
        one.say("delete")
        one.until("deleted")
    assert list(server.folder.iterdir()) == []
    server.folder.rmdir()


def test_files_are_heard_and_those_that_cannot_be_used_are_named(
    server: Server, tab, said: list[Utterance], tmp_path: Path
) -> None:
    long = tmp_path / "long.wav"
    soundfile.write(long, np.zeros(400 * RATE, dtype=np.int16), RATE)
    with tab() as one:
        one.say("begin", name="bob", way="files", rate=48_000)
        one.until("begun")
        for name, content, message in (
            ("notes.wav", b"no sound" * 100, r"notes\.wav: .*not"),
            ("cut.flac", said[0].audio.read_bytes()[:2000], r"cut\.flac: "),
            ("long.wav", long.read_bytes(), r"long\.wav: 400 s long; 300 s more are taken"),
        ):
            one.say("file", name=name, bytes=len(content))
            one.until("send")
            for first in range(0, len(content), MOST_MESSAGE_BYTES):
                one.connection.send(content[first : first + MOST_MESSAGE_BYTES])
            problem = one.until("problem", "file")
            assert re.match(message, problem.get("text", "")), problem
            assert "/dev/fd" not in problem["text"]
        for utterance in said:
            content = utterance.audio.read_bytes()
            one.say("file", name=utterance.id, bytes=len(content))
            one.until("send")
            one.connection.send(content)
            assert one.until("file", "problem")["is"] == "file"
        one.say("finish")
        assert len(one.until("result")["rows"]) == 3
    assert not server.folder.exists()


@pytest.mark.parametrize(
    "message",
    [
        "no JSON",
        "{}",
        '{"do": "shutdown"}',
        '{"do": "begin", "name": "a", "way": "read", "rate": 16000, "admin": true}',
        '{"do": "begin", "name": "a", "way": "read", "rate": "16000"}',
        '{"do": "begin", "name": "a", "way": "read", "rate": 1}',
        '{"do": "sentence", "number": 0}',
        '{"do": "finish"}',
        '{"do": "keep", "recordings": true, "replace": true}',
        b"\0\0",
    ],
)
def test_what_the_page_does_not_say_ends_the_tab(tab, message: str | bytes) -> None:
    with tab() as one:
        one.connection.send(message)
        assert one.until("problem")["text"]
        with pytest.raises(ConnectionClosed):
            one.connection.recv(timeout=SECONDS)


@pytest.mark.parametrize("content", [b"\0", b"", b"\0" * (MOST_MESSAGE_BYTES + 2)])
def test_sound_that_is_none_ends_the_tab(tab, content: bytes) -> None:
    with tab() as one:
        one.say("begin", name="a", way="speak", rate=RATE)
        one.until("begun")
        one.connection.send(content)
        with suppress(ConnectionClosed):
            while one.until("problem"):
                pass
        assert one.connection.close_code in (1008, 1009)


@pytest.mark.parametrize("name", ["../../etc/x", "a/b", ".x", ""])
def test_a_name_leads_out_of_no_folder(server: Server, tab, name: str) -> None:
    with tab() as one:
        one.say("begin", name=name, way="speak", rate=RATE)
        assert "choose another" in one.until("problem", "begun")["text"]
        one.say("begin", name="alice", way="speak", rate=RATE)
        one.until("begun")
    assert not server.folder.exists()


def test_what_was_under_way_when_all_was_said_is_passed_over(tab, voices: list[np.ndarray]) -> None:
    with tab() as one:
        one.say("begin", name="quick", way="read", rate=RATE)
        one.until("begun")
        one.speak(voices[0])
        one.say("sentence", number=0)
        one.until("read")
        for _ in range(2):
            one.say("finish")
        one.hear(voices[1][:BLOCK])
        one.say("sentence", number=1)
        assert len(one.until("result", "problem")["rows"]) == 1


def test_a_file_may_be_abandoned_by_what_is_said_in_the_middle_of_it(tab, said: list[Utterance]) -> None:
    content = said[0].audio.read_bytes()
    with tab() as one:
        one.say("begin", name="stick", way="files", rate=RATE)
        one.until("begun")
        one.say("file", name="empty.wav", bytes=0)
        assert "empty.wav" in one.until("problem")["text"]
        one.say("file", name="pulled.wav", bytes=1000)
        one.until("send")
        one.connection.send(b"\0" * 10)
        one.say("abandon")
        one.connection.send(b"\0" * 10)  # of a file that was refused
        one.say("file", name="whole.wav", bytes=len(content))
        one.until("send")
        one.connection.send(content)
        assert one.until("file", "problem")["is"] == "file"
        one.say("file", name="half.wav", bytes=1000)
        one.until("send")
        one.say("finish")
        assert len(one.until("result", "problem")["rows"]) == 1


def test_deleted_while_the_result_is_worked_for_nothing_comes_after_it(tab, voices: list[np.ndarray]) -> None:
    with tab() as one:
        one.say("begin", name="quick", way="speak", rate=RATE)
        one.until("begun")
        one.speak(np.concatenate(voices))
        one.say("finish")
        one.until("working")
        one.say("delete")
        one.until("deleted")
        with pytest.raises(ConnectionClosed):
            one.connection.recv(timeout=SECONDS)


def test_connections_that_ask_for_nothing_take_no_place(server: Server) -> None:
    host, port = server.host.split(":")
    with ExitStack() as stack:
        for _ in range(70):
            stack.enter_context(socket.create_connection((host, int(port)), timeout=5))
        deadline = time.monotonic() + SECONDS
        while server.answer("GET", f"/{server.token}/")[0] != 200:
            assert time.monotonic() < deadline
            time.sleep(0.5)


def test_two_gigabytes_are_not_taken(server: Server, tab) -> None:
    before = server.memory
    with tab() as one:
        one.say("begin", name="a", way="files", rate=RATE)
        one.until("begun")
        one.say("file", name="big.wav", bytes=2 * 10**9)
        assert f"at most {MOST_BYTES // 10**6} MB" in one.until("problem", "send")["text"]
        one.say("file", name="more.wav", bytes=1000)
        one.until("send")
        one.connection.send(b"\0" * 2000)  # more than it said
        assert "expected 1000 bytes more" in one.until("problem")["text"]
        with pytest.raises(ConnectionClosed):
            one.connection.recv(timeout=SECONDS)
    # A form that goes on and on: what it sends is not read, or the connection is closed.
    host, port = server.host.split(":")
    part, sent = b"\0" * 2**20, 0
    with socket.create_connection((host, int(port)), timeout=5) as form:
        head = f"POST /{server.token}/ HTTP/1.1\r\nHost: {server.host}\r\nContent-Length: {2 * 10**9}\r\n\r\n"
        form.sendall(head.encode())
        try:
            while sent < 2 * 10**9:
                sent += form.send(part)
        except OSError:
            pass
    assert sent < 100 * 2**20
    assert server.memory - before < 50 * 2**20
    assert server.answer("GET", f"/{server.token}/")[0] == 200


def test_a_tab_that_is_closed_in_the_middle_leaves_nothing(server: Server, tab, voices: list[np.ndarray]) -> None:
    for after in ("begin", "speech", "finish", "file"):
        with tab() as one:
            one.say("begin", name="gone", way="files" if after == "file" else "speak", rate=RATE)
            one.until("begun")
            if after in ("speech", "finish"):
                one.speak(np.concatenate(voices[:2]))
            if after == "finish":
                one.say("finish")
                one.until("working")
            if after == "file":
                one.say("file", name="x.wav", bytes=10**6)
                one.until("send")
                one.connection.send(b"\0" * 1000)
            one.connection.socket.close()  # as a browser that is killed: without a goodbye
    assert not server.folder.exists()
    with tab() as one:
        one.say("begin", name="next", way="speak", rate=RATE)
        one.until("begun")
        assert one.speak(voices[0])


def test_many_tabs_speak_at_once_and_one_too_many_is_told_so(tab, voices: list[np.ndarray]) -> None:
    samples = np.concatenate(voices[:2])
    with ExitStack() as stack:
        tabs = [stack.enter_context(tab()) for _ in range(MOST_TABS)]
        for number, one in enumerate(tabs):
            one.say("begin", name=f"p{number}", way="speak", rate=RATE)
        for one in tabs:
            one.until("begun")
        with suppress(ConnectionClosed), tab() as late:
            told = late.until("problem")["text"]
        assert f"{MOST_TABS} tabs are open" in told
        for first in range(0, len(samples), 10 * BLOCK):
            for one in tabs[:10]:
                one.hear(samples[first : first + 10 * BLOCK])
        texts = []
        for one in tabs[:10]:
            heard = [one.until("heard") for _ in range(0, len(samples), 10 * BLOCK)]
            texts.append([line["words"] for each in heard for line in each["without"]["lines"]])
        assert texts[0]
        assert all(each == texts[0] for each in texts)
    for _ in range(100):  # places are given back
        with suppress(ConnectionClosed), tab() as one:
            one.say("begin", name="again", way="speak", rate=RATE)
            if one.until("begun", "problem")["is"] == "begun":
                break
        time.sleep(0.1)
    else:
        pytest.fail("no place is free again")


def test_a_port_that_is_taken_is_told(server: Server, finished: Path, tmp_path: Path) -> None:
    port = server.host.rpartition(":")[2]
    ran = subprocess.run(
        [sys.executable, "-m", "lhuc_asr", "enrol", str(finished), "--port", port],
        cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS,
    )  # fmt: skip
    assert ran.returncode == 1
    assert f"--port {port}: cannot be used" in ran.stderr
    assert "Traceback" not in ran.stderr
