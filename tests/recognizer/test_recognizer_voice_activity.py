"""Voice activity, and the condition of recordings, where a speaker is adapted or transcribed."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lhuc_asr.base.errors import LhucError, MissingExtraError
from lhuc_asr.recognizer.recognizer import Recognizer
from lhuc_asr.recognizer.speaker import Speaker


def test_a_sound_without_speech_is_left_out_by_voice_activity(
    recognizer: Recognizer, alice: Speaker, audio: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody hammers for 20 s between two sentences, as loud as they are: the levels take it for speech."""
    samples, _ = soundfile.read(min(audio.iterdir()), dtype="float32")
    times = np.arange(20 * 16000) / 16000
    blows = np.random.default_rng(0).normal(0, samples.std(), len(times)) * np.exp(-30 * (times % 0.6))
    long, end = tmp_path / "long.wav", len(samples) / 16000
    soundfile.write(long, np.concatenate([samples, blows, samples]), 16000, subtype="FLOAT")
    for speaker in (None, alice):
        (by_levels,), (by_voice,) = (recognizer.transcribe(long, speaker, vad=vad) for vad in (False, True))
        assert sum(span.end - span.start for span in by_levels.left_out) < 2.0
        (hammering,) = by_voice.left_out
        assert end - 0.2 < hammering.start < end + 6.0
        assert end + 14.0 < hammering.end < end + 20.2
        assert all(not hammering.start < word.start < hammering.end for word in by_voice.words)
    assert "long.wav: left out as sound without speech: " in caplog.text
    with_blows, without = (recognizer.adapt(long, "x", vad=vad).cmvn for vad in (False, True))
    assert with_blows is not None
    assert without is not None
    alone = recognizer.adapt(min(audio.iterdir()), "x").cmvn
    assert alone is not None
    far, near = (np.abs(each.mean - alone.mean).max() for each in (with_blows, without))
    assert near < far / 2


def test_voice_activity_without_its_extra_is_refused_at_once(
    recognizer: Recognizer, audio: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "silero_vad", None)
    problems: list[LhucError] = []
    for job in (recognizer.adapt, recognizer.transcripts):
        with pytest.raises(MissingExtraError, match=r"pip install 'lhuc_asr\[vad\]'$"):
            list(job(audio, vad=True, on_bad=problems.append))
    assert problems == []


def test_what_is_wrong_with_recordings_is_told_before_adaptation(
    recognizer: Recognizer, audio: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recognizer.adapt(audio, "x")
    assert "clipped" not in caplog.text
    samples, rate = soundfile.read(min(audio.iterdir()), dtype="float32")
    soundfile.write(tmp_path / "a.wav", np.clip(50 * samples, -1, 1), rate)
    recognizer.adapt(tmp_path, "x")
    assert "a.wav: clipped, " in caplog.text


def test_short_recordings_are_the_same_with_voice_activity(recognizer: Recognizer, audio: Path) -> None:
    assert recognizer.transcribe(audio, vad=True) == recognizer.transcribe(audio)
