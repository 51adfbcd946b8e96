"""Pitch and level of voices, beside which a speaker's can be seen.

A voice far from all that the network was trained on is one that adaptation has much to do for.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lhuc_asr.audio.pitch import SAMPLE_RATE, Pyin, load_pyin, pitch_of
from lhuc_asr.audio.recording import read_audio
from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.errors import AudioError
from lhuc_asr.base.executor import Executor
from lhuc_asr.base.runlog import progress
from lhuc_asr.base.units import FRAME_SHIFT_SECONDS

logger = logging.getLogger(__name__)

# So much of a speaker's first recordings settles the median of the pitch within a few hertz.
SECONDS = 10.0
# Level of the loud parts: what 5 % of the hundredths of a second exceed.
LOUD_FRACTION = 0.95


@dataclass(frozen=True)
class Voice:
    """A speaker's voice, as their first recordings have it.

    Attributes:
        pitch: Median fundamental frequency of the voiced frames, hertz; None where nothing is voiced.
        level: Level of the loud parts, decibels of full scale.
    """

    pitch: float | None
    level: float


def voices(utterances: Iterable[Utterance], processes: int) -> dict[str, Voice]:
    """The voice of each speaker; those whose recordings are not there any more are left out, with a warning.

    Args:
        utterances: Recordings of all speakers.
        processes: Number of processes.

    Raises:
        MissingExtraError: librosa is not installed (extra ``pitch``).
    """
    first: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        mine = first.setdefault(utterance.speaker, [])
        if sum(each.seconds for each in mine) < SECONDS:
            mine.append(utterance)
    with Executor(processes, load_pyin) as executor:
        measured = executor.map(_voice, first.values())
        known = dict(zip(first, progress(measured, "voices", len(first)), strict=True))
    lost = [name for name, voice in known.items() if voice is None]
    if lost:
        logger.warning(
            "%d of %d speakers have recordings that cannot be read; their voices are not shown: %s",
            len(lost), len(known), ", ".join(lost[:8]),
        )  # fmt: skip
    return {name: voice for name, voice in known.items() if voice is not None}


def _voice(pyin: Pyin, utterances: Sequence[Utterance]) -> Voice | None:
    """The voice in some recordings of a speaker; None where one cannot be read."""
    try:
        samples = np.concatenate([read_audio(each, SAMPLE_RATE) for each in utterances])
    except AudioError:
        return None
    samples = samples[: round(SECONDS * SAMPLE_RATE)]
    voiced = pitch_of(pyin, samples)
    return Voice(float(np.median(voiced)) if len(voiced) else None, loud_level(samples))


def loud_level(samples: np.ndarray) -> float:
    """Level of the loud parts of samples (N,) at ``SAMPLE_RATE``, decibels of full scale."""
    hop = round(FRAME_SHIFT_SECONDS * SAMPLE_RATE)
    whole = samples[: max(hop, len(samples) // hop * hop)].astype(np.float64)
    power = np.square(whole).reshape(-1, min(hop, len(whole))).mean(axis=1)
    return 10.0 * float(np.log10(max(float(np.quantile(power, LOUD_FRACTION)), 1e-14)))


def in_words(voice: Voice, training: Collection[Voice]) -> str:
    """Where a voice stands among those that its network was trained on.

    Example:
        >>> in_words(Voice(220.0, -20.0), [Voice(110.0, -15.0), Voice(120.0, -25.0)])
        'Voice: pitch 220 Hz, higher than 2 of 2 training speakers; level -20 dB of full scale, louder than 1 of 2.'
    """
    level = f"level {voice.level:.0f} dB of full scale"
    if voice.pitch is None:
        pitch = "no pitch was found"
    else:
        pitch = f"pitch {voice.pitch:.0f} Hz"
        known = [each.pitch for each in training if each.pitch is not None]
        if known:
            pitch += f", higher than {sum(each < voice.pitch for each in known)} of {len(known)} training speakers"
    if training:
        level += f", louder than {sum(each.level < voice.level for each in training)} of {len(training)}"
    return f"Voice: {pitch}; {level}."
