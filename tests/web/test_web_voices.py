"""Voices of a report: pitch and level of synthetic sounds, and where a speaker stands among the training speakers."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lhuc_asr.audio.utterance import Utterance, read_manifest
from lhuc_asr.study.run import run_benchmark
from lhuc_asr.web.report_file import write_report
from lhuc_asr.web.sounds import Sounds
from lhuc_asr.web.voices import Voice, in_words, loud_level, voices

RATE = 16000


def spoken(folder: Path, speaker: str, hertz: float, amplitude: float, seconds: float = 3.0) -> Utterance:
    """A recording of a tone with harmonics, which YIN takes for a voice."""
    time = np.arange(round(seconds * RATE)) / RATE
    tone = sum(np.sin(2 * np.pi * hertz * k * time) / k for k in range(1, 8))
    path = folder / f"{speaker}.wav"
    soundfile.write(path, (amplitude * tone / np.abs(tone).max()).astype(np.float32), RATE, subtype="FLOAT")
    return Utterance(
        id=f"{speaker}-1",
        speaker=speaker,
        audio=path,
        start=0.0,
        seconds=seconds,
        text="a",
        environment="",
        channel=None,
    )


def test_pitch_and_level_are_those_of_the_sound(tmp_path: Path) -> None:
    known = voices([spoken(tmp_path, "low", 110.0, 0.5), spoken(tmp_path, "high", 220.0, 0.05)], processes=1)
    assert known["low"].pitch == pytest.approx(110.0, rel=0.01)
    assert known["high"].pitch == pytest.approx(220.0, rel=0.01)
    assert known["low"].level - known["high"].level == pytest.approx(20.0, abs=0.5)


def test_the_level_of_a_full_sine_is_three_decibels_below_full_scale() -> None:
    sine = np.sin(2 * np.pi * 1000.0 * np.arange(RATE) / RATE).astype(np.float32)
    assert loud_level(sine) == pytest.approx(-3.01, abs=0.01)
    assert loud_level(np.zeros(40, dtype=np.float32)) == pytest.approx(-140.0)


def test_a_speaker_whose_recording_is_gone_has_no_voice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    here, gone = spoken(tmp_path, "here", 150.0, 0.3), spoken(tmp_path, "gone", 150.0, 0.3)
    gone.audio.unlink()
    assert voices([here, gone], processes=1).keys() == {"here"}
    assert "1 of 2 speakers have recordings that cannot be read" in caplog.text


def test_a_voice_in_words() -> None:
    training = [Voice(100.0, -30.0), Voice(None, -10.0), Voice(300.0, -20.0)]
    assert in_words(Voice(200.0, -15.0), training) == (
        "Voice: pitch 200 Hz, higher than 1 of 2 training speakers; level -15 dB of full scale, louder than 2 of 3."
    )
    assert in_words(Voice(None, -15.0), []) == "Voice: no pitch was found; level -15 dB of full scale."


def test_the_page_shows_voices_and_the_error_rate_by_seconds_once_made(finished: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "exp"))
    before = write_report(folder, sounds=Sounds.NONE).read_text("utf-8")
    tested = {utterance.speaker for utterance in read_manifest(folder / "corpus" / "test.jsonl")}
    assert before.count("<p>Voice: pitch ") == len(tested)
    assert "pitch and level of the test speakers" in before
    assert "by the seconds of speech" not in before
    run_benchmark(folder, ["seconds"])
    after = write_report(folder, sounds=Sounds.NONE).read_text("utf-8")
    assert "by the seconds of speech that were adapted on" in after


def test_without_the_extra_the_page_has_no_voices_and_the_log_says_so(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "librosa", None)
    path = write_report(finished, sounds=Sounds.NONE, output=tmp_path / "page.html")
    assert "Voice:" not in path.read_text("utf-8")
    assert "does not show voices" in caplog.text
