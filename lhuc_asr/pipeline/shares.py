"""Which recordings of a speaker are adapted on, and which are decoded with what was learned there."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from lhuc_asr.base.units import FRAME_SHIFT_SECONDS
from lhuc_asr.features.store import FeatureStore, StoredUtterance
from lhuc_asr.pipeline.recipe import DataConfig


@dataclass(frozen=True)
class Share:
    """One set of amplitudes: the data that it is estimated on, and the utterances that it is used for.

    Attributes:
        name: Of the row; the speaker's, unless a speaker has several.
        estimated_on: Utterances, and how many of their frames count.
        used_for: Utterances.
    """

    name: str
    estimated_on: tuple[tuple[StoredUtterance, int], ...]
    used_for: tuple[StoredUtterance, ...]


def shares(store: FeatureStore, data: DataConfig, seed: int) -> list[Share]:
    """The shares of every speaker of a split.

    Two-pass adaptation decodes all of a speaker's utterances with amplitudes estimated on them, or on as much of them
    as ``data`` allows. One-shot adaptation halves them: each half is decoded with amplitudes estimated on the other.
    Online, each utterance is decoded with amplitudes estimated on those before it, in the corpus' order; of these the
    latest, where ``data`` allows only so much.

    Args:
        store: Features of the split.
        data: How much, and which way.
        seed: Of the order in which a speaker's utterances are taken, but for online adaptation; it does not depend on
            who else is there.
    """
    found = []
    for speaker, utterances in store.speakers.items():
        order = list(utterances)
        random.Random(f"{seed} {speaker}").shuffle(order)
        match data.mode:
            case "two_pass":
                found.append(Share(speaker, _limited(order, data), utterances))
            case "one_shot":
                halves = order[::2], order[1::2]
                for number, (own, other) in enumerate((halves, halves[::-1]), start=1):
                    found.append(Share(f"{speaker}.{number}", _limited(other, data), tuple(own)))
            case "online":
                for number, utterance in enumerate(utterances, start=1):
                    earlier = utterances[: number - 1][::-1]
                    found.append(Share(f"{speaker}.{number}", _limited(earlier, data), (utterance,)))
    return [share for share in found if share.used_for]


def _limited(utterances: Sequence[StoredUtterance], data: DataConfig) -> tuple[tuple[StoredUtterance, int], ...]:
    left = float("inf") if data.seconds is None else round(data.seconds / FRAME_SHIFT_SECONDS)
    chosen = []
    for utterance in utterances[: data.utterances]:
        frames = int(min(utterance.frames, left))
        left -= frames
        if frames:
            chosen.append((utterance, frames))
    return tuple(chosen)
