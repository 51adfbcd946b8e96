"""The phones of a lexicon and their numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from lhuc_asr.base.errors import LexiconError

SILENCE = "SIL"
# Spelling of a word without a pronunciation: one phone for any speech (Kaldi's SPN).
SPOKEN_NOISE = "SPN"
# Spelling of a noise: one phone for any sound that is not speech (Kaldi's NSN).
NON_SPEECH_NOISE = "NSN"
# All that a phone set may have besides speech, in the order of their numbers.
SILENCE_LIKE = (SILENCE, SPOKEN_NOISE, NON_SPEECH_NOISE)
# Begin, internal, end and single, as Kaldi's position-dependent phones: the suffixes of AA_B, AA_I, AA_E and AA_S.
WORD_POSITIONS = "BIES"
# CMUdict marks stress on vowels only; a digit on any other phone, for example a tone, is part of its name.
STRESSED_VOWEL = re.compile(r"(AA|AE|AH|AO|AW|AX|AXR|AY|EH|ER|EY|IH|IX|IY|OW|OY|UH|UW|UX)([012])")


class PhoneName(NamedTuple):
    """The parts of a phone's name.

    Attributes:
        base: Name without stress and word position.
        stress: The digit of a stressed vowel of ARPABET; "" for none.
        word_position: One of ``WORD_POSITIONS``; "" where phones do not depend on it.
    """

    base: str
    stress: str
    word_position: str


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

    @cached_property
    def parts(self) -> dict[str, PhoneName]:
        """The parts of each phone's name.

        Suffixes are word positions if all speech phones have one, as ``Lexicon.with_word_positions`` makes them.

        Example:
            >>> PhoneSet(("SIL",), ("AH0_B", "K_E")).parts["AH0_B"]
            PhoneName(base='AH', stress='0', word_position='B')
        """
        suffixes = tuple(f"_{position}" for position in WORD_POSITIONS)
        positioned = all(len(name) > 2 and name.endswith(suffixes) for name in self.speech)
        names = {}
        for name in self.names:
            base, word_position = (name[:-2], name[-1]) if positioned and name not in self.silence else (name, "")
            vowel = STRESSED_VOWEL.fullmatch(base)
            names[name] = PhoneName(vowel[1], vowel[2], word_position) if vowel else PhoneName(base, "", word_position)
        return names
