"""Samples that are known by construction, and recordings that must be refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lhuc_asr.audio.recording import is_silent, read_audio, read_native
from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.errors import AudioError

RATE = 16000


def utterance(path: Path, seconds: float, start: float = 0.0) -> Utterance:
    return Utterance("u", "s", "", path, start, seconds, "")


def tone(hertz: float, sample_rate: int, seconds: float = 0.5) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * sample_rate)) / sample_rate)


@pytest.mark.parametrize("ending", ["wav", "flac"])
def test_sixteen_bit_samples_come_back_as_parts_of_full_scale(tmp_path: Path, ending: str) -> None:
    integers = np.array([-32768, -1, 0, 1, 32767, *range(1000)], dtype=np.int16)
    soundfile.write(tmp_path / f"a.{ending}", integers, RATE)
    samples = read_audio(utterance(tmp_path / f"a.{ending}", len(integers) / RATE), RATE)
    assert samples.dtype == np.float32
    np.testing.assert_array_equal(samples, integers / 32768)


@pytest.mark.parametrize("ending", ["wav", "flac"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.integers(0, 7999), st.data())
def test_an_utterance_is_a_slice_of_its_recording(tmp_path: Path, ending: str, first: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 8000 - first))
    integers = np.arange(8000, dtype=np.int16)
    path = tmp_path / f"a.{ending}"
    if not path.exists():
        soundfile.write(path, integers, RATE)
    samples = read_audio(utterance(path, count / RATE, first / RATE), RATE)
    np.testing.assert_array_equal(samples, integers[first : first + count] / 32768)


def test_channels_are_averaged(tmp_path: Path) -> None:
    left_right = np.tile([0.5, -0.25], (RATE // 2, 1))
    soundfile.write(tmp_path / "a.wav", left_right, RATE)
    np.testing.assert_array_equal(read_audio(utterance(tmp_path / "a.wav", 0.5), RATE), 0.125)


@pytest.mark.parametrize("scale", [-1.0, -0.7])
def test_channels_in_opposite_phase_do_not_cancel(tmp_path: Path, scale: float) -> None:
    """The loudest channel is taken, or the one that is asked for."""
    left = tone(440, RATE)
    soundfile.write(tmp_path / "a.wav", np.stack([left, scale * left], 1), RATE, subtype="FLOAT")
    whole = utterance(tmp_path / "a.wav", 0.5)
    np.testing.assert_allclose(read_audio(whole, RATE), left, atol=1e-6)
    np.testing.assert_allclose(read_audio(replace(whole, channel=2), RATE), scale * left, atol=1e-6)


def test_a_channel_can_be_chosen(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.tile([0.5, -0.25, 0.125], (RATE // 2, 1)), RATE)
    whole = utterance(tmp_path / "a.wav", 0.5)
    for channel, value in enumerate([0.5, -0.25, 0.125], start=1):
        np.testing.assert_array_equal(read_audio(replace(whole, channel=channel), RATE), value)
    for channel in (0, -1, 4):
        with pytest.raises(AudioError, match=rf"a.wav: channel {channel} was asked for, expected 1 to 3"):
            read_audio(replace(whole, channel=channel), RATE)


def test_unlike_channels_are_averaged_still(tmp_path: Path) -> None:
    channels = np.random.default_rng(0).uniform(-0.5, 0.5, (RATE // 2, 2))
    channels[:, 1] *= 0.1
    soundfile.write(tmp_path / "a.wav", channels, RATE, subtype="DOUBLE")
    samples = read_audio(utterance(tmp_path / "a.wav", 0.5), RATE)
    np.testing.assert_allclose(samples, channels.mean(axis=1), atol=1e-6)


@pytest.mark.parametrize(
    ("samples", "silent"),
    [
        (np.zeros(800), True),
        (np.full(800, 0.3), True),
        (np.random.default_rng(0).integers(-1, 2, 800) / 32768, True),
        (np.random.default_rng(0).integers(-1, 2, 800) / 32768 + 0.1, True),
        (np.where(np.arange(800) == 5, 4 / 32768, 0.0), False),
        (1e-3 * tone(440, RATE), False),
    ],
)
def test_digital_silence_is_constant_but_for_its_dither(samples: np.ndarray, silent: bool) -> None:
    assert is_silent(samples.astype(np.float32)) == silent


def test_resampling_keeps_what_the_new_rate_can_hold(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(1000, 44100) + 0.4 * tone(12000, 44100), 44100, subtype="FLOAT")
    samples = read_audio(utterance(path, 0.5), RATE)
    assert len(samples) == RATE // 2
    middle = slice(1000, -1000)  # a filter rings where the recording begins and ends
    np.testing.assert_allclose(samples[middle], tone(1000, RATE)[middle], atol=1e-3)


def test_telephone_speech_stays_at_eight_kilohertz(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(440, 8000), 8000)
    assert len(read_audio(utterance(tmp_path / "a.wav", 0.5), 8000)) == 4000


def test_overshoot_is_clipped_below_one(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.tile([1.2, -1.2, 0.5], 1000), RATE, subtype="FLOAT")
    samples = read_audio(utterance(tmp_path / "a.wav", 3000 / RATE), RATE)
    assert samples.dtype == np.float32
    assert samples.min() == -1.0
    assert 0.9999 < samples.max() < 1.0
    assert samples[2] == 0.5


def write_missing(path: Path) -> None:
    path.unlink(missing_ok=True)


def write_empty(path: Path) -> None:
    path.touch()


def write_text(path: Path) -> None:
    path.write_text("this is no recording\n" * 10)


def write_no_samples(path: Path) -> None:
    soundfile.write(path, np.zeros(0), RATE)


def write_nan(path: Path) -> None:
    soundfile.write(path, np.where(np.arange(8000) == 77, np.nan, 0.1), RATE, subtype="FLOAT")


def write_infinity(path: Path) -> None:
    soundfile.write(path, np.where(np.arange(8000) == 77, np.inf, 0.1), RATE, subtype="FLOAT")


def write_unscaled(path: Path) -> None:
    soundfile.write(path, 20000 * tone(440, RATE), RATE, subtype="FLOAT")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (write_missing, "no such recording"),
        (write_empty, "the file is empty"),
        (write_text, "not a WAV, FLAC, Ogg, MP3, .* recording"),
        (write_no_samples, "the recording has no samples"),
        (write_nan, "NaN or infinite"),
        (write_infinity, "NaN or infinite"),
        (write_unscaled, "samples reach 10000, expected at most 1; .* divide them by full scale"),
    ],
)
def test_useless_recordings_are_refused(tmp_path: Path, write, message: str) -> None:
    path = tmp_path / "a.wav"
    write(path)
    with pytest.raises(AudioError, match=message) as caught:
        read_audio(utterance(path, 0.5), RATE)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(cut=st.integers(1, 4000))
def test_no_cut_goes_unnoticed(tmp_path: Path, ending: str, cut: int) -> None:
    whole = tmp_path / f"whole.{ending}"
    if not whole.exists():
        soundfile.write(whole, np.random.default_rng(0).uniform(-0.3, 0.3, 8000), RATE)
    content = whole.read_bytes()
    assert len(content) > 4000
    assert len(read_native(utterance(whole, 0.5))[0]) == 8000
    short = tmp_path / f"short.{ending}"
    short.write_bytes(content[:-cut])
    with pytest.raises(AudioError):
        read_native(utterance(short, 0.5))


def test_the_manifest_is_compared_within_one_frame(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(440, RATE), RATE)
    assert len(read_audio(utterance(path, 0.509), RATE)) == 8000
    with pytest.raises(AudioError, match=r"truncated: it lasts 0.500 s, but utterance u ends at 0.520 s"):
        read_audio(utterance(path, 0.52), RATE)


@pytest.mark.parametrize("wrong", [{"start": -0.1}, {"seconds": 0.0}, {"seconds": -1.0}, {"seconds": float("nan")}])
def test_impossible_stretches_are_refused(tmp_path: Path, wrong: dict[str, float]) -> None:
    soundfile.write(tmp_path / "a.wav", tone(440, RATE), RATE)
    with pytest.raises(AudioError, match="expected a beginning of 0 or more and a length above 0"):
        read_audio(replace(utterance(tmp_path / "a.wav", 0.5), **wrong), RATE)
