"""The phones of an alignment: which phone each frame belongs to, between which others, and in which state.

The pdfs of an alignment do not tell its triphones; the states of its path do. From the phones follow the pdfs of any
topology (Kaldi's convert-ali).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lhuc_asr.base.errors import AlignmentError
from lhuc_asr.hmm.topology import ContextDependency
from lhuc_asr.hmm.transcript import StateGraph
from lhuc_asr.hmm.viterbi import StatePath
from lhuc_asr.lang.phones import PhoneSet


@dataclass(frozen=True)
class AlignedPhones:
    """The phones of one utterance, frame by frame; 0 stands for what lies beyond its edges.

    Attributes:
        left: Id of the phone before the frame's, shape (T,), int32.
        phone: Id of the frame's phone, as in ``PhoneSet.ids``, shape (T,), int32.
        right: Id of the phone after the frame's, shape (T,), int32.
        position: Index of the frame's state among those of its phone, shape (T,), int32.
    """

    left: np.ndarray
    phone: np.ndarray
    right: np.ndarray
    position: np.ndarray

    @classmethod
    def of(cls, path: StatePath, graph: StateGraph, phones: PhoneSet) -> AlignedPhones:
        """The phones of a path through a graph.

        Args:
            path: The path.
            graph: Graph of the utterance's transcript.
            phones: Phone set of the graph.
        """
        ids = np.array([phones.ids[name] for name in graph.phones], np.int32)
        instance = graph.phone[path.states]
        # No phone of a transcript follows itself: one that is said twice is two phones of the graph.
        first = np.flatnonzero(np.diff(instance, prepend=-1))
        padded = np.concatenate([[0], ids[instance[first]], [0]]).astype(np.int32)
        lengths = np.diff(first, append=len(instance))
        left, phone, right = (np.repeat(padded[shift : shift + len(first)], lengths) for shift in range(3))
        return cls(left, phone, right, graph.position[path.states])

    @property
    def table(self) -> np.ndarray:
        """Left phone, phone, right phone and position of each frame, shape (T, 4), int32."""
        return np.stack([self.left, self.phone, self.right, self.position], axis=1)

    @property
    def stays(self) -> np.ndarray:
        """Whether each frame but the first is in the state of the one before, shape (T - 1,).

        A phone that is said twice between the same neighbours has one state in each position here.
        """
        return np.asarray((self.table[1:] == self.table[:-1]).all(axis=1))

    def pdfs(self, topology: ContextDependency) -> np.ndarray:
        """The pdfs of the same path through the states of another topology.

        Args:
            topology: States of the same phones, with a context of one phone, or of one on each side.

        Returns:
            Shape (T,), int32.

        Raises:
            AlignmentError: A phone of the alignment is not in the topology's phone set, or has fewer states there, or
                the topology's windows are wider.
        """
        before, after = topology.central_position, topology.context_width - 1 - topology.central_position
        if before > 1 or after > 1:
            raise AlignmentError(
                f"windows of {topology.context_width} phones, expected one phone with at most one on each side"
            )
        distinct, which = distinct_rows(self.table)
        names = ("", *topology.phones.names)
        if distinct[:, :3].max(initial=0) >= len(names):
            raise AlignmentError(
                f"the alignment has the phone {distinct[:, :3].max()}, the topology {len(names) - 1} phones; "
                "they belong to different phone sets, align again"
            )
        pdfs = np.empty(len(distinct), np.int32)
        for row, (left, phone, right, position) in enumerate(distinct.tolist()):
            window = (*(names[left],) * before, names[phone], *(names[right],) * after)
            states = topology.states(window)
            if position >= len(states):
                raise AlignmentError(
                    f"the alignment is in state {position} of {names[phone]}, which has {len(states)} states in the "
                    "topology; they belong to different phone sets, align again"
                )
            pdfs[row] = states[position].pdf
        return np.asarray(pdfs[which])


def distinct_rows(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct rows of left phone, phone, right phone and position, and the index among them of each row.

    Args:
        table: Shape (N, 4), not negative.

    Returns:
        The distinct rows in ascending order, shape (S, 4), int32, and shape (N,), int64.
    """
    bases = table.max(axis=0, initial=0).astype(np.int64) + 1
    # One number a row sorts ten times faster than rows.
    packed = np.ravel_multi_index(tuple(table.T.astype(np.int64)), tuple(bases))
    values, which = np.unique(packed, return_inverse=True)
    return np.stack(np.unravel_index(values, tuple(bases)), axis=1).astype(np.int32), which
