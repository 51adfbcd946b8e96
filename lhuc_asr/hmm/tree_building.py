"""Building decision trees: likelihood splits, best gain first, then tying of leaves that are nearly alike.

After S. J. Young, J. J. Odell and P. C. Woodland, "Tree-based state tying for high accuracy acoustic modelling" (1994):
a split's gain is the rise of the log-likelihood when the frames of a node get two diagonal Gaussians in place of one.
Kaldi's build-tree is followed in its roots (shared by the states and variants of a phone), in its order of splits, and
in the tying of leaves whose merge loses less than any split gained.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from pydantic import Field

from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.errors import AlignmentError
from lhuc_asr.base.local_path import InputFile
from lhuc_asr.hmm.clustering import merges
from lhuc_asr.hmm.questions import by_base, make_questions
from lhuc_asr.hmm.states import SPEECH_STATES, state_count
from lhuc_asr.hmm.tree import FIRST_POSITIONS, PHONE, POSITION, ContextTree, Leaf, Question, Split
from lhuc_asr.hmm.tree_statistics import TreeStatistics, log_likelihoods, sums_by
from lhuc_asr.lang.phones import SILENCE, PhoneSet

logger = logging.getLogger(__name__)


class TreeConfig(StrictModel):
    """Options of a decision tree.

    Attributes:
        leaves: Maximum number of leaves, those of the silence phones too. Tying makes them fewer.
        min_frames: Minimum number of frames on each side of a split.
        shared_roots: Whether the states of a phone share a root, so that they may share pdfs; if not, each has its own.
        tie_leaves: Whether leaves of a root are tied whose merge loses less than any split gained.
        questions: File of linguistic questions, lines of phones; None for questions from the data only.
    """

    leaves: int = Field(2000, ge=1, le=1_000_000)
    min_frames: int = Field(50, ge=1, le=1_000_000)
    shared_roots: bool = True
    tie_leaves: bool = True
    questions: InputFile | None = None


@dataclass(frozen=True)
class BuiltTree:
    """A tree and how it came about.

    Attributes:
        tree: The tree.
        gains: Rise of the log-likelihood by each split, in their order, shape (splits,).
        untied: Number of leaves before tying.
    """

    tree: ContextTree
    gains: np.ndarray
    untied: int


def build_tree(statistics: TreeStatistics, phones: PhoneSet, config: TreeConfig) -> BuiltTree:
    """Build a tree from the statistics of an alignment, with questions from the same statistics.

    Args:
        statistics: Statistics of the triphones' states.
        phones: The phone set of the alignment.
        config: The options.

    Raises:
        AlignmentError: The statistics are of another phone set, or there are more roots than wanted leaves.
        LexiconError: The file of questions is missing or damaged, or has an unknown phone.
    """
    _check_phones(statistics, phones)
    questions = make_questions(statistics, phones, config.questions)
    silence = [phones.ids[name] for name in phones.silence]
    growth = _Growth(statistics.without_contexts(silence), _answers(questions, phones), questions, config.min_frames)
    roots, speech = {}, []
    for name in phones.silence:
        roots[name] = tuple(
            growth.add_root([phones.ids[name]], [position]) for position in range(state_count(name, phones))
        )
    positions = range(SPEECH_STATES)
    for names in by_base(phones, phones.speech).values():
        ids = [phones.ids[name] for name in names]
        shared = [positions] if config.shared_roots else [[position] for position in positions]
        own = [growth.add_root(ids, asked) for asked in shared]
        speech += own
        roots |= dict.fromkeys(names, tuple(own * SPEECH_STATES if config.shared_roots else own))
    if len(growth.nodes) > config.leaves:
        raise AlignmentError(
            f"a tree of {config.leaves} leaves is wanted, and its phones have {len(growth.nodes)} roots; "
            "raise the number of leaves"
        )
    gains = growth.split(speech, config.leaves)
    tied = growth.tied(speech, min(gains)) if config.tie_leaves and gains else {}
    tree = growth.tree({name: roots[name] for name in phones.names}, tied)
    untied = len(growth.nodes) - len(gains)
    logger.info("tree: %d questions, %d leaves, %d after tying", len(questions), untied, tree.pdf_count)
    return BuiltTree(tree, np.array(gains), untied)


def _check_phones(statistics: TreeStatistics, phones: PhoneSet) -> None:
    highest = np.array([state_count(name, phones) for name in phones.names])
    ids, positions = statistics.contexts[:, :3], statistics.contexts[:, POSITION]
    if ids.max() > len(phones.names) or np.any(positions >= highest[statistics.contexts[:, PHONE] - 1]):
        raise AlignmentError(
            f"the statistics are not of the phone set {' '.join(phones.names)}: a phone has a higher number or more "
            "states; align with this phone set again"
        )


def _answers(questions: Sequence[Question], phones: PhoneSet) -> np.ndarray:
    """Whether the answer is yes, by question and id of the phone, shape (Q, P + 1); the edge is silence."""
    return np.array([[name in each for name in (SILENCE, *phones.names)] for each in questions], np.float64)


@dataclass
class _Node:
    """A node while the tree grows.

    Attributes:
        rows: Rows of the statistics that reach it.
        total: Their sum, shape (1 + 2 D,).
        split: The best question and the nodes behind its answers; None for a leaf.
    """

    rows: np.ndarray
    total: np.ndarray
    split: Split | None = None


@dataclass(frozen=True)
class _Candidate:
    """The best split of a leaf: its gain, aspect and values, and whether the answer of each of its rows is yes."""

    gain: float
    aspect: int
    values: Question | frozenset[int]
    yes: np.ndarray


@dataclass
class _Growth:
    """A forest that grows.

    Attributes:
        statistics: Statistics of the states.
        answers: Answers to the questions about phones, by question and phone, shape (Q, P + 1).
        questions: The questions about phones.
        min_frames: Minimum number of frames on each side of a split.
        nodes: The nodes; roots come first.
    """

    statistics: TreeStatistics
    answers: np.ndarray
    questions: Sequence[Question]
    min_frames: int
    nodes: list[_Node] = field(default_factory=list)

    def add_root(self, phones: Sequence[int], positions: Sequence[int]) -> int:
        contexts = self.statistics.contexts
        mask = np.isin(contexts[:, PHONE], phones) & np.isin(contexts[:, POSITION], positions)
        return self._add(np.flatnonzero(mask))

    def _add(self, rows: np.ndarray) -> int:
        self.nodes.append(_Node(rows, self.statistics.sums[rows].sum(0)))
        return len(self.nodes) - 1

    def split(self, roots: Sequence[int], leaves: int) -> list[float]:
        """Split the leaf that gains most, until there are enough leaves or none gains; returns the gains."""
        gains: list[float] = []
        heap: list[tuple[float, int, _Candidate]] = []

        def consider(number: int) -> None:
            if (best := self._best_split(self.nodes[number])) is not None:
                heapq.heappush(heap, (-best.gain, number, best))

        for root in roots:
            consider(root)
        count = len(self.nodes)
        while heap and count + len(gains) < leaves:
            _, number, best = heapq.heappop(heap)
            rows = self.nodes[number].rows
            yes, no = self._add(rows[best.yes]), self._add(rows[~best.yes])
            self.nodes[number].split = Split(best.aspect, best.values, yes, no)
            gains.append(best.gain)
            consider(yes)
            consider(no)
        return gains

    def _best_split(self, node: _Node) -> _Candidate | None:
        best: _Candidate | None = None
        before = float(log_likelihoods(node.total))
        for aspect in range(len(self.statistics.contexts[0])):
            column = self.statistics.contexts[node.rows, aspect]
            values, which = np.unique(column, return_inverse=True)
            if len(values) < 2:
                continue
            answers = self._position_answers(values) if aspect == POSITION else self.answers[:, values]
            yes = answers @ sums_by(which, self.statistics.sums[node.rows])
            no = node.total - yes
            gains = log_likelihoods(yes) + log_likelihoods(no) - before
            gains[np.minimum(yes[:, 0], no[:, 0]) < self.min_frames] = -np.inf
            question = int(gains.argmax())
            if gains[question] > (best.gain if best else 0.0):
                asked = FIRST_POSITIONS[question] if aspect == POSITION else self.questions[question]
                best = _Candidate(float(gains[question]), aspect, asked, answers[question, which] > 0)
        return best

    @staticmethod
    def _position_answers(values: np.ndarray) -> np.ndarray:
        return np.array(
            [[value in positions for value in values.tolist()] for positions in FIRST_POSITIONS], np.float64
        )

    def tied(self, roots: Sequence[int], most_loss: float) -> dict[int, int]:
        """The leaf that each leaf is tied to, if it is not itself."""
        tied: dict[int, int] = {}
        for root in roots:
            leaves = list(self._leaves(root))
            for i, j in merges(np.array([self.nodes[leaf].total for leaf in leaves]), most_loss):
                tied[leaves[j]] = leaves[i]
        return tied

    def _leaves(self, number: int) -> Iterator[int]:
        waiting = [number]
        while waiting:
            number = waiting.pop()
            split = self.nodes[number].split
            if split is None:
                yield number
            else:
                waiting += (split.no, split.yes)

    def tree(self, roots: Mapping[str, tuple[int, ...]], tied: Mapping[int, int]) -> ContextTree:
        """The finished tree; pdfs are numbered as their leaves come, root after root."""
        pdfs: dict[int, int] = {}
        numbers: dict[int, int] = {}
        for root in dict.fromkeys(number for each in roots.values() for number in each):
            for leaf in self._leaves(root):
                kept = leaf
                while kept in tied:
                    kept = tied[kept]
                pdfs[leaf] = numbers.setdefault(kept, len(numbers))
        nodes = tuple(node.split or Leaf(pdfs[number]) for number, node in enumerate(self.nodes))
        return ContextTree(roots, nodes)
