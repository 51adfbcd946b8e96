"""Adaptation sets: the recordings that parameters are estimated on, and those that are decoded with them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from typing import Literal

from pydantic import Field, model_validator

from lhuc_asr.audio.utterance import spoken_id
from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.errors import CorpusError
from lhuc_asr.base.units import FRAME_SHIFT_SECONDS
from lhuc_asr.features.store import FeatureTable, StoredUtterance


class DataConfig(StrictModel):
    """Options of adaptation sets.

    Attributes:
        utterances: Maximum number of utterances to estimate on, chosen by the seed, or the most recent ones where the
            mode is ``online``; None for all.
        seconds: Maximum length of these utterances, in seconds; None for no limit.
        mode: ``two_pass`` decodes all of a speaker's utterances with parameters estimated on all of them. ``one_shot``
            divides them into ``parts`` and decodes each part with parameters estimated on the others; so an utterance
            is not decoded with parameters that have learned its own errors. ``online`` decodes each utterance with
            parameters estimated on the earlier ones. ``incremental`` does so too, but does not estimate anew: the
            parameters go on from where the utterance before has left them, so that each is learned from once.
        parts: Number of parts of ``one_shot``; None for 2.
        unit: What the parameters adapt to. None is a speaker in all environments, ``joint`` a speaker in one
            environment, and ``environment`` an environment. With ``environment``, the parameters are estimated on the
            other speakers of the split, so they carry nothing about the speaker who is decoded.
        environments: Environments whose recordings a speaker's parameters are estimated on; None for all. The
            parameters are used in every environment. A method that learns from the training speakers also uses only
            their recordings in these environments.
    """

    utterances: int | None = Field(None, ge=1, le=1_000_000_000)
    seconds: float | None = Field(None, gt=0.0, le=1e9)
    mode: Literal["two_pass", "one_shot", "online", "incremental"] = "two_pass"
    parts: int | None = Field(None, ge=2, le=1_000_000)
    unit: Literal["joint", "environment"] | None = None
    environments: tuple[str, ...] | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _possible(self) -> DataConfig:
        if self.parts is not None and self.mode != "one_shot":
            raise ValueError(f"parts: mode {self.mode} has none; leave it out, or choose mode one_shot")
        if self.mode == "incremental" and (self.utterances, self.seconds) != (None, None):
            raise ValueError("mode incremental: learns from each utterance once; leave out utterances and seconds")
        if self.unit is not None and self.environments is not None:
            raise ValueError(
                f"environments: unit {self.unit} estimates in each environment separately; leave one of the two out"
            )
        if self.unit == "environment" and self.mode != "two_pass":
            raise ValueError(
                f"mode {self.mode}: unit environment estimates on other speakers than the one decoded; leave mode out"
            )
        return self


@dataclass(frozen=True)
class AdaptationSet:
    """One set of parameters: the utterances that they are estimated on, and those that are decoded with them.

    Attributes:
        name: Name of the set: the speaker's, with ``.<environment>`` and ``.<number>`` if a speaker has several sets.
        environment: The environment that the set belongs to; "" for all.
        number: Number of the set among several of a speaker in one environment, from 1; 0 where there is one.
        estimated_on: Utterances that the parameters are estimated on, each with the number of leading frames to use.
        used_for: Utterances that are decoded with the parameters.
        after: Name of the set whose parameters these go on from; None for sets that are estimated on their own.
    """

    name: str
    environment: str
    number: int
    estimated_on: tuple[tuple[StoredUtterance, int], ...]
    used_for: tuple[StoredUtterance, ...]
    after: str | None = None

    @property
    def speaker(self) -> str:
        """The speaker who is decoded."""
        return self.used_for[0].speaker


@dataclass(frozen=True)
class _Recording:
    """An utterance, its environment, and the id that it shares with its copies in other environments."""

    stored: StoredUtterance
    environment: str
    spoken: str


def adaptation_sets(
    store: FeatureTable, environments: Mapping[str, str], data: DataConfig, seed: int
) -> list[AdaptationSet]:
    """The adaptation sets of a split; every utterance is decoded with one of them.

    Two-pass adaptation estimates on all of a speaker's utterances, up to the limits in ``data``, and decodes all of
    them. One-shot adaptation divides what was said into parts, and decodes each part with parameters estimated on the
    others. Online adaptation decodes each utterance with parameters estimated on the earlier ones, in corpus order, or
    on the most recent of these if there is a limit. Incremental adaptation does so with parameters that go on from
    utterance to utterance; the copies of one are decoded together. None of these three estimates on copies of what it
    decodes. For an environment, the other speakers' utterances are taken in turn, so that a limit keeps about
    equally many of each speaker's.

    Args:
        store: Features of the split.
        environments: Environment of each utterance, by its id; "" if it is unknown.
        data: Options of the sets.
        seed: Seed of the order in which a speaker's utterances are taken, except in online and incremental adaptation;
            the order does not depend on the other speakers.

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
    sets: list[AdaptationSet] = []
    for speaker, own in recordings.items():
        if data.unit is None:
            sets += _sets_of_speaker(speaker, "", own, data)
            continue
        for environment in sorted({recording.environment for recording in own}):
            name = f"{speaker}.{environment}"
            if data.unit == "joint":
                sets += _sets_of_speaker(name, environment, _in(environment, own), data)
            else:
                others = [_in(environment, theirs) for other, theirs in recordings.items() if other != speaker]
                sets.append(_set(name, environment, 0, _in_turn(others), _in(environment, own), data))
    return [each for each in sets if each.used_for]


