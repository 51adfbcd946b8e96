"""Levels against their definition."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from lhuc_asr.audio.levels import levels


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100])
def test_levels_are_mean_squares_of_ten_milliseconds(
    tmp_path: Path, rate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the definition, on two channels and over the borders of blocks."""
    monkeypatch.setattr("lhuc_asr.audio.levels.LEVELS_AT_ONCE", 7)
    channels = np.random.default_rng(0).uniform(-0.5, 0.5, (round(0.333 * rate), 2)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", channels, rate, subtype="FLOAT")
    squares, seconds = levels(tmp_path / "a.wav")
    hop = round(seconds * rate)
    assert hop == pytest.approx(0.01 * rate, abs=0.5)
    mono = channels.astype(np.float64).mean(axis=1)
    expected = [np.mean(mono[first : first + hop] ** 2) for first in range(0, len(mono), hop)]
    np.testing.assert_allclose(squares, expected, rtol=1e-5)
