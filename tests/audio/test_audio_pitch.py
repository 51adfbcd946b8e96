"""Pitch of sounds whose pitch is known."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lhuc_asr.audio.pitch import find_pitch, load_pyin
from lhuc_asr.base.errors import MissingExtraError


def voiced(hertz: float, rate: int, seconds: float = 1.0) -> np.ndarray:
    """Harmonics whose amplitudes fall as a voice's do."""
    times = np.arange(round(seconds * rate)) / rate
    tones = range(1, int(rate / 2 / hertz))
    return sum(0.2 / n * np.sin(2 * np.pi * n * hertz * times) for n in tones if n <= 20)


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
@pytest.mark.parametrize("hertz", [70.0, 118.0, 240.0, 420.0])
def test_the_pitch_of_harmonics_is_their_fundamental(tmp_path: Path, hertz: float, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", np.concatenate([voiced(hertz, rate), np.zeros(rate)]), rate)
    pitch = find_pitch(load_pyin(), tmp_path / "a.wav")
    assert np.median(pitch) == pytest.approx(hertz, rel=0.01)
    assert 0.7 / 0.016 < len(pitch) < 1.2 / 0.016  # a second of two


def test_blocks_and_channels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lhuc_asr.audio.pitch.BLOCK_SECONDS", 1)
    monkeypatch.setattr("lhuc_asr.audio.pitch.MOST_SECONDS", 2)
    low, high = ([voiced(base + step, 16000) for step in (0.0, 30.0, 60.0)] for base in (100.0, 300.0))
    soundfile.write(tmp_path / "a.wav", np.stack([np.concatenate(low), np.concatenate(high)], axis=1), 16000)
    pyin = load_pyin()
    for channel, expected in ((1, (100.0, 130.0)), (2, (300.0, 330.0))):
        pitch = find_pitch(pyin, tmp_path / "a.wav", channel)
        half = len(pitch) // 2  # the third second is left out
        assert np.median(pitch[:half]) == pytest.approx(expected[0], rel=0.01)
        assert np.median(pitch[half:]) == pytest.approx(expected[1], rel=0.01)


def test_silence_has_none(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(16000), 16000)
    assert len(find_pitch(load_pyin(), tmp_path / "a.wav")) == 0


def test_without_librosa_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "librosa", None)
    with pytest.raises(MissingExtraError, match=r"librosa is not installed, .* pip install 'lhuc_asr\[pitch\]'$"):
        load_pyin()
