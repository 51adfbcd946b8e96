"""Controls: what a recognizer gains by parameters that carry nothing of the speaker who is decoded.

    others_mean   the mean of the other speakers' parameters (``AdaptedSpeakers.pooled``): the gain that all have
    another       the parameters of one other speaker, drawn by the seed: the loss by somebody else's

Both borrow what the pass's own method estimated; a method on top of transforms, or vectors, keeps each speaker's
own, unless ``Stacked.pools_below`` says that their mean is borrowed too. A set borrows from matching sets:
of each other speaker the one of its environment and its number. So a control differs from its pass in whose the
parameters are, not in the environment or the amount of data that they were estimated on, and only a gain over
``others_mean`` is the speaker's own.

For sets that belong to an environment, the others are the speaker's other environments: such sets are estimated without
the speaker who is decoded already.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from lhuc_asr.adapt.adaptation_sets import AdaptationSet
from lhuc_asr.adapt.method import AdaptedSpeakers, speaker_of_each
from lhuc_asr.base.errors import SpeakerError


@dataclass(frozen=True)
class Borrowed:
    """Parameters that sets borrow from others; a ``SpeakerScores``.

    Attributes:
        speakers: For each set, by its name, parameters of others that it is decoded with.
    """

    speakers: Mapping[str, AdaptedSpeakers]

    def log_likelihoods(self, speakers: str | Sequence[str], utterances: Sequence[np.ndarray]) -> np.ndarray:
        """Log p(x | pdf) of utterances with the borrowed parameters; see ``SpeakerScores``.

        Raises:
            SpeakerError: A set borrows nothing.
        """
        names = speaker_of_each(speakers, utterances)
        scores = [each.log_likelihoods([], []) for each in islice(self.speakers.values(), 1)]
        for name, features in zip(names, utterances, strict=True):
            if name not in self.speakers:
                raise SpeakerError(f"{name!r} borrows no parameters; known: {', '.join(self.speakers)}")
            scores.append(self.speakers[name].log_likelihoods(name, [features]))
        return np.concatenate(scores)


def others_mean(speakers: AdaptedSpeakers, sets: Sequence[AdaptationSet], by_environment: bool) -> Borrowed:
    """Each set with the mean parameters of the matching sets, one of each other speaker.

    Args:
        speakers: Parameters of all sets.
        sets: The sets.
        by_environment: Whether the sets belong to environments.

    Raises:
        SpeakerError: A set has no others.
    """
    borrowed: dict[str, AdaptedSpeakers] = {}
    sets_of = _by_speaker(sets)
    pools: dict[tuple[str, ...], list[str]] = {}
    for each in sets:
        lenders = _lenders(each, sets_of, by_environment).values()
        pools.setdefault(tuple(lender.name for lender in lenders), []).append(each.name)
    for over, names in pools.items():
        borrowed |= dict.fromkeys(names, speakers.pooled(names, over))
    return Borrowed(borrowed)


def another(speakers: AdaptedSpeakers, sets: Sequence[AdaptationSet], by_environment: bool, seed: int) -> Borrowed:
    """Each set with the parameters of the matching set of one other speaker, the same for all sets of a speaker.

    Args:
        speakers: Parameters of all sets.
        sets: The sets.
        by_environment: Whether the sets belong to environments.
        seed: Seed of the choice; a speaker's does not depend on the order of the sets.

    Raises:
        SpeakerError: A set has no others.
    """
    borrowed: dict[str, AdaptedSpeakers] = {}
    sets_of = _by_speaker(sets)
    for each in sets:
        lenders = _lenders(each, sets_of, by_environment)
        chosen = random.Random(f"{seed} {each.speaker}").choice(sorted(lenders))
        borrowed[each.name] = speakers.pooled([each.name], [lenders[chosen].name])
    return Borrowed(borrowed)


def _by_speaker(sets: Sequence[AdaptationSet]) -> dict[str, list[AdaptationSet]]:
    by_speaker: dict[str, list[AdaptationSet]] = {}
    for each in sets:
        by_speaker.setdefault(each.speaker, []).append(each)
    return by_speaker


def _lenders(
    borrower: AdaptationSet, sets_of: Mapping[str, Sequence[AdaptationSet]], by_environment: bool
) -> dict[str, AdaptationSet]:
    """The sets that a set borrows from, by speaker, or by environment for sets that belong to one.

    Raises:
        SpeakerError: There are none.
    """
    if by_environment:
        others = {each.environment: each for each in sets_of[borrower.speaker] if each is not borrower}
    else:
        others = {name: _like(borrower, theirs) for name, theirs in sets_of.items() if name != borrower.speaker}
    if not others:
        raise SpeakerError(f"{borrower.name!r}: no other set has parameters to lend; a control needs one")
    return others


def _like(wanted: AdaptationSet, sets: Sequence[AdaptationSet]) -> AdaptationSet:
    """The set of a speaker's whose number is nearest, in the wanted environment if they have sets there."""
    there = [each for each in sets if each.environment == wanted.environment] or sets
    return min(there, key=lambda each: abs(each.number - wanted.number))
