"""The verbs for a new speaker, as typed: what all of them do, from export to speakers, and what they refuse."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lhuc_asr.lhuc.speaker import SpeakerState

# A process in which the network is cut: whatever asks for it dies with a traceback.
WITHOUT_NETWORK = (
    "import socket\n"
    "def refused(*a, **k): raise AssertionError('the network was asked for')\n"
    "socket.socket.__init__ = socket.getaddrinfo = refused\n"
    "from lhuc_asr.cli.main import main; main()"
)


def test_a_new_speaker_without_a_network(finished: Path, spoken: Path, tmp_path: Path) -> None:
    """The whole job in processes of their own, in an empty folder, each recording piped or named."""

    def lhuc_asr(*arguments: object, stdin: Path | None = None) -> str:
        with (stdin or Path(os.devnull)).open("rb") as incoming:
            ran = subprocess.run(
                [sys.executable, "-c", WITHOUT_NETWORK, *map(str, arguments)],
                stdin=incoming, capture_output=True, text=True, timeout=120, cwd=tmp_path, check=False,
            )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    assert "adapts like the pass lhuc" in lhuc_asr("export", finished, "model")
    lhuc_asr("adapt", "model", "--speaker", "alice", spoken.parent, "-o", "alice.safetensors")
    named = lhuc_asr("transcribe", "model", "--speaker", "alice.safetensors", spoken)
    piped = lhuc_asr("transcribe", "model", "--speaker", "alice.safetensors", "-", stdin=spoken)
    assert named.split()[0] == spoken.stem
    assert piped.split() == ["standard-input", *named.split()[1:]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alice.safetensors", "model"]


def test_info_tells_what_a_model_is(finished: Path, command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("info", finished) in (0, None)
    shown = capsys.readouterr().out
    for words in (
        "1 x 48 relu",
        "40 fbank at 16000 Hz",
        "frames of context on each side",
        "normalised for each speaker\n",
        "s are cut into pieces of at most",
        "by lhuc on best_path targets of si",
        "as in pass lhuc, seed 3",
    ):
        assert words in shown
    labels = ("model hash", "pass si", "pass lhuc", "without speaker", "method options")
    assert all(f"\n{label:17}" in shown for label in labels)


def test_speakers_are_looked_after(finished: Path, tmp_path: Path, command, capsys: pytest.CaptureFixture[str]) -> None:
    folder = finished / "speakers" / "lhuc" / "test"
    assert command("speakers", "merge", tmp_path / "all", folder, finished / "speakers/lhuc/control") in (0, None)
    assert command("speakers", "delete", tmp_path / "all", "2001") in (0, None)
    capsys.readouterr()
    assert command("speakers", "list", tmp_path / "all") in (0, None)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["2002", "3001", "3002"]
    assert command("speakers", "show", folder / "2001.safetensors") in (0, None)
    shown = capsys.readouterr().out
    assert "hidden.0.activation" in shown
    assert "extras      none" in shown


def test_streams_take_transcripts_and_speakers(
    finished: Path, spoken: Path, tmp_path: Path, command, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    for output in ("/dev/stdout", "-"):
        assert command("transcribe", finished, spoken, "-o", output) in (0, None)
        assert capfdbinary.readouterr().out.split()[0] == spoken.stem.encode()
    assert command("adapt", finished, spoken, "--speaker", "x", "-o", "-") in (0, None)
    (tmp_path / "x.safetensors").write_bytes(capfdbinary.readouterr().out)
    assert SpeakerState.load(tmp_path / "x.safetensors").speaker == "x"
    for arguments in (("transcribe", finished), ("adapt", finished, "--speaker", "x")):
        assert command(*arguments, spoken, "-o", "/dev/null") in (0, None)
    assert Path("/dev/null").is_char_device()


def test_threads_and_device_are_taken(
    finished: Path, spoken: Path, tmp_path: Path, command, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    taken: list[int] = []
    monkeypatch.setattr("torch.set_num_threads", taken.append)
    (tmp_path / "words").write_text((finished / "lang" / "lexicon.txt").read_text().split()[0])
    for arguments in (
        ("transcribe", finished, spoken),
        ("adapt", finished, spoken, "--speaker", "x", "-o", tmp_path / "x.safetensors"),
        ("align", finished, spoken, tmp_path / "words"),
    ):
        assert command(*arguments, "--threads", 3, "--device", "cpu") in (0, None)
        assert taken.pop() == 3
        assert "--device cuda:99: not available" in str(command(*arguments, "--device", "cuda:99"))
        assert command(*arguments, "--threads", 0) == 2


# What is wrong is told in a line.


def hostile(header: bytes, length: int | None = None) -> bytes:
    """A safetensors file: eight bytes for the header's length, the header."""
    return (len(header) if length is None else length).to_bytes(8, "little") + header


