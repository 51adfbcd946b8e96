"""``info`` of recordings, as typed; of a model it is in test_cli_offline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from lhuc_asr.base.espeak import SAMPLE_RATE, Voice, synthesize


@pytest.fixture
def said(tmp_path: Path) -> Path:
    """A folder of a deep and a high voice, the high one clipped."""
    for name, variant, gain in (("deep", "m1", 1.0), ("high", "f2", 12.0)):
        samples = synthesize("all my words are spoken here", Voice(variant=variant)).samples
        soundfile.write(tmp_path / f"{name}.wav", np.clip(gain * samples, -1, 1), SAMPLE_RATE)
    return tmp_path


def test_recordings_are_described(command, said: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("info", said) in (0, None)
    heading, deep, high, fault = capsys.readouterr().out.splitlines()
    assert heading.split() == ["recording", "seconds", "Hz", "channels", "level", "dB", "clipped", "speech"]
    assert deep.split()[0] == "deep"
    seconds, rate, channels, _, clipped, *_ = deep.split()[1:]
    assert float(seconds) == pytest.approx(soundfile.info(said / "deep.wav").duration, abs=0.05)
    assert (rate, channels, clipped) == ("22050", "1", "0.0")
    assert float(high.split()[5]) > 1.0
    assert fault.startswith(f"{said / 'high.wav'}: clipped, ")
    assert max(map(len, (heading, deep, high))) <= 100


def test_a_high_voice_has_a_higher_pitch(command, said: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("info", said, "--pitch") in (0, None)
    _, deep, high, every, _ = capsys.readouterr().out.splitlines()
    medians = [float(line.split("%")[-1].split("(")[0]) for line in (deep, high)]
    assert 60 < 1.3 * medians[0] < medians[1] < 400
    assert medians[0] <= float(every.removeprefix("pitch of all: ").split("(")[0]) <= medians[1]


def test_what_is_no_recording_is_named(command, said: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (said / "text.wav").write_text("no sound")
    assert "left out 1 of 3 recordings, the others are done" in str(command("info", said))
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert "nowhere: no such recording" in str(command("info", said / "nowhere"))


def test_an_option_of_recordings_is_refused_for_a_model(command, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text("{}")
    assert command("info", tmp_path, "--pitch") == 2
