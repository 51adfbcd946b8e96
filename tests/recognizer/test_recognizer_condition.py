"""The condition of recordings whose levels, clipping and pauses are known by construction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from lhuc_asr.audio.levels import FULL_SCALE, levels
from lhuc_asr.recognizer.condition import CLIPPED_SHARE, LEAST_SPEECH, QUIET_DECIBELS, Condition, faults
from lhuc_asr.recognizer.pauses import speech_share

RATE = 16000


def syllables(seconds: float, silence: float, deviation: float = 0.05, room: float = 1e-5) -> np.ndarray:
    """Noise that is on for 0.2 s and off for 0.1 s, then a quiet room."""
    generator = np.random.default_rng(0)
    times = np.arange(round(seconds * RATE)) / RATE
    spoken = generator.normal(0, deviation, len(times)) * (times % 0.3 < 0.2)
    return np.concatenate([spoken, np.zeros(round(silence * RATE))]) + generator.normal(
        0, room, len(times) + round(silence * RATE)
    )


def condition_of(samples: np.ndarray, path: Path) -> Condition:
    soundfile.write(path, samples, RATE, subtype="PCM_24")
    return Condition.of(levels(path))


def test_the_level_is_that_of_the_loud_parts(tmp_path: Path) -> None:
    """A burst of a tone of amplitude 0.1 has a mean square of 0.005."""
    times = np.arange(4 * RATE) / RATE
    samples = 0.1 * np.sin(2 * np.pi * (300 + 200 * times) * times) * (times % 1 < 0.5)
    assert condition_of(samples, tmp_path / "a.wav").decibels == pytest.approx(10 * np.log10(0.005), abs=0.5)


@pytest.mark.parametrize("gain", [1.0, 3.0, 10.0])
def test_the_samples_at_full_scale_are_counted(tmp_path: Path, gain: float) -> None:
    samples = np.clip(gain * syllables(3.0, 1.0, 0.2), -1.0, 1.0 - 2**-23)
    share = np.mean(np.abs(samples) >= FULL_SCALE)
    assert condition_of(samples, tmp_path / "a.wav").clipped == pytest.approx(share, abs=1e-6)
    assert (share > CLIPPED_SHARE) == (gain > 1.0)


def test_a_channel_that_is_clipped_is_seen_in_the_mean(tmp_path: Path) -> None:
    left, right = syllables(3.0, 1.0, 0.01), np.clip(syllables(3.0, 1.0, 2.0), -1.0, 1.0 - 2**-23)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), RATE, subtype="PCM_24")
    right_share = np.mean(np.abs(right) >= FULL_SCALE)
    assert levels(tmp_path / "a.wav").clipped == pytest.approx(right_share / 2, abs=1e-6)
    assert levels(tmp_path / "a.wav", channel=1).clipped == 0.0


@pytest.mark.parametrize(("spoken", "silence"), [(6.0, 0.0), (3.0, 3.0), (1.5, 20.0), (0.6, 60.0)])
def test_the_share_of_speech_is_what_librosa_splits_off(tmp_path: Path, spoken: float, silence: float) -> None:
    """Two thirds of the spoken part is sound; librosa's frames and our smoothing reach a little into the gaps."""
    import librosa

    samples = syllables(spoken, silence)
    share = condition_of(samples, tmp_path / "a.wav").speech
    parts = librosa.effects.split(samples, top_db=30, frame_length=800, hop_length=160)
    assert share == pytest.approx(sum(end - start for start, end in parts) / len(samples), abs=0.05)
    sound = spoken * 2 / 3 / (spoken + silence)
    assert sound * 0.9 < share < min(1.0, sound * 1.5 + 0.01)


def test_one_vowel_is_no_silence_and_a_quiet_room_is() -> None:
    assert speech_share(np.full(50, 1e-2)) == 1.0
    assert speech_share(np.full(50, 1e-9)) == 0.0


def test_what_is_wrong_is_told_once_for_each_fault() -> None:
    good = Condition(-20.0, 0.0, 0.6)
    clipped, quiet, silent = (
        Condition(-5.0, 2 * CLIPPED_SHARE, 0.6),
        Condition(QUIET_DECIBELS - 10, 0.0, 0.6),
        Condition(-20.0, 0.0, LEAST_SPEECH / 3),
    )
    assert faults({"a.wav": good, "b.wav": good}) == []
    assert faults({"a.wav": good, "b.wav": clipped, "c.wav": silent, "d.wav": quiet, "e.wav": clipped}) == [
        "b.wav: clipped, 0.2 % of the samples at full scale (1 more of 5 recordings likewise); record again with less "
        "gain",
        "d.wav: very quiet, -60 dB of full scale; check which microphone was on, and its gain",
        "c.wav: mostly silence, 5 % speech; check that it is the right recording and channel",
    ]
