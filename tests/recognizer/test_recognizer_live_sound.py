"""The sound of a stream: levels, features and what is spoken, whatever the blocks."""

from __future__ import annotations

import numpy as np
import pytest

from lhuc_asr.features.filterbank import FeatureConfig, compute_features
from lhuc_asr.recognizer.live_sound import EARLIER_FRAMES, STEADY_FRAMES, LiveSound

RATE = 16_000
CONFIG = FeatureConfig(kind="mfcc", delta_order=2, sample_rate=RATE)


def noise(seconds: float, loudness: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, loudness, round(seconds * RATE)).astype(np.float32)


def bursts(seconds: float, loudness: float = 0.1) -> np.ndarray:
    """Syllables: noise that comes and goes four times a second."""
    times = np.arange(round(seconds * RATE)) / RATE
    return (noise(seconds, loudness, 1) * (np.sin(2 * np.pi * 4 * times) > 0)).astype(np.float32)


def heard(samples: np.ndarray, block: int) -> LiveSound:
    sound = LiveSound(CONFIG)
    for first in range(0, len(samples), block):
        sound.add(samples[first : first + block])
    sound.end()
    return sound


def test_levels_and_features_do_not_depend_on_the_blocks() -> None:
    samples = np.concatenate([noise(4.0, 1e-3), bursts(4.0), 0.05 + noise(3.0, 1e-3)])
    sounds = [heard(samples, block) for block in (77, 1600, len(samples))]
    for sound in sounds[1:]:
        np.testing.assert_array_equal(sound._levels[:-20], sounds[0]._levels[:-20])
    expected = compute_features(samples[1600:8000], CONFIG)
    np.testing.assert_allclose(sounds[0].features(10, 10 + len(expected)), expected, atol=1e-5)


@pytest.mark.parametrize("hertz", [0.0, 50.0, 440.0])
def test_what_is_steady_is_not_sound(hertz: float) -> None:
    """An offset and hum from the start, a tone after the seconds that tell that it is steady."""
    times = np.arange(12 * RATE) / RATE
    samples = noise(12.0, 1e-3) + (0.2 * np.cos(2 * np.pi * hertz * times)).astype(np.float32)
    sound = heard(np.concatenate([samples, samples[: 2 * RATE] + bursts(2.0)]), 1600)
    first = 0 if hertz < 100 else 800
    assert sound._levels[first:1150].max() < 1e-4
    assert not sound.spoken(1000, 1150)
    assert sound.spoken(1250, 1390)


def test_a_louder_noise_is_forgotten_a_second_after_it() -> None:
    sound = heard(np.concatenate([noise(20.0, 0.1), noise(1.2, 1e-4), bursts(2.0, 0.05)]), 1600)
    assert not sound.spoken(1800, 2000)
    assert sound.spoken(2130, 2300)


def test_what_is_kept_is_bounded_and_the_next_piece_begins_where_it_should() -> None:
    sound, samples = LiveSound(CONFIG), bursts(60.0)
    for first in range(0, len(samples), 1600):
        sound.add(samples[first : first + 1600])
        if sound.frames > 50:
            sound.forget(50)
        assert len(sound._samples) <= (max(STEADY_FRAMES, EARLIER_FRAMES) + 120) * 160
    begin = round(sound.seconds * RATE)
    assert begin % 160 == 0
    np.testing.assert_allclose(
        sound.features(0, 20), compute_features(samples[begin : begin + 19 * 160 + 400], CONFIG), atol=1e-5
    )
    sound.begin_anew()
    assert sound.frames == 0
    assert sound.seconds == pytest.approx(60.0, abs=0.011)


def test_the_last_levels_wait_for_what_comes_after_them() -> None:
    sound = LiveSound(CONFIG)
    sound.add(noise(1.0, 1e-4))
    assert 90 <= sound.known_frames < sound.frames == 98
    sound.end()
    assert sound.known_frames == 100
    assert not sound.spoken(0, 98)
    assert not sound.spoken(5, 5)
