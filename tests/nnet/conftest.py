"""Frames to train small networks on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from corner_frames import corner_frames

from lhuc_asr.nnet.frames import FrameSource


@pytest.fixture
def make_source() -> Callable[..., FrameSource]:
    """Makes a source of frames; see ``corner_frames``."""
    return corner_frames
