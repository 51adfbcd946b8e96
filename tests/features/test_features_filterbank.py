"""Features against torchaudio's port of Kaldi, deltas against their formula, frame counts against base.units."""

import numpy as np
import pytest
import torch
import torchaudio.compliance.kaldi as kaldi
from hypothesis import given
from hypothesis import strategies as st
from torchaudio.functional import compute_deltas, create_dct

from lhuc_asr.base.config import parse_config
from lhuc_asr.base.errors import ConfigError, FeatureError
from lhuc_asr.base.units import frames_of
from lhuc_asr.features.filterbank import BLOCK, FeatureConfig, RecipeFeatures, add_deltas, compute_features


def _recording(sample_rate: int, seconds: float = 0.7, seed: int = 0) -> np.ndarray:
    """A gliding tone with a pause, an offset and some noise: loud and quiet frames, and a DC part to remove."""
    generator = np.random.default_rng(seed)
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    tone = 0.3 * np.sin(2 * np.pi * (200 * time + 900 * time**2)) * (np.abs(time - 0.4) > 0.1)
    return (0.01 + tone + 0.002 * generator.standard_normal(len(time))).astype(np.float32)


@pytest.mark.parametrize("sample_rate", [8000, 16000])
@pytest.mark.parametrize("bins", [23, 40])
def test_filterbanks_are_kaldis(sample_rate, bins):
    samples = _recording(sample_rate)
    found = compute_features(samples, FeatureConfig(sample_rate=sample_rate, bins=bins))
    expected = kaldi.fbank(
        torch.from_numpy(samples[None]) * 32768,
        sample_frequency=sample_rate,
        num_mel_bins=bins,
        dither=0.0,
        window_type="povey",
        snip_edges=True,
        use_energy=False,
    )
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-3)


@pytest.mark.parametrize("sample_rate", [8000, 16000])
@pytest.mark.parametrize(("bins", "cepstra"), [(23, 13), (40, 20)])
def test_mfcc_are_kaldis(sample_rate, bins, cepstra):
    samples = _recording(sample_rate)
    found = compute_features(samples, FeatureConfig(kind="mfcc", sample_rate=sample_rate, bins=bins, cepstra=cepstra))
    expected = kaldi.mfcc(
        torch.from_numpy(samples[None]) * 32768,
        sample_frequency=sample_rate,
        num_mel_bins=bins,
        num_ceps=cepstra,
        dither=0.0,
        window_type="povey",
        snip_edges=True,
        use_energy=False,
    )
    # Liftering multiplies the rounding of the logarithms by up to 12.
    np.testing.assert_allclose(found, expected.numpy(), atol=3e-3)


def test_the_same_recording_gives_the_same_bits():
    samples = _recording(16000)
    first, second = (compute_features(samples, FeatureConfig()) for _ in range(2))
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("sample_rate", [8000, 16000])
def test_digital_silence_has_the_mean_energies_of_quantization_noise(sample_rate):
    """Measured on such noise: sample values between two integers, uniform over the step."""
    noise = np.random.default_rng(3).uniform(-0.5, 0.5, 60 * sample_rate).astype(np.float32)
    config = FeatureConfig(sample_rate=sample_rate, bins=23)
    power = kaldi.fbank(
        torch.from_numpy(noise[None]),
        sample_frequency=sample_rate,
        num_mel_bins=23,
        dither=0.0,
        use_log_fbank=False,
    )
    silence = compute_features(np.zeros(4000, np.float32), config)
    np.testing.assert_allclose(silence, np.broadcast_to(power.mean(0).log().numpy(), silence.shape), atol=0.1)


def test_cepstra_of_digital_silence_are_those_of_the_same_energies():
    silence = np.zeros(4000, np.float32)
    energies = compute_features(silence, FeatureConfig())
    cepstra = compute_features(silence, FeatureConfig(kind="mfcc"))
    lifter = 1 + 11 * np.sin(np.pi * np.arange(13) / 22)
    expected = create_dct(13, 40, norm="ortho").numpy() * lifter
    np.testing.assert_allclose(cepstra, energies @ expected, atol=3e-4)


def test_a_recording_above_the_floor_is_left_as_it_is_and_a_muted_pause_does_not_reach_below_it():
    samples = _recording(16000)
    muted = samples.copy()
    muted[4800:8000] = 0.0
    before, after = (compute_features(values, FeatureConfig()) for values in (samples, muted))
    floor = compute_features(np.zeros(400, np.float32), FeatureConfig())[0]
    np.testing.assert_array_equal(after[:27], before[:27])
    np.testing.assert_array_equal(after[30:47], np.broadcast_to(floor, (17, 40)))
    assert (after >= floor).all()


