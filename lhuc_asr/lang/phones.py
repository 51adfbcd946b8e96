"""The phones of a lexicon and their numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from lhuc_asr.base.errors import LexiconError

SILENCE = "SIL"
# Spelling of a word without a pronunciation: one phone for any speech (Kaldi's SPN).
SPOKEN_NOISE = "SPN"
# Spelling of a noise: one phone for any sound that is not speech (Kaldi's NSN).
NON_SPEECH_NOISE = "NSN"
# All that a phone set may have besides speech, in the order of their numbers.
SILENCE_LIKE = (SILENCE, SPOKEN_NOISE, NON_SPEECH_NOISE)


@dataclass(frozen=True)
class PhoneSet:
    """Phones and their numbers from 1 (0 is epsilon): silence-like phones first, then speech phones.

    Attributes:
        silence: Silence-like phones: ``SIL``, and those of ``SPN`` and ``NSN`` that are used.
        speech: Speech phones, in a fixed order.

    Example:
        >>> PhoneSet(("SIL",), ("AA", "B")).ids
        {'SIL': 1, 'AA': 2, 'B': 3}
    """

    silence: tuple[str, ...]
    speech: tuple[str, ...]

    def __post_init__(self) -> None:
        repeated = sorted(name for name, count in Counter(self.names).items() if count > 1)
        if repeated:
            raise LexiconError(f"phone set: named twice: {' '.join(repeated)}; name each phone once")

    @classmethod
    def of(cls, speech: Iterable[str], silence: Iterable[str] = (SILENCE,)) -> PhoneSet:
        """A phone set of silence phones and the sorted set of speech phones."""
        silence = tuple(silence)
        return cls(silence, tuple(sorted(set(speech) - set(silence))))

    @property
    def names(self) -> tuple[str, ...]:
        """All phones in the order of their numbers."""
        return self.silence + self.speech

    @cached_property
    def ids(self) -> dict[str, int]:
        """Number of each phone, from 1."""
        return {name: index for index, name in enumerate(self.names, start=1)}
