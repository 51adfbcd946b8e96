"""``lhuc-asr listen``: a line a pause, the words so far on a terminal, and what is left when it is interrupted."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from lhuc_asr.audio.utterance import read_manifest
from lhuc_asr.recognizer.recognizer import load

RATE = 16_000
LHUC_ASR = [sys.executable, "-c", "from lhuc_asr.cli.main import main; main()", "listen"]


@pytest.fixture(scope="module")
def model(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny experiment exported, and beside it the file of one of its test speakers."""
    from lhuc_asr.pipeline.export import export

    folder = tmp_path_factory.mktemp("listen")
    export(finished, folder / "model")
    audio = [u.audio for u in read_manifest(finished / "corpus" / "test.jsonl") if u.speaker == "2001"]
    load(folder / "model").adapt(audio, "alice").save(folder / "alice.safetensors")
    return folder / "model"


@pytest.fixture(scope="module")
def sound(finished: Path) -> bytes:
    """Two sentences of that speaker, each with a pause after it, as raw samples."""
    said = [u.audio for u in read_manifest(finished / "corpus" / "test.jsonl") if u.speaker == "2001"]
    quiet = np.random.default_rng(0).normal(0, 1e-4, round(1.5 * RATE))
    parts = [part for path in said[:2] for part in (soundfile.read(path)[0], quiet)]
    return (np.concatenate(parts) * 32767).astype("<i2").tobytes()


@pytest.fixture(scope="module")
def expected(model: Path, sound: bytes) -> list[list[str]]:
    """The words of each pause, and the time of the first."""
    live, lines = load(model).listen(model.parent / "alice.safetensors"), []
    samples = np.frombuffer(sound, "<i2").astype(np.float32) / 32768.0
    for first in range(0, len(samples), 1600):
        heard = live.hear(samples[first : first + 1600])
        lines += [[f"{heard.finished[0].start:.2f}", *(word.word for word in heard.finished)]] if heard.finished else []
    assert len(lines) == 2
    return lines


def test_a_line_is_written_at_each_pause(model: Path, sound: bytes, expected: list[list[str]]) -> None:
    command = [*LHUC_ASR, str(model), "--speaker", str(model.parent / "alice.safetensors"), "--times"]
    ran = subprocess.run(command, input=sound + b"\0", capture_output=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert [line.split() for line in ran.stdout.decode().splitlines()] == expected


def test_interrupted_it_writes_what_was_said_until_then(
    model: Path, sound: bytes, expected: list[list[str]], tmp_path: Path
) -> None:
    command = [*LHUC_ASR, str(model), "--speaker", str(model.parent / "alice.safetensors")]
    half = len(sound) // 4 * 2
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write(sound[:half])
        running.stdin.flush()
        first = running.stdout.readline()  # the first sentence's pause has been heard
        running.send_signal(signal.SIGINT)
        rest = running.stdout.read()
        assert running.wait(60) == 0
    assert first.decode().split() == expected[0][1:]
    # Half of the sound has been written, of which the second sentence is a part.
    spoken = expected[1][1:]
    assert rest.decode().split()[:1] in ([], spoken[:1])


def test_a_terminal_shows_the_words_so_far(model: Path, sound: bytes, expected: list[list[str]]) -> None:
    ours, theirs = pty.openpty()
    command = [*LHUC_ASR, str(model), "--speaker", str(model.parent / "alice.safetensors")]
    running = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=theirs)
    os.close(theirs)
    assert running.stdin is not None
    running.stdin.write(sound)
    running.stdin.close()
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    assert running.wait(60) == 0
    os.close(ours)
    states = shown.decode().split("\r")
    sentence = " ".join(expected[0][1:])
    assert any(state and sentence.startswith(state) and state != sentence for state in states)
    lines = [line.split("\r")[-1] for line in shown.decode().replace("\r\n", "\n").split("\n") if line.strip()]
    assert lines[:2] == [" ".join(line[1:]) for line in expected]


def test_what_was_learned_is_written_at_the_end(model: Path, sound: bytes, tmp_path: Path) -> None:
    """The first time the person is unknown; the second time the file of the first is continued."""
    learned = tmp_path / "bob.safetensors"
    ran = subprocess.run(
        [*LHUC_ASR, str(model), "--learn", str(learned)], input=sound, capture_output=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.decode().splitlines()[-1].startswith(f"bob: {learned}  ")
    first = load(model).load_speaker(learned)
    assert first.name == "bob"
    assert first.cmvn is not None
    assert any(bool(table.detach()[1].any()) for table in first.adapted.bank.tables)
    command = [*LHUC_ASR, str(model), "--speaker", str(learned), "--learn", str(learned)]
    assert subprocess.run(command, input=sound, capture_output=True, timeout=120).returncode == 0
    second = load(model).load_speaker(learned)
    assert not all(map(torch.equal, first.adapted.bank.tables, second.adapted.bank.tables))


def test_another_persons_file_and_silence_cost_nothing(model: Path, sound: bytes, tmp_path: Path) -> None:
    alice, own = model.parent / "alice.safetensors", tmp_path / "carl.safetensors"
    before = alice.read_bytes()
    shutil.copy(alice, own)
    command = [*LHUC_ASR, str(model), "--learn", str(own)]
    ran = subprocess.run(command, input=sound, capture_output=True, text=False, timeout=120)
    assert ran.returncode == 1
    assert b"exists and is the file of the speaker 'alice'" in ran.stderr
    own.unlink()
    ran = subprocess.run(command, input=b"\0" * 64_000, capture_output=True, timeout=120)
    assert ran.returncode == 1
    assert b"not written, nothing was said that could be learned from" in ran.stderr
    assert not own.exists()
    assert alice.read_bytes() == before


def test_a_file_with_a_header_is_not_raw_sound(model: Path) -> None:
    for beginning in (b"RIFF", b"OggS", b"fLaC"):
        content = beginning + b"\0" * 3200
        ran = subprocess.run([*LHUC_ASR, str(model)], input=content, capture_output=True, timeout=120)
        assert ran.returncode == 1
        assert b"is a file of sound (it begins with " + beginning in ran.stderr


def test_no_sound_is_told(model: Path) -> None:
    ran = subprocess.run([*LHUC_ASR, str(model)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1].startswith("lhuc-asr: error: no sound came on standard input; ")
