"""Tied triphones: the pdf of a phone's state depends on the phones to its left and right, by a decision tree."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from lhuc_asr.base.atomic import write_json
from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.documents import Count, DocumentKind, Symbol
from lhuc_asr.base.errors import AlignmentError, LexiconError
from lhuc_asr.hmm.states import INITIAL_SELF_LOOP, REMEDY, HmmState, smoothed_self_loops
from lhuc_asr.hmm.tree import ASPECTS, FIRST_POSITIONS, POSITION, ContextTree, Leaf, Split
from lhuc_asr.lang.phones import SILENCE, PhoneSet


@dataclass(frozen=True)
class TriphoneTopology:
    """States of triphones, tied by a decision tree; those of silence phones do not depend on their neighbours.

    Attributes:
        phones: The phone set.
        tree: Tree from the states of triphones to pdfs.
        self_loop: Self-loop probability of each pdf's states, shape (K,), float64.
        context_width: Number of phones in a window.
        central_position: Index of the phone in the window whose states are asked for.
    """

    kind: ClassVar[str] = "triphones"

    phones: PhoneSet
    tree: ContextTree
    self_loop: np.ndarray
    context_width: int = 3
    central_position: int = 1

    @classmethod
    def initial(cls, phones: PhoneSet, tree: ContextTree) -> TriphoneTopology:
        """The topology of a new tree, before any alignment with its pdfs.

        Raises:
            AlignmentError: The tree is of another phone set.
        """
        tree.check(phones)
        return cls(phones, tree, np.full(tree.pdf_count, INITIAL_SELF_LOOP))

    @property
    def pdf_count(self) -> int:
        """Number of pdfs, K."""
        return len(self.self_loop)

    @cached_property
    def silence_pdfs(self) -> np.ndarray:
        """Pdfs of the silence phones' states, sorted, int64."""
        return np.unique([pdf for phone in self.phones.silence for pdf in self.tree.pdfs("", phone, "")])

    def states(self, window: tuple[str, ...]) -> tuple[HmmState, ...]:
        """The states of ``window[1]`` between its neighbours; "" is beyond the edge of an utterance.

        Raises:
            AlignmentError: The window is not three phones of the phone set.
        """
        states = self._states.get(window)
        if states is None:
            left, phone, right = self._checked(window)
            states = self._chain(self.tree.pdfs(left, phone, right))
            self._states[window] = states
        return states

    @cached_property
    def _states(self) -> dict[tuple[str, ...], tuple[HmmState, ...]]:
        """The states of the windows that were asked for so far."""
        return {}

    @cached_property
    def _chains(self) -> dict[tuple[int, ...], tuple[HmmState, ...]]:
        """The states of every sequence of pdfs that was needed so far: far fewer than there are windows."""
        return {}

    def _chain(self, pdfs: tuple[int, ...]) -> tuple[HmmState, ...]:
        chain = self._chains.get(pdfs)
        if chain is None:
            chain = tuple(HmmState(pdf, float(self.self_loop[pdf])) for pdf in pdfs)
            self._chains[pdfs] = chain
        return chain

    def _checked(self, window: tuple[str, ...]) -> tuple[str, str, str]:
        known = self.phones.ids
        if len(window) != 3 or window[1] not in known or not {window[0], window[2]} <= {"", *known}:
            raise AlignmentError(
                f"{window}: expected a phone between two others, or the edge (''), all of the phone set "
                f"{' '.join(self.phones.names)}; train triphones on this lexicon's phones"
            )
        left, phone, right = window
        return left, phone, right

    def with_self_loops(self, stays: np.ndarray, visits: np.ndarray) -> TriphoneTopology:
        """The topology with self-loop probabilities estimated from counts.

        Args:
            stays: Frames of each pdf that the same state follows, shape (K,).
            visits: Frames of each pdf, shape (K,).

        Raises:
            AlignmentError: There are more stays than visits.
        """
        return replace(self, self_loop=smoothed_self_loops(stays, visits))

    def save(self, path: Path) -> None:
        """Write the topology as JSON."""
        questions: dict[frozenset[str] | frozenset[int], int] = {}
        nodes = [_row(node, questions) for node in self.tree.nodes]
        order = {name: number for number, name in enumerate(self.phones.names)}
        write_json(
            path,
            {
                "kind": self.kind,
                "silence": self.phones.silence,
                "speech": self.phones.speech,
                "self_loop": [float(p) for p in self.self_loop],
                "questions": [sorted(map(str, question), key=order.__getitem__) for question in questions],
                "roots": self.tree.roots,
                "nodes": nodes,
            },
        )

    @classmethod
    def load(cls, path: Path) -> TriphoneTopology:
        """Read a file that ``save`` wrote.

        Raises:
            AlignmentError: The file is damaged, or its values do not fit each other: its tree is not a tree, or of
                another phone set, or has another number of pdfs than there are probabilities.
        """
        content = _TRIPHONES.read(path)
        try:
            phones = PhoneSet(content.silence, content.speech)
            if SILENCE not in phones.silence:
                raise AlignmentError(f"{SILENCE} is not among its silence phones")
            questions = [frozenset(question) for question in content.questions]
            tree = ContextTree(content.roots, tuple(_node(row, questions) for row in content.nodes))
            tree.check(phones)
            if len(content.self_loop) != tree.pdf_count:
                raise AlignmentError(
                    f"expected {tree.pdf_count} probabilities of staying, one for each pdf of its tree, found "
                    f"{len(content.self_loop)}"
                )
        except (AlignmentError, LexiconError) as error:
            raise AlignmentError(f"{path}: {error}; {REMEDY}") from error
        return cls(phones, tree, np.array(content.self_loop, np.float64))