def crossed_sets(
    speakers: Sequence[AdaptationSet], environments: Sequence[AdaptationSet]
) -> dict[AdaptationSet, tuple[str, str]]:
    """The adaptation sets of a pass that combines two others.

    Args:
        speakers: Sets of the pass with the speakers' amplitudes.
        environments: Sets of the pass with the environments' amplitudes.

    Returns:
        A set for each pair of a speaker's set and an environment's set that share utterances, with the names of the
        two. These utterances are decoded with the combined parameters; nothing is estimated on the new set.
    """
    environment_of = {utterance.id: each for each in environments for utterance in each.used_for}
    crossed: dict[AdaptationSet, tuple[str, str]] = {}
    for speaker in speakers:
        used: dict[str, list[StoredUtterance]] = {}
        for utterance in speaker.used_for:
            used.setdefault(environment_of[utterance.id].name, []).append(utterance)
        for utterances in used.values():
            where = environment_of[utterances[0].id]
            names = speaker.name, where.name
            crossed[AdaptationSet("+".join(names), where.environment, speaker.number, (), tuple(utterances))] = names
    return crossed


def _sets_of_speaker(
    name: str, environment: str, own: Sequence[_Recording], data: DataConfig
) -> Iterator[AdaptationSet]:
    """The sets of a speaker, or of a speaker in one environment, whose recordings are ``own``."""
    match data.mode:
        case "two_pass":
            yield _set(name, environment, 0, own, own, data)
        case "one_shot":
            said = list(dict.fromkeys(recording.spoken for recording in own))
            parts = data.parts or 2
            for number in range(parts):
                part = set(said[number::parts])
                used, others = ([r for r in own if (r.spoken in part) == inside] for inside in (True, False))
                yield _set(f"{name}.{number + 1}", environment, number + 1, others, used, data)
        case "online":
            order = sorted(own, key=lambda recording: recording.stored.first)
            for number, recording in enumerate(order, start=1):
                earlier = [before for before in order[: number - 1] if before.spoken != recording.spoken]
                yield _set(f"{name}.{number}", environment, number, earlier[::-1], [recording], data)
        case "incremental":
            copies: dict[str, list[_Recording]] = {}
            for recording in sorted(own, key=lambda recording: recording.stored.first):
                copies.setdefault(recording.spoken, []).append(recording)
            before: list[_Recording] = []
            for number, those in enumerate(copies.values(), start=1):
                each = _set(f"{name}.{number}", environment, number, before, those, data)
                yield each if number == 1 else replace(each, after=f"{name}.{number - 1}")
                before = those


def _set(
    name: str,
    environment: str,
    number: int,
    estimated_on: Sequence[_Recording],
    used: Sequence[_Recording],
    data: DataConfig,
) -> AdaptationSet:
    places = data.environments
    kept = [recording.stored for recording in estimated_on if places is None or recording.environment in places]
    used_for = sorted((recording.stored for recording in used), key=lambda utterance: utterance.first)
    return AdaptationSet(name, environment, number, _limited(kept, data), tuple(used_for))


def _in(environment: str, recordings: Sequence[_Recording]) -> list[_Recording]:
    return [recording for recording in recordings if recording.environment == environment]


def _in_turn(orders: Iterable[Sequence[_Recording]]) -> list[_Recording]:
    """The first recording of each list, then the second of each, and so on."""
    return [recording for recording in chain.from_iterable(zip_longest(*orders)) if recording is not None]


def _refuse_unknown(store: FeatureTable, everywhere: set[str], data: DataConfig) -> None:
    known = ", ".join(sorted(everywhere - {""})) or "none"
    if data.unit is not None and "" in everywhere:
        raise CorpusError(
            f"{store.title}: unit {data.unit}: some utterances have no environment (known: {known}); name the "
            "environment of each utterance in the corpus, or make environments with noise:"
        )
    missing = sorted(set(data.environments or ()) - everywhere)
    if missing:
        raise CorpusError(f"{store.title}: no utterance in the environments {', '.join(missing)}; known: {known}")
    if data.unit == "environment" and len(store.speakers) < 2:
        raise CorpusError(
            f"{store.title}: unit environment: the split has only one speaker, and an environment is estimated on the "
            "others; use a split with more speakers, or another unit"
        )


def _limited(utterances: Sequence[StoredUtterance], data: DataConfig) -> tuple[tuple[StoredUtterance, int], ...]:
    left = float("inf") if data.seconds is None else round(data.seconds / FRAME_SHIFT_SECONDS)
    chosen = []
    for utterance in utterances[: data.utterances]:
        frames = int(min(utterance.frames, left))
        left -= frames
        if frames:
            chosen.append((utterance, frames))
    return tuple(chosen)
