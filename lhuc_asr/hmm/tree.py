"""Decision trees from the states of triphones to pdfs: what a finished tree is, not how it is built.

A state asks its way down from a root: is the phone to the left, the phone itself, the phone to the right, or the
position of the state, one of these? Every triphone reaches a leaf, whether it was seen in training or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from lhuc_asr.base.errors import AlignmentError
from lhuc_asr.hmm.states import SILENCE_STATES, state_count
from lhuc_asr.lang.phones import SILENCE, PhoneSet

# A set of phones that sound alike, or have something else in common.
Question = frozenset[str]
# What a node can ask about: the columns of a context.
LEFT, PHONE, RIGHT, POSITION = range(4)
ASPECTS = ("left", "phone", "right", "position")
# Positions that a state can be asked for: the first one, the first two, ...
FIRST_POSITIONS = tuple(frozenset(range(last + 1)) for last in range(SILENCE_STATES - 1))


class Split(NamedTuple):
    """A node with a question.

    Attributes:
        aspect: Aspect of the context that is asked about: ``LEFT``, ``PHONE``, ``RIGHT`` or ``POSITION``.
        values: Phones, or positions, for which the answer is yes.
        yes: Number of the node behind yes.
        no: Number of the node behind no.
    """

    aspect: int
    values: Question | frozenset[int]
    yes: int
    no: int


class Leaf(NamedTuple):
    """A node without a question.

    Attributes:
        pdf: Number of the pdf.
    """

    pdf: int


@dataclass(frozen=True)
class ContextTree:
    """A forest of decision trees.

    Attributes:
        roots: Number of the node at which each state of a phone begins, by the phone's name; states and phones may
            share a root.
        nodes: The nodes; a node comes before those behind its answers.
    """

    roots: Mapping[str, tuple[int, ...]]
    nodes: tuple[Split | Leaf, ...]

    @property
    def pdf_count(self) -> int:
        """Number of pdfs, K."""
        return 1 + max(node.pdf for node in self.nodes if isinstance(node, Leaf))

    def pdfs(self, left: str, phone: str, right: str) -> tuple[int, ...]:
        """The pdf of each state of a phone between two others; "", the edge of an utterance, counts as silence."""
        context = (left or SILENCE, phone, right or SILENCE)
        return tuple(self._pdf((*context, position), root) for position, root in enumerate(self.roots[phone]))

    def _pdf(self, context: tuple[str, str, str, int], root: int) -> int:
        node = self.nodes[root]
        while isinstance(node, Split):
            node = self.nodes[node.yes if context[node.aspect] in node.values else node.no]
        return node.pdf

    def check(self, phones: PhoneSet) -> None:
        """Check that every state of every phone reaches one of the pdfs 0 to K - 1, and that each pdf has a leaf.

        Raises:
            AlignmentError: The tree is not one of this phone set, or not a tree.
        """
        if list(self.roots) != list(phones.names):
            raise AlignmentError(f"its roots are of the phones {' '.join(self.roots)}, not of its phone set")
        for name, roots in self.roots.items():
            if len(roots) != state_count(name, phones):
                raise AlignmentError(f"{name} has {len(roots)} roots, expected {state_count(name, phones)}")
            if max(roots) >= len(self.nodes):
                raise AlignmentError(f"{name} begins at node {max(roots)}; there are {len(self.nodes)} nodes")
            if name in phones.silence and not all(isinstance(self.nodes[root], Leaf) for root in roots):
                raise AlignmentError(f"the states of {name}, a silence phone, depend on its neighbours")
        self._check_parents()
        self._check_questions(phones)
        self._check_leaves(phones)

    def _check_parents(self) -> None:
        """Each node is a root, or follows one answer of one earlier node, so that every way down ends."""
        parents = dict.fromkeys((root for roots in self.roots.values() for root in roots), 1)
        for number, node in enumerate(self.nodes):
            if isinstance(node, Split):
                for answer in (node.yes, node.no):
                    if not number < answer < len(self.nodes):
                        raise AlignmentError(
                            f"node {number} leads to node {answer}, expected {number + 1} to {len(self.nodes) - 1}"
                        )
                    parents[answer] = parents.get(answer, 0) + 1
        strange = next((number for number in range(len(self.nodes)) if parents.get(number) != 1), None)
        if strange is not None:
            raise AlignmentError(f"{parents.get(strange, 0)} ways lead to node {strange}, expected one")

    def _check_questions(self, phones: PhoneSet) -> None:
        known = set(phones.names)
        for number, node in enumerate(self.nodes):
            if isinstance(node, Split) and node.aspect != POSITION and not node.values <= known:
                unknown = " ".join(sorted(map(str, node.values - known)))
                raise AlignmentError(f"node {number} asks about phones outside its phone set: {unknown}")

    def _check_leaves(self, phones: PhoneSet) -> None:
        leaves = {number: node.pdf for number, node in enumerate(self.nodes) if isinstance(node, Leaf)}
        if set(leaves.values()) != set(range(len(set(leaves.values())))):
            raise AlignmentError(f"its leaves have {len(set(leaves.values()))} pdfs up to {max(leaves.values())}")
        silent = {root for phone in phones.silence for root in self.roots[phone]}
        shared = {leaves[root] for root in silent} & {pdf for number, pdf in leaves.items() if number not in silent}
        if shared:
            raise AlignmentError(f"silence and speech share the pdf {min(shared)}")