@pytest.mark.parametrize(
    "content",
    [
        hostile(b"{}", 2**60),
        hostile(b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,1099511627776]}}'),
        hostile(b'{"a":{"dtype":"F32","shape":[1152921504606846976],"data_offsets":[0,4611686018427387904]}}'),
        hostile(b"{}"),
        b"",
        b"RIFF",
    ],
)
def test_a_hostile_speakers_file_is_one_line(
    content: bytes, finished: Path, spoken: Path, tmp_path: Path, command
) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    for arguments in (("transcribe", finished, "--speaker", path, spoken), ("speakers", "show", path)):
        message = str(command(*arguments))
        assert message.startswith(f"lhuc-asr: error: {path}: ")
        assert "\n" not in message


def test_bad_recordings_are_one_line(finished: Path, tmp_path: Path, command) -> None:
    samples = np.random.default_rng(0).uniform(-0.1, 0.1, 16000)
    (tmp_path / "text.wav").write_text("no sound")
    soundfile.write(tmp_path / "cut.wav", samples, 16000)
    content = (tmp_path / "cut.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(content[:10_000])
    (tmp_path / "nothing").mkdir()
    for name, message in (
        ("text.wav", "not a WAV, FLAC"),
        ("cut.wav", "truncated"),
        ("nothing", "no recording in this folder"),
        ("gone.flac", "no such recording"),
    ):
        for arguments in (("transcribe", finished), ("adapt", finished, "--speaker", "x", "-o", tmp_path / "x")):
            shown = str(command(*arguments, tmp_path / name))
            assert message in shown
            assert shown.startswith(f"lhuc-asr: error: {tmp_path / name}: ")
    assert not (tmp_path / "x").exists()


def test_one_bad_file_does_not_lose_the_others(
    finished: Path, spoken: Path, tmp_path: Path, command, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "talks").mkdir()
    for name in ("one.flac", "two.flac"):
        shutil.copy(spoken, tmp_path / "talks" / name)
    (tmp_path / "talks/bad.wav").write_bytes(b"RIFF")
    bad = f"left out 1 of 3 recordings, the others are done; {tmp_path}/talks/bad.wav: "
    assert bad in str(command("transcribe", finished, tmp_path / "talks", "-o", tmp_path / "out.txt"))
    assert [line.split()[0] for line in (tmp_path / "out.txt").read_text().splitlines()] == ["one", "two"]
    assert f"left out: {tmp_path}/talks/bad.wav: " in capsys.readouterr().err
    assert bad in str(
        command("adapt", finished, "--speaker", "x", tmp_path / "talks", "-o", tmp_path / "x.safetensors")
    )
    assert (tmp_path / "x.safetensors").exists()


def test_an_output_never_replaces_an_input(finished: Path, spoken: Path, tmp_path: Path, command) -> None:
    recording, text, person = tmp_path / "a.flac", tmp_path / "text", tmp_path / "bob.safetensors"
    shutil.copy(spoken, recording)
    text.write_text("a go\n")
    assert command("adapt", finished, "--speaker", "bob", recording, "-o", f"{tmp_path}/") in (0, None)
    adapt = ("adapt", finished, recording, "--transcripts", text, "--overwrite", "--speaker", "x", "-o")
    transcribe = ("transcribe", finished, recording, "--speaker", person, "--overwrite", "-o")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for arguments in (
        (*adapt, recording), (*adapt, text), (*transcribe, recording), (*transcribe, person),
        (*transcribe, finished), (*transcribe, finished / "config.yaml"), (*adapt, finished / "model.json"),
    ):  # fmt: skip
        assert str(command(*arguments)).endswith("choose another output")
    assert "is the file of the speaker 'bob'" in str(
        command("adapt", finished, recording, "--speaker", "x", "-o", person)
    )
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_process_that_is_told_to_end_cleans_up(number: signal.Signals, tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from lhuc_asr.cli import main as m\n"
        "from lhuc_asr.base.atomic import atomic_path\n"
        "def app():\n"
        "    with atomic_path(Path(sys.argv[1])) as path:\n"
        "        path.write_text('half'); os.kill(os.getpid(), int(sys.argv[2]))\n"
        "m.app = app; m.main()"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "out", str(int(number))], capture_output=True, text=True
    )
    assert (ran.returncode, ran.stderr) == (128 + number, "lhuc-asr: interrupted\n")
    assert list(tmp_path.iterdir()) == []
