"""A process of ``lhuc-asr enrol``, and a tab of its page without a browser."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from websockets.sync.client import ClientConnection

RATE, BLOCK = 16_000, 1600
SECONDS = 60.0


@dataclass(frozen=True)
class Server:
    """The process, its page's address, and the folder of what is kept."""

    process: subprocess.Popen[str]
    url: str
    folder: Path

    @property
    def host(self) -> str:
        return self.url.split("/")[2]

    @property
    def token(self) -> str:
        return self.url.split("/")[3]

    @property
    def memory(self) -> int:
        """Resident bytes of the process."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def answer(self, method: str, path: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers of a request."""
        with closing(http.client.HTTPConnection(self.host, timeout=SECONDS)) as connection:
            connection.putrequest(method, path, skip_host="Host" in headers)
            for name, value in headers.items():
                connection.putheader(name.replace("_", "-"), value)
            connection.endheaders()
            answer = connection.getresponse()
            return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}


class Tab:
    """One tab, without a browser."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    def say(self, do: str, **content: Any) -> None:
        self.connection.send(json.dumps({"do": do, **content}))

    def hear(self, samples: np.ndarray) -> None:
        self.connection.send((samples * 32767).astype("<i2").tobytes())

    def until(self, *kinds: str) -> dict[str, Any]:
        """The next message of a kind; others are passed over."""
        while True:
            message: dict[str, Any] = json.loads(self.connection.recv(timeout=SECONDS))
            if message["is"] in kinds:
                return message

    def speak(self, samples: np.ndarray) -> list[dict[str, Any]]:
        """Say something, block by block; what was heard of each."""
        heard = []
        for first in range(0, len(samples), BLOCK):
            self.hear(samples[first : first + BLOCK])
            heard.append(self.until("heard"))
        return heard


@contextmanager
def serving(model: Path, sentences: Sequence[str], folder: Path) -> Iterator[Server]:
    """A context with a server, which has to live until the context ends, and to end in peace on Ctrl-C."""
    (folder / "sentences.txt").write_text("".join(f"{line}\n" for line in sentences))
    command = [sys.executable, "-m", "lhuc_asr", "enrol", str(model), "-o", "kept", "--sentences", "sentences.txt"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[-\w]{32}/", url)
        yield Server(process, url, folder / "kept")
        assert process.poll() is None, "the server has ended"
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 0
