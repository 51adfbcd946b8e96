"""One function turns seconds into frames, and it counts windows as Kaldi does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhuc_asr.base.units import FRAME_LENGTH_SECONDS, FRAME_SHIFT_SECONDS, frames_of, samples_of, seconds_of


@given(samples=st.integers(0, 5_000), sample_rate=st.sampled_from([8000, 16000, 22050, 44100]))
def test_frames_are_the_windows_that_fit(samples: int, sample_rate: int) -> None:
    window = round(FRAME_LENGTH_SECONDS * sample_rate)
    shift = round(FRAME_SHIFT_SECONDS * sample_rate)
    fitting = sum(1 for first in range(0, samples, shift) if first + window <= samples)
    assert frames_of(samples / sample_rate, sample_rate) == fitting


@pytest.mark.parametrize(("seconds", "frames"), [(0.0, 0), (0.0249, 0), (0.025, 1), (0.0349, 1), (0.035, 2), (1.0, 98)])
def test_frames_at_16_kilohertz(seconds: float, frames: int) -> None:
    assert frames_of(seconds) == frames


@given(frames=st.integers(0, 10**7))
def test_seconds_and_back(frames: int) -> None:
    assert samples_of(seconds_of(frames), 16000) == 160 * frames
