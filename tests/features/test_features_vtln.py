"""Warped features against torchaudio's port of Kaldi, and against the features that are not warped."""

import numpy as np
import pytest
import torch
import torchaudio.compliance.kaldi as kaldi
from hypothesis import given, settings
from hypothesis import strategies as st

from lhuc_asr.base.errors import FeatureError
from lhuc_asr.features.filterbank import FeatureConfig, compute_features
from lhuc_asr.features.vtln import warped_features

WARPS = (0.85, 0.93, 1.0, 1.07, 1.25)
# Rounding of the quietest energies and of the narrowest bins; liftering multiplies it by up to 12.
LOG_TOLERANCE, CEPSTRA_TOLERANCE = 1e-3, 6e-3


def _recording(sample_rate: int, seconds: float = 0.7, seed: int = 0) -> np.ndarray:
    """A gliding tone with a pause, an offset and some noise: loud and quiet frames, and a DC part to remove."""
    generator = np.random.default_rng(seed)
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    tone = 0.3 * np.sin(2 * np.pi * (200 * time + 900 * time**2)) * (np.abs(time - 0.4) > 0.1)
    return (0.01 + tone + 0.002 * generator.standard_normal(len(time))).astype(np.float32)


def _kaldi(samples: np.ndarray, config: FeatureConfig, warp: float) -> np.ndarray:
    options = {"num_ceps": config.cepstra} if config.kind == "mfcc" else {}
    features: torch.Tensor = getattr(kaldi, config.kind)(
        torch.from_numpy(samples[None]) * 32768,
        sample_frequency=config.sample_rate,
        num_mel_bins=config.bins,
        vtln_warp=warp,
        dither=0.0,
        use_energy=False,
        **options,
    )
    return features.numpy()


@pytest.mark.parametrize("sample_rate", [8000, 16000])
@pytest.mark.parametrize("bins", [23, 40])
@pytest.mark.parametrize(("kind", "tolerance"), [("fbank", LOG_TOLERANCE), ("mfcc", CEPSTRA_TOLERANCE)])
def test_warped_features_are_kaldis(sample_rate, bins, kind, tolerance):
    samples = _recording(sample_rate)
    config = FeatureConfig(kind=kind, sample_rate=sample_rate, bins=bins)
    warped = warped_features(samples, config, WARPS)
    assert warped.dtype == np.float32
    for place, warp in enumerate(WARPS):
        np.testing.assert_allclose(warped[:, place], _kaldi(samples, config, warp), atol=tolerance)


@settings(max_examples=30)
@given(
    sample_rate=st.integers(8000, 48000),
    extra=st.integers(0, 5000),
    kind=st.sampled_from(["fbank", "mfcc"]),
    delta_order=st.integers(0, 2),
)
def test_a_warp_of_one_gives_the_features_themselves(sample_rate, extra, kind, delta_order):
    config = FeatureConfig(kind=kind, sample_rate=sample_rate, bins=20, delta_order=delta_order)
    samples = _recording(sample_rate, 0.03 + extra / sample_rate)
    expected = compute_features(samples, config)
    warped = warped_features(samples, config, [1.0])
    assert warped.shape == (len(expected), 1, config.dimension)
    np.testing.assert_allclose(warped[:, 0], expected, atol=CEPSTRA_TOLERANCE)


@pytest.mark.parametrize("kind", ["fbank", "mfcc"])
def test_many_warps_at_once_are_one_after_the_other(kind):
    samples, config = _recording(16000), FeatureConfig(kind=kind, delta_order=2)
    together = warped_features(samples, config, WARPS)
    alone = [warped_features(samples, config, [warp])[:, 0] for warp in WARPS]
    np.testing.assert_allclose(together, np.stack(alone, axis=1), atol=CEPSTRA_TOLERANCE)


@pytest.mark.parametrize("warp", [0.85, 1.2])
def test_a_tone_moves_to_the_bin_at_its_frequency_times_the_warp(warp):
    config = FeatureConfig(bins=40)
    time = np.arange(8000) / 16000
    tones = {hertz: np.float32(0.3) * np.sin(2 * np.pi * hertz * time).astype(np.float32) for hertz in (1500, 2500)}
    for hertz, tone in tones.items():
        moved = (0.3 * np.sin(2 * np.pi * hertz * warp * time)).astype(np.float32)
        peak = warped_features(tone, config, [warp])[10, 0].argmax()
        assert peak == warped_features(moved, config, [1.0])[10, 0].argmax()
        assert peak != warped_features(tone, config, [1.0])[10, 0].argmax()


def test_digital_silence_is_finite_at_every_warp():
    silence, config = np.zeros(4000, np.float32), FeatureConfig(kind="mfcc", delta_order=2)
    assert np.isfinite(warped_features(silence, config, WARPS)).all()


def test_less_than_a_window_and_bins_that_a_warp_empties_are_refused():
    with pytest.raises(FeatureError, match="399 samples at 16000 Hz are less than one window of 25 ms"):
        warped_features(np.zeros(399, np.float32), FeatureConfig(), WARPS)
    crowded = FeatureConfig(bins=101)
    with pytest.raises(FeatureError, match=r"101 mel bins at 16000 Hz, warp 1.9: "):
        warped_features(np.zeros(400, np.float32), crowded, [1.0, 1.9])
