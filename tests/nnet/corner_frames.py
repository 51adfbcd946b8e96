"""Frames that are each drawn around their pdf's corner of a square."""

from __future__ import annotations

import numpy as np

from lhuc_asr.features.context import Context
from lhuc_asr.features.store import StoredUtterance
from lhuc_asr.nnet.frames import FrameSource

PDFS, BESIDE = 4, Context.both(1)


def corner_frames(seed: int, frames: int = 600, noise: float = 0.0, context: Context = BESIDE) -> FrameSource:
    """Three utterances; a frame gets a random target with probability ``noise``: more training soon stops to help."""
    generator = np.random.default_rng(seed)
    corners = np.array([[2, 2], [-2, 2], [-2, -2], [2, -2]], np.float32)
    lengths = [frames // 3, frames // 2, frames - frames // 3 - frames // 2]
    # Neighbouring frames share a pdf, as in speech, so that context helps.
    truth = np.repeat(generator.integers(PDFS, size=-(-frames // 10)), 10)[:frames]
    features = (corners[truth] + 0.7 * generator.standard_normal((frames, 2))).astype(np.float32)
    wrong = generator.random(frames) < noise
    targets = np.where(wrong, generator.integers(PDFS, size=frames), truth).astype(np.int32)
    firsts = np.cumsum([0, *lengths[:-1]]).tolist()
    utterances = [
        StoredUtterance(f"u{n}", "s", first, length)
        for n, (first, length) in enumerate(zip(firsts, lengths, strict=True))
    ]
    return FrameSource(features, targets, utterances, context)
