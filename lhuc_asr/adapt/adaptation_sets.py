"""Which recordings amplitudes are estimated on, and which are decoded with them: by speaker, environment, or both."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Literal

from pydantic import Field, model_validator

from lhuc_asr.audio.utterance import spoken_id
from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.errors import CorpusError
from lhuc_asr.base.units import FRAME_SHIFT_SECONDS
from lhuc_asr.features.store import FeatureTable, StoredUtterance


class DataConfig(StrictModel):
    """Which recordings amplitudes are estimated on, and which are decoded with them.

    Attributes:
        utterances: At most so many; which ones, the seed says.
        seconds: At most so much of them.
        mode: ``two_pass``: all of a speaker's recordings are decoded with what was learned on all. ``one_shot``: each
            half, or each of so many ``parts``, with what was learned on the rest. ``online``: each with what was
            learned on those before it.
        parts: Of ``one_shot``; None 2. Two-pass adaptation learns the errors where it then decodes: here it does not.
        unit: What is adapted to: None: a speaker, wherever he is. ``joint``: a speaker in an environment.
            ``environment``: an environment; it is learned from the recordings there of the split's other speakers, so
            that it says nothing about the one who is decoded.
        environments: Of the recordings that teach about a speaker; None all. What is learned is used everywhere. A
            technique that learns from the training speakers first learns from their recordings there.
    """

    utterances: int | None = Field(None, ge=1)
    seconds: float | None = Field(None, gt=0.0)
    mode: Literal["two_pass", "one_shot", "online"] = "two_pass"
    parts: int | None = Field(None, ge=2)
    unit: Literal["joint", "environment"] | None = None
    environments: tuple[str, ...] | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _possible(self) -> DataConfig:
        if self.parts is not None and self.mode != "one_shot":
            raise ValueError(f"parts: mode {self.mode} has none; leave it out, or take mode one_shot")
        if self.unit is not None and self.environments is not None:
            raise ValueError(f"environments: unit {self.unit} learns in each by itself; leave one of the two out")
        if self.unit == "environment" and self.mode != "two_pass":
            raise ValueError(
                f"mode {self.mode}: an environment is learned from others than who is decoded; leave it out"
            )
        return self


@dataclass(frozen=True)
class AdaptationSet:
    """One set of amplitudes: the data that it is estimated on, and the utterances that it is used for.

    Attributes:
        name: Of the row; the speaker's, with ``.<environment>`` and ``.<number>`` where he has several.
        estimated_on: Utterances, and how many of their frames count.
        used_for: Utterances.
    """

    name: str
    estimated_on: tuple[tuple[StoredUtterance, int], ...]
    used_for: tuple[StoredUtterance, ...]


@dataclass(frozen=True)
class _Recording:
    """An utterance, where it was recorded, and the id that it shares with its copies in other environments."""

    stored: StoredUtterance
    environment: str
    spoken: str


def adaptation_sets(
    store: FeatureTable, environments: Mapping[str, str], data: DataConfig, seed: int
) -> list[AdaptationSet]:
    """The shares of every speaker of a split; every utterance is decoded with one of them.

    Two-pass adaptation decodes all of a speaker's utterances with amplitudes estimated on them, or on as much of them
    as ``data`` allows. One-shot adaptation halves what was said, or parts it more finely: each part is decoded with
    amplitudes estimated on the others. Online, each utterance is decoded with amplitudes estimated on those before it,
    in the corpus' order; of these the latest, where ``data`` allows only so much. Neither learns from a copy of what it
    decodes. Of an environment the other speakers teach in turn, so that a limit takes as much of each.

    Args:
        store: Features of the split.
        environments: Of each utterance's id; "" where none is known.
        data: How much, and which way.
        seed: Of the order in which a speaker's utterances are taken, but for online adaptation; it does not depend on
            who else is there.

    Raises:
        CorpusError: ``data`` asks for environments or speakers that the split does not have.
    """
    _refuse_unknown(store, set(environments.values()), data)
    recordings = {
        speaker: [_Recording(u, environments[u.id], spoken_id(u.id, environments[u.id])) for u in utterances]
        for speaker, utterances in store.speakers.items()
    }
    for speaker, theirs in recordings.items():
        random.Random(f"{seed} {speaker}").shuffle(theirs)
    found: list[AdaptationSet] = []
    for speaker, own in recordings.items():
        if data.unit is None:
            found += _of_speaker(speaker, own, data)
            continue
        for environment in sorted({recording.environment for recording in own}):
            name = f"{speaker}.{environment}"
            if data.unit == "joint":
                found += _of_speaker(name, _in(environment, own), data)
            else:
                others = [_in(environment, theirs) for other, theirs in recordings.items() if other != speaker]
                found.append(_share(name, _in_turn(others), _in(environment, own), data))
    return [share for share in found if share.used_for]


def crossed_sets(
    speakers: Sequence[AdaptationSet], environments: Sequence[AdaptationSet]
) -> dict[AdaptationSet, tuple[str, str]]:
    """Shares of two passes crossed.

    Returns:
        A share for each two of which both are used for some utterance, to be used for these, and the names of the two.
        Nothing is estimated on it.
    """
    environment_of = {utterance.id: share.name for share in environments for utterance in share.used_for}
    used: dict[tuple[str, str], list[StoredUtterance]] = {}
    for share in speakers:
        for utterance in share.used_for:
            used.setdefault((share.name, environment_of[utterance.id]), []).append(utterance)
    return {AdaptationSet("+".join(names), (), tuple(utterances)): names for names, utterances in used.items()}


def _of_speaker(name: str, own: Sequence[_Recording], data: DataConfig) -> Iterator[AdaptationSet]:
    """The shares of a speaker, all of whose recordings these are, or of a speaker in an environment."""
    match data.mode:
        case "two_pass":
            yield _share(name, own, own, data)
        case "one_shot":
            said = list(dict.fromkeys(recording.spoken for recording in own))
            parts = data.parts or 2
            for number in range(parts):
                part = set(said[number::parts])
                used, others = ([r for r in own if (r.spoken in part) == inside] for inside in (True, False))
                yield _share(f"{name}.{number + 1}", others, used, data)
        case "online":
            order = sorted(own, key=lambda recording: recording.stored.first)
            for number, recording in enumerate(order, start=1):
                earlier = [before for before in order[: number - 1] if before.spoken != recording.spoken]
                yield _share(f"{name}.{number}", earlier[::-1], [recording], data)


def _share(name: str, teaching: Sequence[_Recording], used: Sequence[_Recording], data: DataConfig) -> AdaptationSet:
    places = data.environments
    heard = [recording.stored for recording in teaching if places is None or recording.environment in places]
    used_for = sorted((recording.stored for recording in used), key=lambda utterance: utterance.first)
    return AdaptationSet(name, _limited(heard, data), tuple(used_for))


def _in(environment: str, recordings: Sequence[_Recording]) -> list[_Recording]:
    return [recording for recording in recordings if recording.environment == environment]


def _in_turn(orders: Iterable[Sequence[_Recording]]) -> list[_Recording]:
    """The first recording of each, then the second of each, and so on."""
    return [recording for recording in chain.from_iterable(zip_longest(*orders)) if recording is not None]


def _refuse_unknown(store: FeatureTable, everywhere: set[str], data: DataConfig) -> None:
    known = ", ".join(sorted(everywhere - {""})) or "none"
    if data.unit is not None and "" in everywhere:
        raise CorpusError(
            f"{store.title}: unit {data.unit}: there are utterances without an environment (known: {known}); name "
            "each utterance's in the corpus, or put it into some with noise:"
        )
    missing = sorted(set(data.environments or ()) - everywhere)
    if missing:
        raise CorpusError(f"{store.title}: no utterance in the environments {', '.join(missing)}; there are: {known}")
    if data.unit == "environment" and len(store.speakers) < 2:
        raise CorpusError(f"{store.title}: unit environment: there is one speaker only, and no other to learn it from")


def _limited(utterances: Sequence[StoredUtterance], data: DataConfig) -> tuple[tuple[StoredUtterance, int], ...]:
    left = float("inf") if data.seconds is None else round(data.seconds / FRAME_SHIFT_SECONDS)
    chosen = []
    for utterance in utterances[: data.utterances]:
        frames = int(min(utterance.frames, left))
        left -= frames
        if frames:
            chosen.append((utterance, frames))
    return tuple(chosen)
