"""Recordings at other rates and speeds."""

from pathlib import Path

import numpy as np
import pytest

from lhuc_asr.audio.resampling import change_speed, resample, resample_blocks
from lhuc_asr.audio.utterance import Utterance

RATE = 16000


def utterance(path: Path, seconds: float, start: float = 0.0) -> Utterance:
    return Utterance("u", "s", "", path, start, seconds, "")


def tone(hertz: float, sample_rate: int, seconds: float = 0.5) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * sample_rate)) / sample_rate)


def test_equal_rates_and_speed_one_leave_the_samples_as_they_are() -> None:
    samples = tone(440, RATE).astype(np.float32)
    assert resample(samples, RATE, RATE) is samples
    assert change_speed(samples, 1.0) is samples


@pytest.mark.parametrize("rates", [(44100, 16000), (16000, 8000), (8000, 16000), (90, 100), (11025, 16000)])
@pytest.mark.parametrize("length", [1, 2, 7, 4001, 4002, 4003])
def test_resampling_is_that_of_librosa(rates: tuple[int, int], length: int) -> None:
    """Bit for bit, without its import, which needs a place for compiled code."""
    import librosa

    samples = np.random.default_rng(length).uniform(-0.5, 0.5, length).astype(np.float32)
    expected = librosa.resample(samples, orig_sr=rates[0], target_sr=rates[1], res_type="soxr_hq")
    resampled = resample(samples, *rates)
    assert resampled.dtype == np.float32
    np.testing.assert_array_equal(resampled, expected)


@pytest.mark.parametrize("speed", [0.9, 1.1, 1.25])
def test_a_faster_recording_is_shorter_and_higher(speed: float) -> None:
    samples = change_speed(tone(440, RATE).astype(np.float32), speed)
    assert samples.dtype == np.float32
    assert len(samples) == pytest.approx(0.5 * RATE / speed, abs=1)
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 8 * RATE))
    assert spectrum.argmax() / 8 == pytest.approx(440 * speed, abs=1)


@pytest.mark.parametrize("rates", [(48000, 16000), (44100, 16000), (11025, 8000), (16000, 16000)])
@pytest.mark.parametrize("block", [997, 20000])
def test_a_recording_in_blocks_is_resampled_as_a_whole(rates: tuple[int, int], block: int) -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 50_001).astype(np.float32)
    blocks = (samples[first : first + block] for first in range(0, len(samples), block))
    joined, whole = np.concatenate(list(resample_blocks(blocks, *rates))), resample(samples, *rates)
    assert abs(len(joined) - len(whole)) <= 2
    length = min(len(joined), len(whole))
    np.testing.assert_allclose(joined[:length], whole[:length], atol=1e-6)
