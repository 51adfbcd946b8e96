"""Left-to-right hidden Markov models of phones, and the pdf of each of their states.

Speech phones have three emitting states, silence phones five. A state is left for the next one or stayed in.
The pdf of a state may depend on the phones around it: ``ContextDependency.states`` takes a window of phones.
Whoever builds a graph needs to know only the width of the window. Monophones have windows of width one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Protocol

import numpy as np
from pydantic import BaseModel, Field

from lhuc_asr.base.atomic import write_json
from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.documents import DocumentKind, Symbol
from lhuc_asr.base.errors import AlignmentError, LexiconError
from lhuc_asr.hmm.states import (
    INITIAL_SELF_LOOP,
    REMEDY,
    SILENCE_STATES,
    SPEECH_STATES,
    HmmState,
    smoothed_self_loops,
    state_count,
)
from lhuc_asr.hmm.triphone import TriphoneTopology
from lhuc_asr.lang.phones import SILENCE, PhoneSet


class ContextDependency(Protocol):
    """The states of an acoustic model's phones.

    A class that has these members is a context dependency; it need not inherit from this one. Its line in
    ``KINDS`` lets ``load`` read what it saves.

    Attributes:
        kind: Name of the class in saved files.
    """

    kind: ClassVar[str]

    @property
    def phones(self) -> PhoneSet:
        """The phone set."""
        ...

    @property
    def context_width(self) -> int:
        """Number of phones in a window: 1 for monophones, 3 for triphones."""
        ...

    @property
    def central_position(self) -> int:
        """Index of the phone in the window whose states are asked for."""
        ...

    @property
    def pdf_count(self) -> int:
        """Number of pdfs, K."""
        ...

    @property
    def self_loop(self) -> np.ndarray:
        """Self-loop probability of each pdf's states, shape (K,), float64."""
        ...

    @property
    def silence_pdfs(self) -> np.ndarray:
        """Pdfs of the silence phones' states, sorted, int64."""
        ...

    def states(self, window: tuple[str, ...]) -> tuple[HmmState, ...]:
        """The states of a phone between its neighbours, in order.

        Args:
            window: ``context_width`` phones; "" stands for what lies beyond the edge of an utterance.
        """
        ...

    def with_self_loops(self, stays: np.ndarray, visits: np.ndarray) -> ContextDependency:
        """The same states with self-loop probabilities estimated from counts.

        Args:
            stays: Frames of each pdf that the same state follows, shape (K,).
            visits: Frames of each pdf, shape (K,).

        Raises:
            AlignmentError: There are more stays than visits.
        """
        ...

    def save(self, path: Path) -> None:
        """Write a JSON object whose key ``kind`` holds ``kind``; ``load`` reads it back."""
        ...

    @classmethod
    def load(cls, path: Path) -> ContextDependency:
        """Read a file that ``save`` wrote.

        Raises:
            AlignmentError: The file is damaged, or its values do not fit each other.
        """
        ...


@dataclass(frozen=True)
class MonophoneTopology:
    """Every state of every phone has a pdf of its own, whatever the phones around it.

    Attributes:
        phones: The phone set.
        self_loop: Self-loop probability of each pdf's state, shape (K,), float64.
        context_width: Number of phones in a window.
        central_position: Index of the phone in the window whose states are asked for.
    """

    kind: ClassVar[str] = "monophones"

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
        """Pdf of each phone's first state."""
        first, pdf = {}, 0
        for phone in self.phones.names:
            first[phone] = pdf
            pdf += state_count(phone, self.phones)
        return first

    @cached_property
    def silence_pdfs(self) -> np.ndarray:
        """Pdfs of the silence phones' states, which come first."""
        return np.arange(SILENCE_STATES * len(self.phones.silence))

    def states(self, window: tuple[str, ...]) -> tuple[HmmState, ...]:
        """The states of ``window[0]``."""
        return self._states[window[self.central_position]]

    @cached_property
    def _states(self) -> dict[str, tuple[HmmState, ...]]:
        states = [HmmState(pdf, stay) for pdf, stay in enumerate(self.self_loop.tolist())]
        return {
            phone: tuple(states[first : first + state_count(phone, self.phones)])
            for phone, first in self.first_pdf.items()
        }

    def with_self_loops(self, stays: np.ndarray, visits: np.ndarray) -> MonophoneTopology:
        """The topology with self-loop probabilities estimated from counts.

        Args:
            stays: Frames of each pdf that the same state follows, shape (K,).
            visits: Frames of each pdf, shape (K,).

        Raises:
            AlignmentError: There are more stays than visits.
        """
        return MonophoneTopology(self.phones, smoothed_self_loops(stays, visits))

    def save(self, path: Path) -> None:
        """Write the topology as JSON."""
        write_json(
            path,
            {
                "kind": self.kind,
                "silence": self.phones.silence,
                "speech": self.phones.speech,
                "self_loop": [float(p) for p in self.self_loop],
            },
        )

    @classmethod
    def load(cls, path: Path) -> MonophoneTopology:
        """Read a file that ``save`` wrote.

        Raises:
            AlignmentError: The file is damaged, or the probabilities do not fit the phones.
        """
        tree = _MONOPHONES.read(path)
        try:
            phones = PhoneSet(tree.silence, tree.speech)
        except LexiconError as error:
            raise AlignmentError(f"{path}: {error}; {REMEDY}") from error
        expected = cls.initial(phones).pdf_count
        if SILENCE not in phones.silence:
            raise AlignmentError(f"{path}: {SILENCE} is not among its silence phones; {REMEDY}")
        if len(tree.self_loop) != expected:
            raise AlignmentError(
                f"{path}: expected {expected} probabilities of staying, one for each state of its phones, found "
                f"{len(tree.self_loop)}; {REMEDY}"
            )
        return cls(phones, np.array(tree.self_loop, np.float64))


class _Kind(BaseModel):
    """The key of a topology's file that names its class. Files from before there were kinds are of monophones."""

    kind: str = MonophoneTopology.kind


class _Monophones(StrictModel):
    """The file of a ``MonophoneTopology``."""

    kind: Literal["monophones"] = "monophones"
    silence: tuple[Symbol, ...]
    speech: tuple[Symbol, ...]
    self_loop: tuple[Annotated[float, Field(gt=0.0, lt=1.0)], ...]


_KINDS = DocumentKind(_Kind, "a topology", AlignmentError, REMEDY)
_MONOPHONES = DocumentKind(_Monophones, "a topology", AlignmentError, REMEDY)

# Every kind of context dependency that can be loaded; a new one is a line here.
KINDS: dict[str, type[ContextDependency]] = {
    MonophoneTopology.kind: MonophoneTopology,
    TriphoneTopology.kind: TriphoneTopology,
}


def load(path: Path) -> ContextDependency:
    """Read a context dependency of any kind.

    Raises:
        AlignmentError: The file is missing, damaged or of an unknown kind, or its values do not fit each other.
    """
    kind = _KINDS.read(path).kind
    if kind not in KINDS:
        raise AlignmentError(
            f"{path}: the kind of context dependency is {kind!r}, expected one of: {', '.join(sorted(KINDS))}; "
            "use the version of lhuc_asr that wrote the file, or delete its folder and run again"
        )
    return KINDS[kind].load(path)
