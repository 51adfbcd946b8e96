"""Left-to-right hidden Markov models of phones, and which pdf each of their states uses.

Speech phones have three emitting states, silence phones five. A state is left for the next one or stayed in;
the probability of staying is estimated from alignments. Which pdf a state uses may depend on the phones around
it: ``states`` takes a window of phones, so that the graph builder needs to know no more than the window's
width. Monophones are the window of width one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from lhuc_asr.base.atomic import read_json, write_json
from lhuc_asr.base.errors import AlignmentError
from lhuc_asr.lang.phones import PhoneSet

SPEECH_STATES = 3
SILENCE_STATES = 5
# Before anything was aligned: a state lasts 1 / (1 - 0.75) = 4 frames, a phone 120 ms.
INITIAL_SELF_LOOP = 0.75
# A state that was never or always left in training must still be able to do both.
SELF_LOOP_RANGE = (0.02, 0.98)


class HmmState(NamedTuple):
    """One emitting state: its pdf, and the probability of staying in it for another frame."""

    pdf: int
    self_loop: float


class ContextDependency(Protocol):
    """What the graph builder must know of an acoustic model's states."""

    @property
    def phones(self) -> PhoneSet:
        """The phone set."""
        ...

    @property
    def context_width(self) -> int:
        """Phones in a window: 1 monophones, 3 triphones."""
        ...

    @property
    def central_position(self) -> int:
        """Index in the window of the phone whose states are asked for."""
        ...

    @property
    def pdf_count(self) -> int:
        """Number of pdfs, K."""
        ...

    def states(self, window: tuple[str, ...]) -> tuple[HmmState, ...]:
        """The states of the window's central phone, in order; "" in a window is the edge of an utterance."""
        ...


@dataclass(frozen=True)
class MonophoneTopology:
    """Each state of each phone has a pdf of its own, whatever the phones around it.

    Attributes:
        phones: The phone set.
        self_loop: Probability of staying, a pdf, shape (K,).
    """

    phones: PhoneSet
    self_loop: np.ndarray
    context_width: int = 1
    central_position: int = 0

    @classmethod
    def initial(cls, phones: PhoneSet) -> MonophoneTopology:
        """The topology before any alignment."""
        count = SILENCE_STATES * len(phones.silence) + SPEECH_STATES * len(phones.speech)
        return cls(phones, np.full(count, INITIAL_SELF_LOOP))

    @property
    def pdf_count(self) -> int:
        """Number of pdfs, K."""
        return len(self.self_loop)

    @cached_property
    def first_pdf(self) -> dict[str, int]:
        """The pdf of each phone's first state."""
        first, pdf = {}, 0
        for phone in self.phones.names:
            first[phone] = pdf
            pdf += self.state_count(phone)
        return first

    @cached_property
    def silence_pdfs(self) -> np.ndarray:
        """The pdfs of the silence phones, which come first."""
        return np.arange(SILENCE_STATES * len(self.phones.silence))

    def state_count(self, phone: str) -> int:
        """Number of emitting states of a phone."""
        return SILENCE_STATES if phone in self.phones.silence else SPEECH_STATES

    def states(self, window: tuple[str, ...]) -> tuple[HmmState, ...]:
        """The states of ``window[0]``."""
        first = self.first_pdf[window[self.central_position]]
        pdfs = range(first, first + self.state_count(window[self.central_position]))
        return tuple(HmmState(pdf, float(self.self_loop[pdf])) for pdf in pdfs)

    def with_self_loops(self, stays: np.ndarray, visits: np.ndarray) -> MonophoneTopology:
        """The topology with probabilities of staying from counts, smoothed by one pseudo-visit.

        Args:
            stays: Frames in which a state was stayed in, a pdf, shape (K,).
            visits: Frames spent in a state, shape (K,).
        """
        if np.any(stays > visits):
            raise AlignmentError("a state was stayed in more often than it was visited")
        probability = (stays + INITIAL_SELF_LOOP) / (visits + 1.0)
        return MonophoneTopology(self.phones, np.clip(probability, *SELF_LOOP_RANGE))

    def save(self, path: Path) -> None:
        """Write the topology as JSON."""
        write_json(
            path,
            {
                "silence": self.phones.silence,
                "speech": self.phones.speech,
                "self_loop": [float(p) for p in self.self_loop],
            },
        )

    @classmethod
    def load(cls, path: Path) -> MonophoneTopology:
        """Read a topology.

        Raises:
            AlignmentError: The file is missing or damaged, or its probabilities do not fit the phones.
        """
        try:
            tree = read_json(path)
            phones = PhoneSet(tuple(tree["silence"]), tuple(tree["speech"]))
            self_loop = np.array(tree["self_loop"], dtype=np.float64)
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise AlignmentError(f"{path}: not a topology ({error}); delete its folder and run again") from error
        expected = cls.initial(phones).pdf_count
        if self_loop.shape != (expected,) or not np.all((self_loop > 0) & (self_loop < 1)):
            raise AlignmentError(
                f"{path}: expected {expected} probabilities of staying, each between 0 and 1, found "
                f"{self_loop.size}, from {self_loop.min(initial=1.0):g} to {self_loop.max(initial=0.0):g}; "
                "the file is damaged, delete its folder and run again"
            )
        return cls(phones, self_loop)
