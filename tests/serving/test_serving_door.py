"""The door: many speakers' requests at once, each answered as alone; refusals that say why, and none that is lost."""

from __future__ import annotations

import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lhuc_asr.base.cluster import ClusterError
from lhuc_asr.base.errors import ConfigError, ExperimentError, ModelMismatchError
from lhuc_asr.lhuc.archive import SpeakerArchive, write_archive
from lhuc_asr.recognizer.crowd import Request
from lhuc_asr.recognizer.recognizer import load
from lhuc_asr.serving.door import Limits, opened_door

Answer = tuple[int, dict[str, Any]]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def door(exported: Path, archive: Path, two_machines: Any) -> Iterator[str]:
    limits = Limits(waiting=8, megabytes=1.0, seconds=30.0)
    with opened_door(exported, archive, held=3, limits=limits, port=free_port(), address=two_machines.address) as url:
        yield url


def ask(url: str, body: bytes | None, **query: str) -> Answer:
    asked = "&".join(f"{key}={value}" for key, value in query.items())
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{url}?{asked}", body), timeout=60) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_all_who_ask_at_once_are_answered_or_refused(
    door: str, exported: Path, archive: Path, heard: dict[str, list[Path]]
) -> None:
    """Five times as many as may wait: each answer is that of a crowd here, and each refusal says what to do."""
    asked = [(name, path) for name, paths in heard.items() for path in paths[:2]] * 5
    crowd = load(exported).crowd(archive)
    mine = crowd.transcripts([Request(path.stem, name, path.read_bytes()) for name, path in asked[:8]])
    expected = {(name, path): each.text for (name, path), each in zip(asked, mine, strict=False)}  # type: ignore[union-attr]
    start = threading.Barrier(len(asked))

    def one(name: str, path: Path) -> Answer:
        body = path.read_bytes()
        start.wait()
        return ask(door, body, speaker=name, name=path.stem)

    with ThreadPoolExecutor(len(asked)) as pool:
        answers = list(pool.map(one, *zip(*asked, strict=True)))
    served = [(each, body) for each, (status, body) in zip(asked, answers, strict=True) if status == 200]
    refused = [body["error"] for status, body in answers if status == 503]
    assert len(served) + len(refused) == len(asked)
    assert len(served) >= 8
    assert refused
    assert all(text.startswith("8 requests are in work or wait") and "try again" in text for text in refused)
    for (name, path), body in served:
        assert (body["text"], body["speaker"], body["recording"]) == (expected[name, path], name, path.stem)
    assert len({name for (name, _), _ in served}) > 1
    # Nothing is left in work: the same number is taken again.
    assert ask(door, asked[0][1].read_bytes(), speaker=asked[0][0])[0] == 200


def test_requests_that_cannot_be_answered_say_why(door: str, heard: dict[str, list[Path]]) -> None:
    name, (path, *_) = next(iter(heard.items()))
    audio = path.read_bytes()
    for query, body, status, error in (
        ({"speaker": "nobody"}, audio, 404, "speaker 'nobody' is not among the 4 of the archive"),
        ({"speaker": name, "name": "talk"}, b"no audio", 400, "talk: not a WAV, FLAC, Ogg"),
        ({"speaker": name}, bytes(1_000_001), 413, "more than 1 MB; cut the recording, or send FLAC"),
        ({"speaker": name}, None, 405, "POST an audio file to /transcribe?speaker=NAME"),
    ):
        answered = ask(door, body, **query)
        assert answered[0] == status
        assert error in answered[1]["error"]
    status, body = ask(door, audio)
    assert (status, body["speaker"]) == (200, "unknown")


@pytest.mark.gpu
def test_two_processes_share_a_gpu_and_their_words_are_a_processors(
    exported: Path, archive: Path, heard: dict[str, list[Path]]
) -> None:
    asked = [(name, path) for name, paths in heard.items() for path in paths]
    crowd = load(exported).crowd(archive)
    mine = crowd.transcripts([Request(path.stem, name, path.read_bytes()) for name, path in asked])
    served = opened_door(exported, archive, held=3, processes=2, device="cuda", port=free_port())
    with served as url, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda each: ask(url, each[1].read_bytes(), speaker=each[0]), asked))
    assert [status for status, _ in answers] == [200] * len(asked)
    assert [body["text"] for _, body in answers] == [each.text for each in mine]  # type: ignore[union-attr]


@pytest.mark.parametrize("device", ["cuda:1", "tpu"])
def test_a_device_that_processes_cannot_have_is_refused(device: str, exported: Path) -> None:
    served = opened_door(exported, None, held=3, device=device)
    with pytest.raises(ConfigError, match=f"--device {device}: .*give --device cpu"), served:
        pass


def test_a_cluster_that_is_not_there_is_an_error_at_once(exported: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    served = opened_door(exported, None, held=3, address=address)
    with pytest.raises(ClusterError, match=f"{address}: no Ray cluster can be reached there .*start one"), served:
        pass


def test_what_cannot_be_served_is_an_error_before_it_starts(exported: Path, archive: Path, tmp_path: Path) -> None:
    with pytest.raises(ExperimentError), opened_door(tmp_path, archive, held=3):
        pass
    states = SpeakerArchive(archive).states()
    write_archive(tmp_path / "archive", [replace(each, model="other") for each in states])
    with pytest.raises(ModelMismatchError), opened_door(exported, tmp_path / "archive", held=3):
        pass
