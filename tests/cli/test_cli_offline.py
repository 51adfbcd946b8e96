"""The verbs for a new speaker, as typed: export, info, adapt, transcribe, speakers."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lhuc_asr.audio.utterance import read_manifest
from lhuc_asr.base.tensors import load_tensors, save_tensors
from lhuc_asr.cli import main as command_line
from lhuc_asr.lhuc.speaker import SpeakerState
from lhuc_asr.recognizer.recognizer import Recognizer

# A process in which the network is cut: whatever asks for it dies with a traceback.
WITHOUT_NETWORK = (
    "import socket\n"
    "def refused(*a, **k): raise AssertionError('the network was asked for')\n"
    "socket.socket.__init__ = socket.getaddrinfo = refused\n"
    "from lhuc_asr.cli.main import main; main()"
)


@pytest.fixture
def command(package_log, monkeypatch: pytest.MonkeyPatch):
    """Run ``lhuc-asr`` in this process; returns what it exits with."""

    def call(*arguments: object) -> object:
        monkeypatch.setattr(sys, "argv", ["lhuc-asr", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            command_line.main()
        return caught.value.code

    return call


@pytest.fixture
def spoken(finished: Path) -> Path:
    """A recording of a test speaker."""
    return next(u.audio for u in read_manifest(finished / "corpus" / "test.jsonl") if u.speaker == "2001")


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
        "s are cut into pieces of at most",
        "lhuc on best_path targets, as in pass lhuc, seed 3",
    ):
        assert words in shown
    labels = ("network hash", "first search", "adapted search", "method options")
    assert all(f"\n{label:16}" in shown for label in labels)


def test_formats_and_where_they_go(
    finished: Path, spoken: Path, tmp_path: Path, command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("transcribe", finished, spoken, "--format", "json") in (0, None)
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["recording"], row["text"].split()) == (spoken.stem, [word["word"] for word in row["words"]])
    assert command("transcribe", finished, spoken, "--format", "ctm", "-o", tmp_path / "out.ctm") in (0, None)
    assert [line.split()[4] for line in (tmp_path / "out.ctm").read_text().splitlines()] == row["text"].split()
    two = sorted(spoken.parent.glob("*.flac"))[:2]
    assert command("transcribe", finished, *two, "--format", "srt", "-o", tmp_path / "captions") in (0, None)
    assert sorted(path.name for path in (tmp_path / "captions").iterdir()) == [f"{path.stem}.srt" for path in two]
    assert "SRT holds one recording, found 2" in str(command("transcribe", finished, *two, "--format", "srt"))


@pytest.mark.parametrize("form", ["stm", "tsv", "vtt", "textgrid"])
def test_every_format_is_written_and_known_again(
    form: str, finished: Path, spoken: Path, tmp_path: Path, command, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for _ in range(2):  # the second time over what is there
        assert command("transcribe", finished, spoken, "--format", form, "-o", f"{out}/") in (0, None)
    capsys.readouterr()
    assert command("transcribe", finished, spoken, "--format", form) in (0, None)
    (path,) = out.iterdir()
    assert path.suffix.lower() == f".{form}"
    assert path.read_text() == capsys.readouterr().out
    path.write_text("mine")
    assert "is not a transcript" in str(command("transcribe", finished, spoken, "--format", form, "-o", f"{out}/"))


def test_a_speaker_is_named_or_their_file_is(
    finished: Path, spoken: Path, tmp_path: Path, command, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert command("adapt", finished, spoken, "--speaker", "alice", "-o", "speakers/") in (0, None)
    capsys.readouterr()
    for speaker in ("alice", "speakers/alice.safetensors"):
        assert command("transcribe", finished, spoken, "--speaker", speaker, "--format", "json") in (0, None)
        assert json.loads(capsys.readouterr().out)[0]["speaker"] == "alice"
    assert "carol: neither a file nor a speaker in carol.safetensors or speakers/carol.safetensors" in str(
        command("transcribe", finished, spoken, "--speaker", "carol")
    )
    shutil.copy("speakers/alice.safetensors", "carol.safetensors")
    assert "carol.safetensors: holds the speaker 'alice', not 'carol'; name the file" in str(
        command("transcribe", finished, spoken, "--speaker", "carol")
    )


def test_transcripts_are_adapted_to(finished: Path, spoken: Path, tmp_path: Path, command) -> None:
    word = (finished / "lang" / "lexicon.txt").read_text().split()[0]
    (tmp_path / "text").write_text(f"{spoken.stem} {word.lower()}\n")
    out = tmp_path / "x.safetensors"
    arguments = ("adapt", finished, "--speaker", "x", spoken, "--transcripts", tmp_path / "text", "-o", out)
    assert command(*arguments) in (0, None)
    assert out.exists()


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


# What is wrong is told in a line.


@pytest.mark.parametrize("name", ["../../x", "/x", "a/b", ".x", ""])
def test_a_name_that_leads_elsewhere_writes_nothing(
    name: str, finished: Path, spoken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command
) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    assert "speaker name" in str(command("adapt", finished, "--speaker", name, spoken))
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "b"]


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


def test_a_persons_file_for_another_model_is_not_replaced(
    finished: Path, spoken: Path, tmp_path: Path, command, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "bob.safetensors"
    adapt = ("adapt", finished, spoken, "--speaker", "bob", "-o", out)
    assert command(*adapt) in (0, None)
    tensors, description = load_tensors(out)
    save_tensors(out, tensors, {**description, "model": "0" * 64})
    before = out.read_bytes()
    assert "is the file of the speaker 'bob', for another model; choose another output, or --overwrite" in str(
        command(*adapt)
    )
    assert out.read_bytes() == before
    assert command(*adapt, "--overwrite") in (0, None)
    assert load_tensors(out)[1] == description


def test_a_persons_file_that_appears_while_another_is_adapted_to_is_not_replaced(
    finished: Path, spoken: Path, tmp_path: Path, command, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, other = tmp_path / "x.safetensors", tmp_path / "other.safetensors"
    assert command("adapt", finished, spoken, "--speaker", "alice", "-o", other) in (0, None)
    real = Recognizer.adapt_corpus

    def slow(*arguments: object, **options: object) -> Iterator[object]:
        for adaptation in real(*arguments, **options):  # type: ignore[arg-type]
            shutil.copy(other, out)
            yield adaptation

    monkeypatch.setattr(Recognizer, "adapt_corpus", slow)
    assert "is the file of the speaker 'alice'" in str(
        command("adapt", finished, spoken, "--speaker", "bob", "-o", out)
    )
    assert out.read_bytes() == other.read_bytes()


def test_a_transcription_goes_on_where_it_was_ended(
    finished: Path, spoken: Path, tmp_path: Path, command, capsys: pytest.CaptureFixture[str]
) -> None:
    audio, out = spoken.parent, f"{tmp_path}/out/"
    assert command("transcribe", finished, audio, "-o", out) in (0, None)
    whole = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    first, second, *_ = sorted(whole)
    (tmp_path / "out" / first).write_text("kept")
    (tmp_path / "out" / second).unlink()
    assert command("transcribe", finished, audio, "-o", out, "--skip-existing") in (0, None)
    told = f"skipped, their files exist: {len(whole) - 1} of {len(whole)} recordings"
    assert told in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == whole | {first: b"kept"}
    assert f"{first}: exists and is not a transcript" in str(command("transcribe", finished, audio, "-o", out))
    assert command("transcribe", finished, audio, "--skip-existing") == 2


def test_a_channel_is_named_in_json(
    finished: Path, spoken: Path, tmp_path: Path, command, capsys: pytest.CaptureFixture[str]
) -> None:
    samples, rate = soundfile.read(spoken)
    soundfile.write(tmp_path / "anti.wav", np.stack([samples, -samples], axis=1), rate)
    rows = []
    for options in ((), ("--channel", "2")):
        assert command("transcribe", finished, tmp_path / "anti.wav", "--format", "json", *options) in (0, None)
        rows += json.loads(capsys.readouterr().out)
    assert [row["channel"] for row in rows] == [1, 2]
    assert rows[0]["text"] == rows[1]["text"] != ""
    assert rows[0]["left_out"] == []
    adapt = ("adapt", finished, tmp_path / "anti.wav", "--speaker", "x", "--channel", "3")
    assert "speaker 'x': none of 1 recordings can be used" in str(command(*adapt))
    assert "anti.wav: channel 3 was asked for, expected 1 to 2" in capsys.readouterr().err


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


def test_a_name_that_is_not_utf8_is_one_like_any_other(
    finished: Path, spoken: Path, tmp_path: Path, command, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = tmp_path / os.fsdecode(b"caf\xe9.flac")
    shutil.copy(spoken, recording)
    assert command("transcribe", finished, recording, "-o", f"{tmp_path}/out/", "--format", "json") in (0, None)
    (path,) = (tmp_path / "out").iterdir()
    assert path.name == "caf\\xe9.json"
    assert json.loads(path.read_text())[0]["path"].endswith("/caf\\xe9.flac")


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


def test_an_interrupted_transcription_promises_nothing(
    finished: Path, spoken: Path, monkeypatch: pytest.MonkeyPatch, command, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lhuc_asr.recognizer.recognizer.load", interrupted)
    assert command("transcribe", finished, spoken) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "lhuc-asr: interrupted"


def test_a_corpus_is_adapted_to_by_one_command(
    finished: Path, tmp_path: Path, command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for utterance in read_manifest(finished / "corpus" / "test.jsonl"):
        Path("people", utterance.speaker).mkdir(parents=True, exist_ok=True)
        shutil.copy(utterance.audio, Path("people", utterance.speaker))
    for _ in range(2):  # the second time over what is there
        assert command("adapt", finished, "people/", "--threads", 1) in (0, None)
        shown = capsys.readouterr().out.splitlines()
        assert [line.split(":")[0] for line in shown] == ["2001", "2002"]
        assert re.fullmatch(
            r"2001: speakers/2001\.safetensors  3 recordings, \d+\.\d s, (\d+) of \1 words believed, "
            r"amplitudes moved by 0\.\d{3}",
            shown[0],
        )
    assert SpeakerState.load(tmp_path / "speakers" / "2002.safetensors").speaker == "2002"
    Path("people/broken").mkdir()
    Path("people/broken/x.wav").write_bytes(b"RIFF")
    assert "left out 1 of 7 recordings" in str(command("adapt", finished, "people", "-o", "others/"))
    assert sorted(path.stem for path in Path("others").iterdir()) == ["2001", "2002"]
    shutil.copy("speakers/2001.safetensors", "speakers/2002.safetensors")
    assert "is the file of the speaker '2001'" in str(command("adapt", finished, "people"))
    Path("file").touch()
    assert "is a file; the speakers of a corpus" in str(command("adapt", finished, "people", "-o", "file"))
    assert command("adapt", finished, "people/2001/x.flac") == 2
    assert "is in no speaker's folder" in str(command("adapt", finished, "people/2001"))


def test_what_adaptation_changed_is_shown(
    finished: Path, tmp_path: Path, command, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rates are those of the experiment's passes over the same recordings."""
    reference, people = tmp_path / "reference", tmp_path / "people"
    with reference.open("w") as file:
        for utterance in read_manifest(finished / "corpus" / "test.jsonl"):
            (people / utterance.speaker).mkdir(parents=True, exist_ok=True)
            copy = Path(shutil.copy(utterance.audio, people / utterance.speaker))
            copy.with_suffix(".lab").write_text(utterance.text)
            file.write(f"{copy.stem} {utterance.text.lower()}\n")
    rates = {}
    for name in ("si", "lhuc"):
        report = json.loads((finished / "decode" / "test" / name / "wer.json").read_text())
        rates[name] = f"WER {100 * report['wer']:.2f} % ({report['errors']} errors in {report['words']} words), CER "
    for given in (reference, people):
        assert command("adapt", finished, people, "-o", f"{tmp_path}/out/", "--evaluate", given) in (0, None)
        *_, before, after, change = capsys.readouterr().out.splitlines()
        assert before.startswith(f"unadapted  {rates['si']}")
        assert after.startswith(f"adapted    {rates['lhuc']}")
        assert change.endswith("over 2 speakers: not significant")
    one = ("adapt", finished, people / "2001", "--speaker", "2001", "-o", f"{tmp_path}/out/")
    assert command(*one, "--evaluate", reference) in (0, None)
    assert "over the recordings of one speaker" in capsys.readouterr().out
    assert command(*one, "--evaluate", reference, "--transcripts", reference) == 2
    reference.write_text("other go\n")
    assert "reference: has no words of these recordings" in str(command(*one, "--evaluate", reference))


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