def test_long_recordings_are_computed_in_blocks_without_a_seam():
    samples = np.random.default_rng(1).standard_normal(16000 * 12).astype(np.float32) * 0.1
    whole = compute_features(samples, FeatureConfig())
    assert len(whole) > 2 * BLOCK
    later = compute_features(samples[160 * 300 :], FeatureConfig())
    np.testing.assert_allclose(later, whole[300:], atol=1e-4)


def test_scaling_a_recording_shifts_every_bin_by_the_logarithm_of_the_power():
    samples = _recording(16000)
    loud, quiet = (compute_features(samples * gain, FeatureConfig()) for gain in (1.0, 0.5))
    np.testing.assert_allclose(loud - quiet, 2 * np.log(2.0), atol=1e-3)


@given(sample_rate=st.sampled_from([8000, 16000, 22050, 44100, 48000]), extra=st.integers(0, 5000))
def test_frames_are_those_of_base_units(sample_rate, extra):
    samples = np.full(round(0.025 * sample_rate) + extra, 0.1, np.float32)
    features = compute_features(samples, FeatureConfig(sample_rate=sample_rate, bins=10))
    assert features.shape == (frames_of(len(samples) / sample_rate, sample_rate), 10)


@pytest.mark.parametrize("samples", [0, 1, 399])
def test_less_than_a_window_is_refused(samples):
    with pytest.raises(FeatureError, match=rf"{samples} samples at 16000 Hz are less than one window of 25 ms"):
        compute_features(np.zeros(samples, np.float32), FeatureConfig())


def test_more_bins_than_the_spectrum_can_fill_are_refused():
    with pytest.raises(ConfigError, match="128 mel bins at 8000 Hz"):
        parse_config(FeatureConfig, {"sample_rate": 8000, "bins": 128}, "recipe")
    with pytest.raises(ConfigError, match="128 mel bins at 16000 Hz"):
        parse_config(RecipeFeatures, {"bins": 128}, "recipe")
    with pytest.raises(ConfigError, match="100 mel bins at 8000 Hz"):
        RecipeFeatures(bins=100, sample_rate=48000).with_rate(8000)


def test_more_cepstra_than_bins_are_refused():
    with pytest.raises(ConfigError, match="20 mel bins at 16000 Hz, 30 cepstra"):
        parse_config(FeatureConfig, {"kind": "mfcc", "bins": 20, "cepstra": 30}, "recipe")


def test_features_of_a_recipe_have_a_rate_when_the_recordings_are_known():
    features = RecipeFeatures(bins=30)
    with pytest.raises(ValueError, match="no sample rate before the recordings are read"):
        _ = features.resolved
    assert features.with_rate(8000).resolved == FeatureConfig(sample_rate=8000, bins=30)


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("kind", ["fbank", "mfcc"])
def test_dimension_is_the_width(kind, order):
    config = FeatureConfig(kind=kind, delta_order=order)
    assert compute_features(_recording(16000), config).shape[1] == config.dimension


@pytest.mark.parametrize("frames", [1, 2, 3, 9, 40])
def test_deltas_are_those_of_torchaudio(frames):
    features = np.random.default_rng(frames).standard_normal((frames, 3)).astype(np.float32)
    expected = compute_deltas(torch.from_numpy(features.T.copy()), win_length=5).T.numpy()
    np.testing.assert_allclose(add_deltas(features, 1), np.hstack([features, expected]), atol=1e-6)


@pytest.mark.parametrize("frames", [1, 3, 20])
def test_second_deltas_are_the_difference_filter_applied_twice(frames):
    features = np.random.default_rng(frames).standard_normal((frames, 3)).astype(np.float32)
    once = np.arange(-2, 3) / 10
    expected = [features]
    # Kaldi convolves the filters and repeats the edges once, of the static features.
    for kernel in (once, np.convolve(once, once)):
        reach = len(kernel) // 2
        rows = np.clip(np.arange(frames)[:, None] + np.arange(-reach, reach + 1), 0, frames - 1)
        expected.append(np.einsum("n,tnd->td", kernel, features[rows]))
    np.testing.assert_allclose(add_deltas(features, 2), np.hstack(expected), atol=1e-6)