class _Leaf(StrictModel):
    pdf: Count


class _PhoneSplit(StrictModel):
    ask: Literal["left", "phone", "right"]
    question: Count
    yes: Count
    no: Count


class _PositionSplit(StrictModel):
    """The question whether a state's position is at most ``last``."""

    ask: Literal["position"]
    last: Annotated[int, Field(ge=0, lt=len(FIRST_POSITIONS))]
    yes: Count
    no: Count


class _Triphones(StrictModel):
    """The file of a ``TriphoneTopology``."""

    kind: Literal["triphones"]
    silence: tuple[Symbol, ...]
    speech: tuple[Symbol, ...]
    self_loop: tuple[Annotated[float, Field(gt=0.0, lt=1.0)], ...]
    questions: tuple[tuple[Symbol, ...], ...]
    roots: dict[str, Annotated[tuple[Count, ...], Field(min_length=1)]]
    nodes: Annotated[tuple[_Leaf | _PhoneSplit | _PositionSplit, ...], Field(min_length=1)]


_TRIPHONES = DocumentKind(_Triphones, "a topology", AlignmentError, REMEDY)


def _row(node: Split | Leaf, questions: dict[frozenset[str] | frozenset[int], int]) -> dict[str, int | str]:
    """A node in the file; a question that is not in ``questions`` is added."""
    if isinstance(node, Leaf):
        return {"pdf": node.pdf}
    answers = {"yes": node.yes, "no": node.no}
    if node.aspect == POSITION:
        return {"ask": ASPECTS[POSITION], "last": len(node.values) - 1, **answers}
    return {"ask": ASPECTS[node.aspect], "question": questions.setdefault(node.values, len(questions)), **answers}


def _node(row: _Leaf | _PhoneSplit | _PositionSplit, questions: list[frozenset[str]]) -> Split | Leaf:
    if isinstance(row, _Leaf):
        return Leaf(row.pdf)
    if isinstance(row, _PositionSplit):
        return Split(POSITION, FIRST_POSITIONS[row.last], row.yes, row.no)
    if row.question >= len(questions):
        raise AlignmentError(f"a node has the question {row.question}, expected 0 to {len(questions) - 1}")
    return Split(ASPECTS.index(row.ask), questions[row.question], row.yes, row.no)
