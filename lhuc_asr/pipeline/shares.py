"""Which recordings amplitudes are estimated on, and which are decoded with them: by speaker, environment, or both."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

from pydantic import Field, model_validator

from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.errors import CorpusError
from lhuc_asr.base.units import FRAME_SHIFT_SECONDS
from lhuc_asr.corpus.noise import spoken_id
from lhuc_asr.features.store import FeatureStore, StoredUtterance


class DataConfig(StrictModel):
    """Which recordings amplitudes are estimated on, and which are decoded with them.

    Attributes:
        utterances: At most so many; which ones, the seed says.
        seconds: At most so much of them.
        one_shot: Whether each half of a speaker's recordings is decoded with what was learned on the other half; else
            all of them with what was learned on all.
        environments: Those whose recordings teach; None all. What is learned is used everywhere.
        by_environment: Whether each environment is learned and decoded by itself.
        other_speakers: Whether the split's other speakers teach, and not the one who is decoded: what is learned is
            then the environment's alone.
    """

    utterances: int | None = Field(None, ge=1)
    seconds: float | None = Field(None, gt=0.0)
    one_shot: bool = False
    environments: tuple[str, ...] | None = Field(None, min_length=1)
    by_environment: bool = False
    other_speakers: bool = False

    @model_validator(mode="after")
    def _possible(self) -> DataConfig:
        if self.by_environment and self.environments is not None:
            raise ValueError("environments: each is learned by itself (by_environment); leave one of the two out")
        if self.other_speakers and self.one_shot:
            raise ValueError("one_shot: other_speakers learn nothing from what is decoded; leave one of the two out")
        return self


@dataclass(frozen=True)
class Share:
    """One set of amplitudes: the data that it is estimated on, and the utterances that it is used for.

    Attributes:
        name: Of the row; the speaker's, with ``.<environment>`` and ``.<half>`` where he has several.
        estimated_on: Utterances, and how many of their frames count.
        used_for: Utterances.
    """

    name: str
    estimated_on: tuple[tuple[StoredUtterance, int], ...]
    used_for: tuple[StoredUtterance, ...]


def shares(store: FeatureStore, environments: Mapping[str, str], data: DataConfig, seed: int) -> list[Share]:
    """The shares of every speaker of a split; every utterance is in one of them to be decoded.

    Two-pass adaptation decodes all of a speaker's utterances with amplitudes estimated on them, or on as much of them
    as ``data`` allows. One-shot adaptation halves what a speaker said: each half, in whatever environments, is decoded
    with amplitudes estimated on the other. With ``other_speakers`` the rest of the split teaches, speaker by speaker in
    turn, so that a limit takes as much of each.

    Args:
        store: Features of the split.
        environments: Of each utterance's id; "" where none is known.
        data: How much, and which way.
        seed: Of the order in which a speaker's utterances are taken; it does not depend on who else is there.

    Raises:
        CorpusError: ``data`` asks for environments or speakers that the split does not have.
    """
    everywhere = set(environments.values())
    _refuse_unknown(store, everywhere, data)
    orders = {speaker: list(utterances) for speaker, utterances in store.speakers.items()}
    for speaker, order in orders.items():
        random.Random(f"{seed} {speaker}").shuffle(order)
    found = []
    for speaker, order in orders.items():
        teachers = [theirs for other, theirs in orders.items() if (other != speaker) == data.other_speakers]
        for name, environment, used in _rows(speaker, order, environments, data):
            places = {environment} if data.by_environment else set(data.environments or everywhere)
            unheard = {_spoken(utterance, environments) for utterance in used} if data.one_shot else set()
            teaching = _in_turn(
                [u for u in theirs if environments[u.id] in places and _spoken(u, environments) not in unheard]
                for theirs in teachers
            )
            found.append(Share(name, _limited(teaching, data), tuple(sorted(used, key=lambda u: u.first))))
    return found


def combined_shares(speakers: Sequence[Share], environments: Sequence[Share]) -> dict[Share, tuple[str, str]]:
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
    return {Share("+".join(names), (), tuple(utterances)): names for names, utterances in used.items()}


def _rows(
    speaker: str, order: Sequence[StoredUtterance], environments: Mapping[str, str], data: DataConfig
) -> Iterator[tuple[str, str, list[StoredUtterance]]]:
    """A speaker's rows: name, environment ("" for all), and the utterances that are decoded with each."""
    said = list(dict.fromkeys(_spoken(utterance, environments) for utterance in order))
    halves = {"1": set(said[::2]), "2": set(said[1::2])} if data.one_shot else {"": set(said)}
    for environment in sorted({environments[u.id] for u in order}) if data.by_environment else [""]:
        for half, own in halves.items():
            used = [u for u in order if _spoken(u, environments) in own and environment in ("", environments[u.id])]
            if used:
                yield ".".join(filter(None, (speaker, environment, half))), environment, used


def _spoken(utterance: StoredUtterance, environments: Mapping[str, str]) -> str:
    return spoken_id(utterance.id, environments[utterance.id])


def _in_turn(orders: Iterable[Sequence[StoredUtterance]]) -> list[StoredUtterance]:
    """The first utterance of each, then the second of each, and so on."""
    return [utterance for utterance in chain.from_iterable(zip_longest(*orders)) if utterance is not None]


def _refuse_unknown(store: FeatureStore, everywhere: set[str], data: DataConfig) -> None:
    known = ", ".join(sorted(everywhere - {""})) or "none"
    if data.by_environment and "" in everywhere:
        raise CorpusError(
            f"{store.folder}: by_environment: utterances without an environment (known: {known}); name each "
            "utterance's in the corpus, or put it into some with noise:"
        )
    missing = sorted(set(data.environments or ()) - everywhere)
    if missing:
        raise CorpusError(f"{store.folder}: no utterance in the environments {', '.join(missing)}; there are: {known}")
    if data.other_speakers and len(store.speakers) < 2:
        raise CorpusError(f"{store.folder}: other_speakers: there is one speaker only; add speakers")


def _limited(utterances: Sequence[StoredUtterance], data: DataConfig) -> tuple[tuple[StoredUtterance, int], ...]:
    left = float("inf") if data.seconds is None else round(data.seconds / FRAME_SHIFT_SECONDS)
    chosen = []
    for utterance in utterances[: data.utterances]:
        frames = int(min(utterance.frames, left))
        left -= frames
        if frames:
            chosen.append((utterance, frames))
    return tuple(chosen)
