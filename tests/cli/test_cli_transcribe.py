"""``lhuc-asr transcribe`` as typed: formats, places, names, what is left when it ends early."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile


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


def test_a_name_that_is_not_utf8_is_one_like_any_other(
    finished: Path, spoken: Path, tmp_path: Path, command, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = tmp_path / os.fsdecode(b"caf\xe9.flac")
    shutil.copy(spoken, recording)
    assert command("transcribe", finished, recording, "-o", f"{tmp_path}/out/", "--format", "json") in (0, None)
    (path,) = (tmp_path / "out").iterdir()
    assert path.name == "caf\\xe9.json"
    assert json.loads(path.read_text())[0]["path"].endswith("/caf\\xe9.flac")


def test_an_interrupted_transcription_promises_nothing(
    finished: Path, spoken: Path, monkeypatch: pytest.MonkeyPatch, command, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lhuc_asr.recognizer.recognizer.load", interrupted)
    assert command("transcribe", finished, spoken) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "lhuc-asr: interrupted"
