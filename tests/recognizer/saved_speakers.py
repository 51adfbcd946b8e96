"""Speakers as their files keep them."""

from __future__ import annotations

from pathlib import Path

from lhuc_asr.lhuc.speaker import SpeakerState
from lhuc_asr.recognizer.speaker import Speaker


def state(speaker: Speaker, folder: Path) -> SpeakerState:
    """What is in the speaker's file."""
    speaker.save(folder / "state.safetensors")
    return SpeakerState.load(folder / "state.safetensors")
