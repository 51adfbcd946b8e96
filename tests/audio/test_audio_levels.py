"""Levels against their definition, and what is steady in them."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from lhuc_asr.audio.levels import levels
from lhuc_asr.audio.recording import read_native
from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.errors import AudioError

RATE = 16000


def bursts(seconds: float, rate: int = RATE) -> np.ndarray:
    """Noise of 0.01 at every other half second, above 200 Hz, and a room that is 40 dB quieter."""
    generator = np.random.default_rng(0)
    count = round(seconds * rate)
    spectrum = np.fft.rfft(generator.normal(0.0, 0.01, count))
    spectrum[np.fft.rfftfreq(count, 1 / rate) < 200] = 0.0
    loud = np.arange(count) // (rate // 2) % 2 == 1
    return np.fft.irfft(spectrum, count) * np.where(loud, 1.0, 0.01)


def hum(hertz: float, count: int) -> np.ndarray:
    """Mains hum that is 20 dB louder than the bursts, with twenty harmonics."""
    times = np.arange(count) / RATE
    return sum(0.1 / n * np.sin(2 * np.pi * hertz * n * times + n) for n in range(1, 21))


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100])
def test_levels_are_mean_squares_of_ten_milliseconds(
    tmp_path: Path, rate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the definition, on two channels; what is below 100 Hz hardly matters in noise."""
    channels = np.random.default_rng(0).uniform(-0.5, 0.5, (round(1.333 * rate), 2)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", channels, rate, subtype="FLOAT")
    found = levels(tmp_path / "a.wav")
    hop = round(found.seconds * rate)
    assert hop == pytest.approx(0.01 * rate, abs=0.5)
    assert found.channel is None
    mono = channels.astype(np.float64).mean(axis=1)
    expected = [np.mean(mono[first : first + hop] ** 2) for first in range(0, len(mono), hop)]
    assert len(found.power) == len(expected)
    np.testing.assert_allclose(found.power[:-1], expected[:-1], rtol=0.3)
    assert found.power.mean() == pytest.approx(np.mean(expected), rel=0.03)


def test_what_is_not_steady_stays_as_it_is(tmp_path: Path) -> None:
    samples = bursts(3.0)
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    expected = np.square(samples).reshape(-1, 160).mean(axis=1)
    loud = expected > 1e-5
    np.testing.assert_allclose(levels(tmp_path / "a.wav").power[loud], expected[loud], rtol=1e-2)


def test_blocks_have_no_borders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "a.wav", bursts(14.0), RATE, subtype="FLOAT")
    whole = levels(tmp_path / "a.wav").power
    monkeypatch.setattr("lhuc_asr.audio.levels.LEVELS_AT_ONCE", 600)
    np.testing.assert_allclose(levels(tmp_path / "a.wav").power, whole, rtol=0.2, atol=1e-8)


@pytest.mark.parametrize(
    "steady",
    [
        np.full(8 * RATE, 0.016),
        np.full(8 * RATE, -0.7),
        hum(50.0, 8 * RATE),
        hum(60.0, 8 * RATE),
        0.2 * np.sin(2 * np.pi * 1000 * np.arange(8 * RATE) / RATE),
    ],
    ids=["offset", "large offset", "hum of 50 Hz", "hum of 60 Hz", "whistle"],
)
def test_a_steady_sound_does_not_hide_another(tmp_path: Path, steady: np.ndarray) -> None:
    soundfile.write(tmp_path / "a.wav", bursts(8.0) + steady, RATE, subtype="FLOAT")
    power = levels(tmp_path / "a.wav").power
    loud = np.arange(800) // 50 % 2 == 1
    assert power[loud].mean() > 0.5e-4
    assert power[loud].mean() > 20 * np.quantile(power[~loud], 0.5)


def test_a_constant_is_silence_even_in_a_short_recording(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(RATE, 0.4), RATE, subtype="FLOAT")
    assert levels(tmp_path / "a.wav").power.max() < 1e-9


@pytest.mark.parametrize("count", [1, 2, 159, 160, 161, 1279, 1281])
def test_a_few_samples_are_no_trouble(tmp_path: Path, count: int) -> None:
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.3, 0.3, count), RATE)
    power = levels(tmp_path / "a.wav").power
    assert len(power) == -(-count // 160)
    assert np.isfinite(power).all()


def test_a_held_vowel_is_not_steady(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", 0.2 * np.sin(2 * np.pi * 300 * np.arange(2 * RATE) / RATE), RATE)
    assert levels(tmp_path / "a.wav").power.min() > 0.01


def test_channels_in_opposite_phase_do_not_cancel(tmp_path: Path) -> None:
    samples = bursts(3.0)
    soundfile.write(tmp_path / "a.wav", np.stack([-0.5 * samples, samples], 1) + 0.1, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "b.wav", samples, RATE, subtype="FLOAT")
    found, expected = levels(tmp_path / "a.wav"), levels(tmp_path / "b.wav")
    assert found.channel == 2
    np.testing.assert_allclose(found.power, expected.power, rtol=1e-2, atol=1e-9)


@pytest.mark.parametrize("seconds", [1.0, 8.0])
@pytest.mark.parametrize("in_first", [0.0, 0.3], ids=["hum in one channel", "hum in both channels"])
def test_hum_does_not_hide_that_channels_cancel(tmp_path: Path, in_first: float, seconds: float) -> None:
    """Both where levels are taken and where samples are read, as for training."""
    samples = bursts(seconds)
    mains = np.sin(2 * np.pi * 50 * np.arange(len(samples)) / RATE)
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([samples + in_first * mains, 0.3 * mains - samples], 1), RATE, subtype="FLOAT")
    found = levels(path)
    assert found.channel in (1, 2)
    assert found.power.max() > 0.5e-4
    read, _ = read_native(Utterance("u", "s", "", path, 0.0, seconds, ""))
    np.testing.assert_array_equal(read, soundfile.read(path, dtype="float32")[0][:, found.channel - 1])


def test_a_channel_can_be_chosen(tmp_path: Path) -> None:
    samples = bursts(1.0)
    soundfile.write(tmp_path / "a.wav", np.stack([0 * samples, samples], 1), RATE)
    assert levels(tmp_path / "a.wav", channel=1).power.max() == 0.0
    assert levels(tmp_path / "a.wav", channel=2).power.max() > 1e-5
    with pytest.raises(AudioError, match=r"a.wav: channel 3 was asked for, expected 1 to 2"):
        levels(tmp_path / "a.wav", channel=3)


def test_samples_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.where(np.arange(RATE) == 77, np.nan, 0.1), RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match="NaN or infinite"):
        levels(tmp_path / "a.wav")
