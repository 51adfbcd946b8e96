"""Rescoring: a word lattice with the scores of another n-gram model in place of the old one's.

As Kaldi's lattice-lmrescore does, nodes are split until each has one history in each of the two models, and on each arc
the old model's score is taken out and the new one's put in; all else in the graph costs stays. The old scores are those
of the n-gram model itself. The graph's differ from them a little: its back-off arcs can be taken where an n-gram
exists, and its weights are rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from lhuc_asr.base.compiled import compiled
from lhuc_asr.base.errors import LatticeBoundError, LatticeError
from lhuc_asr.decode.pdf_strings import mixed, table_size
from lhuc_asr.decode.word_lattice import WordLattice, offsets, positions
from lhuc_asr.lang.histories import EMPTY, Histories, HistoryModel, predict
from lhuc_asr.lang.ngram import BEGIN_ID, END_ID, NONE
from lhuc_asr.lang.text import UNKNOWN

# Places of the numbers of nodes and arcs.
NODES, ARCS = range(2)
# Words that a message names.
WORDS_SHOWN = 8


class Rescorer:
    """Puts the scores of one model in the place of another's, in any number of lattices of one vocabulary.

    Args:
        words: Word of each number in the lattices, as ``DecodingGraph.words``.
        old: The model whose scores are in the lattices.
        new: The model whose scores are to be in them.
        max_arcs: Maximum number of arcs of a rescored lattice, of about 60 bytes each without their pdfs.
    """

    def __init__(self, words: Sequence[str], old: HistoryModel, new: HistoryModel, max_arcs: int = 5_000_000) -> None:
        self._words, self._max_arcs = words, max_arcs
        self._models = {"old": old, "new": new}

    def rescored(self, utterance: str, lattice: WordLattice) -> WordLattice:
        """The same word sequences with the new model's scores.

        Word sequences that were beyond the lattice's beam and would now be within it are not there. The beam of the
        result is that of ``lattice``. Sentence ends are rescored where the paths end sentences.

        Args:
            utterance: Id of the utterance.
            lattice: The lattice.

        Raises:
            LatticeError: The lattice is of another vocabulary, or a model has neither one of its words nor ``<unk>``.
            LatticeBoundError: The result would have more than ``max_arcs`` arcs.
        """
        lattice.check_words(self._words, utterance)
        spoken = np.unique(lattice.word)
        split = _Split.empty(len(lattice.frame), self._max_arcs)
        # Arcs without words end sentences themselves.
        ends = np.isfinite(lattice.final) & lattice.reached_final
        ends[lattice.target[lattice.word == 0]] = False
        room = _split(
            lattice.source, lattice.target, lattice.word, ends, lattice.reached_final, split,
            self._models["old"].histories, self._numbers(utterance, "old", spoken),
            self._models["new"].histories, self._numbers(utterance, "new", spoken),
        )  # fmt: skip
        if not room:
            raise LatticeBoundError(
                f"{utterance}: rescoring splits the lattice into more than {self._max_arcs} arcs; narrow the beam of "
                "the word lattice"
            )
        return _assemble(lattice, split)

    def _numbers(self, utterance: str, which: str, spoken: np.ndarray) -> np.ndarray:
        """Number of each word of the table in a model, shape (V,), int64; NONE for words that the lattice lacks."""
        model = self._models[which]
        unknown = model.ids.get(UNKNOWN, NONE)
        numbers = np.full(len(self._words), NONE, np.int64)
        for word in spoken[spoken > 0]:
            numbers[word] = model.ids.get(self._words[word], unknown)
        missing = [self._words[word] for word in spoken[spoken > 0] if numbers[word] == NONE]
        if missing:
            shown = " ".join(missing[:WORDS_SHOWN]) + (" ..." if len(missing) > WORDS_SHOWN else "")
            raise LatticeError(
                f"{utterance}: the {which} language model lacks {len(missing)} of the lattice's words, and has no "
                f"{UNKNOWN}: {shown}; take a model of all words of the graph, or one with {UNKNOWN}"
            )
        return numbers


class _Split(NamedTuple):
    """The nodes of a lattice, split by histories, and the arcs between them.

    Attributes:
        node, old, new: Node that each was split from, and its history of either model.
        end: Cost that is added to ending in each.
        newest, earlier: The last one that each node was split into, and the one before of the same node; NONE without.
        slots: Hash table of them, 0 where it is empty, else the number + 1.
        arc, source, target, added: Arc that each was split from, its ends, and the cost that is added to it.
        counts: Number of nodes and of arcs.
    """

    node: np.ndarray
    old: np.ndarray
    new: np.ndarray
    end: np.ndarray
    newest: np.ndarray
    earlier: np.ndarray
    slots: np.ndarray
    arc: np.ndarray
    source: np.ndarray
    target: np.ndarray
    added: np.ndarray
    counts: np.ndarray

    @classmethod
    def empty(cls, nodes: int, arcs: int) -> _Split:
        """Room for what ``nodes`` nodes and their arcs are split into; memory that is not written to is not taken."""
        # Each but the start is the target of an arc.
        node, earlier, arc, source, target = np.zeros((5, arcs + 1), np.int32)
        old, new = np.zeros((2, arcs + 1), np.int64)
        end, added = np.zeros((2, arcs + 1))
        newest = np.full(nodes, NONE, np.int32)
        slots, counts = np.zeros(table_size(arcs + 1), np.int32), np.zeros(2, np.int64)
        return cls(node, old, new, end, newest, earlier, slots, arc, source, target, added, counts)


@compiled
def _split(
    source: np.ndarray,
    target: np.ndarray,
    word: np.ndarray,
    ends: np.ndarray,
    sentences: bool,
    split: _Split,
    old: Histories,
    old_word: np.ndarray,
    new: Histories,
    new_word: np.ndarray,
) -> bool:
    """Split the nodes, in order; False where there is no room for all arcs."""
    first = np.searchsorted(source, np.arange(len(ends) + 1))
    _numbered(split, 0, old.history[BEGIN_ID], new.history[BEGIN_ID])
    for node in range(len(ends)):
        here = split.newest[node]
        while here != NONE:
            if ends[node]:
                split.end[here] = predict(old, split.old[here], END_ID)[0] - predict(new, split.new[here], END_ID)[0]
            for arc in range(first[node], first[node + 1]):
                made = split.counts[ARCS]
                if made == len(split.arc) - 1:
                    return False
                if word[arc] == 0:
                    added = 0.0
                    if sentences:
                        added = predict(old, split.old[here], END_ID)[0] - predict(new, split.new[here], END_ID)[0]
                    behind = _numbered(split, target[arc], EMPTY, EMPTY)
                else:
                    out, old_history = predict(old, split.old[here], old_word[word[arc]])
                    put_in, new_history = predict(new, split.new[here], new_word[word[arc]])
                    added = out - put_in
                    behind = _numbered(split, target[arc], old_history, new_history)
                split.arc[made], split.source[made], split.target[made] = arc, here, behind
                split.added[made] = added
                split.counts[ARCS] = made + 1
            here = split.earlier[here]
    return True


@compiled
def _numbered(split: _Split, node: int, old: int, new: int) -> int:
    """Number of a node with its histories; a new one if it was not reached before."""
    last = np.uint64(len(split.slots) - 1)
    slot = mixed(mixed(mixed(np.uint64(node)) ^ np.uint64(old)) ^ np.uint64(new)) & last
    while split.slots[slot] != 0:
        known = split.slots[slot] - 1
        if split.node[known] == node and split.old[known] == old and split.new[known] == new:
            return int(known)
        slot = (slot + np.uint64(1)) & last
    number = split.counts[NODES]
    split.node[number], split.old[number], split.new[number] = node, old, new
    split.earlier[number] = split.newest[node]
    split.newest[node] = number
    split.slots[slot] = number + 1
    split.counts[NODES] = number + 1
    return int(number)


def _assemble(lattice: WordLattice, split: _Split) -> WordLattice:
    """The split nodes in the order of the lattice's, and their arcs."""
    nodes, arcs = split.counts
    order = np.argsort(split.node[:nodes], kind="stable")
    number = np.empty(nodes, np.int32)
    number[order] = np.arange(nodes)
    source, target = number[split.source[:arcs]], number[split.target[:arcs]]
    by_source = np.lexsort([split.arc[:arcs], source])
    arc, node = split.arc[:arcs][by_source], split.node[:nodes][order]
    first, lengths = lattice.offset[arc], np.diff(lattice.offset)[arc]
    return replace(
        lattice,
        frame=lattice.frame[node],
        final=lattice.final[node] + split.end[:nodes][order],
        source=source[by_source],
        target=target[by_source],
        word=lattice.word[arc],
        begin=lattice.begin[arc],
        graph_cost=lattice.graph_cost[arc] + split.added[:arcs][by_source],
        log_likelihood=lattice.log_likelihood[arc],
        pdf=lattice.pdf[positions(first, lengths)],
        offset=offsets(lengths),
    )
