"""Controls: what a recognizer gains by parameters that carry nothing of the speaker who is decoded.

    others_mean   the mean of the other speakers' parameters (``AdaptedSpeakers.pooled``): the gain that all have
    another       the parameters of one other speaker, drawn by the seed: the loss by somebody else's

Both borrow what the pass's own method estimated; a method on top of transforms keeps each speaker's own transform. Only
a gain over ``others_mean`` is the speaker's own. For sets that belong to an environment, the others are the other
environments: such sets are estimated without the speaker who is decoded already.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lhuc_asr.adapt.adaptation_sets import AdaptationSet
from lhuc_asr.adapt.method import AdaptedSpeakers, SpeakerScores
from lhuc_asr.base.errors import SpeakerError


@dataclass(frozen=True)
class Borrowed:
    """Parameters that sets borrow from others; a ``SpeakerScores``.

    Attributes:
        speakers: For each set, by its name, itself with parameters of others.
    """

    speakers: Mapping[str, AdaptedSpeakers]

    def log_likelihoods(self, speakers: str | Sequence[str], utterances: Sequence[np.ndarray]) -> np.ndarray:
        """Log p(x | pdf) of utterances with the borrowed parameters; see ``SpeakerScores``.

        Raises:
            SpeakerError: A set borrows nothing.
        """
        names = [speakers] * len(utterances) if isinstance(speakers, str) else speakers
        scores = []
        for name, features in zip(names, utterances, strict=True):
            if name not in self.speakers:
                raise SpeakerError(f"{name!r} borrows no parameters; known: {', '.join(self.speakers)}")
            scores.append(self.speakers[name].log_likelihoods(name, [features]))
        return np.concatenate(scores)


def others_mean(speakers: AdaptedSpeakers, sets: Sequence[AdaptationSet], by_environment: bool) -> SpeakerScores:
    """Each set with the mean of the other speakers' parameters.

    Args:
        speakers: Parameters of all sets.
        sets: The sets.
        by_environment: Whether the sets belong to environments.

    Raises:
        SpeakerError: A set has no others.
    """
    borrowed: dict[str, AdaptedSpeakers] = {}
    for group, others in _groups(sets, by_environment):
        names = [each.name for each in group]
        borrowed |= dict.fromkeys(names, speakers.pooled(names, [each.name for each in others]))
    return Borrowed(borrowed)


def another(speakers: AdaptedSpeakers, sets: Sequence[AdaptationSet], by_environment: bool, seed: int) -> SpeakerScores:
    """Each set with the parameters of one other speaker: those of the same environment and number, if there are any.

    Args:
        speakers: Parameters of all sets.
        sets: The sets.
        by_environment: Whether the sets belong to environments.
        seed: Seed of the choice; a speaker's does not depend on the order of the sets.

    Raises:
        SpeakerError: A set has no others.
    """
    borrowed: dict[str, AdaptedSpeakers] = {}
    for group, others in _groups(sets, by_environment):
        generator = random.Random(f"{seed} {group[0].name}")
        chosen = generator.choice(sorted({each.speaker for each in others}))
        theirs = {each.name: each for each in others if each.speaker == chosen}
        for each in group:
            same = chosen + each.name.removeprefix(each.speaker)
            lender = same if same in theirs else generator.choice(sorted(theirs))
            borrowed[each.name] = speakers.pooled([each.name], [lender])
    return Borrowed(borrowed)


def _groups(
    sets: Sequence[AdaptationSet], by_environment: bool
) -> list[tuple[list[AdaptationSet], list[AdaptationSet]]]:
    """Sets that have the same others, and these others.

    Raises:
        SpeakerError: A set has no others.
    """
    groups: dict[str, list[AdaptationSet]] = {}
    for each in sets:
        groups.setdefault(each.name if by_environment else each.speaker, []).append(each)
    pairs = []
    for group in groups.values():
        first = group[0]
        others = [each for each in sets if (each.speaker == first.speaker) == by_environment and each is not first]
        if not others:
            raise SpeakerError(f"{first.name!r}: no other set has parameters to lend; a control needs one")
        pairs.append((group, others))
    return pairs
