"""The small network of scaled_speakers, its speakers, and their cross-entropy with amplitudes."""

from __future__ import annotations

from functools import partial

import pytest
from scaled_speakers import cross_entropy_of, frames_of, small_dnn


@pytest.fixture
def small():
    return small_dnn()


@pytest.fixture
def speaker_of(small):
    return partial(frames_of, small)


@pytest.fixture
def loss_of(small):
    return partial(cross_entropy_of, small)
