"""Word lattices: each word sequence of an utterance once, with the cost and the pdfs of its best path.

``determinized`` makes them of the lattices that ``lattice_search`` finds; rescoring, n-best lists and words of least
risk start from them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from pydantic import Field

from lhuc_asr.base.compiled import compiled
from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.errors import LatticeBoundError, LatticeError
from lhuc_asr.decode.determinization import StateArcs, determinize
from lhuc_asr.decode.lattice import Lattice
from lhuc_asr.decode.pdf_strings import PdfStrings
from lhuc_asr.decode.subsets import ARCS, NOWHERE, SUBSETS, THE_END, Subsets
from lhuc_asr.decode.token_passing import JUST_BELOW, LEAST_BEAM

logger = logging.getLogger(__name__)

# Room to begin with, for each arc of the state lattice: mostly enough, and small tables are faster than large ones.
ELEMENTS_AN_ARC, LEAST_ELEMENTS = 4, 1000


class WordLatticeConfig(StrictModel):
    """Options of word lattices. Where a bound is met, the beam is narrowed.

    Attributes:
        beam: Maximum difference in cost between a word sequence and the best one; None for that of the state lattice,
            which it cannot exceed.
        max_arcs: Maximum number of arcs for each frame, on average, of about 60 bytes each.
        max_elements: Maximum number of elements of subsets, and of places in the tree of pdfs, of about 70 bytes each.
        max_steps: Maximum number of visits to arcs of the state lattice.
    """

    beam: float | None = Field(None, ge=LEAST_BEAM, le=1_000_000.0)
    max_arcs: int = Field(200, ge=2, le=1_000_000)
    max_elements: int = Field(5_000_000, ge=1000, le=1_000_000_000)
    max_steps: int = Field(300_000_000, ge=1000, le=1_000_000_000_000)

    def within(self, beam: float) -> float:
        """The beam of a word lattice that is made of a state lattice with a beam."""
        return beam if self.beam is None else min(self.beam, beam)


@dataclass(frozen=True, eq=False)
class WordLattice:
    """Word sequences within a beam of the best one, as an acyclic graph of A arcs and N nodes; node 0 is the start.

    From each node at most one arc leads on for each word, so that each word sequence is on one path. Its cost is that
    of the best path of the state lattice that has these words, and its pdfs are that path's. Nodes are numbered so that
    every arc leads to a higher number, and no frame is before that of a lower number. Arcs are ordered by source, those
    of one source by word. The frames of an arc end where the alignments of the paths behind it part, at the latest
    where the graph emits the arc's word; its graph cost may include parts of the frames after.

    Attributes:
        frame: Number of frames before each node, ascending, 0 .. T, shape (N,), int32.
        final: Graph cost of ending in each node, infinite where paths cannot end, shape (N,), float64. All paths end
            at frame T.
        source, target: Nodes of each arc, shape (A,), int32.
        word: Number of each arc's word in the graph's table, shape (A,), int32; 0 on an arc that only takes a path to
            its end. All such arcs lead to the last node, whose final cost is 0, and no other arc leads there.
        begin: Frame at which the graph emits each arc's word on the best path through the arc, below T, shape (A,),
            int32; lattices of other programs do not say it, and it is then the frame of the arc's target.
        graph_cost: Cost of language model, lexicon, transitions and insertion penalty of each arc, natural log,
            shape (A,), float64.
        log_likelihood: Unscaled log-likelihood of each arc's frames, shape (A,), float64.
        pdf: Pdfs of the frames of all arcs, shape (F,), int32.
        offset: Index of the first pdf of each arc, shape (A + 1,), int64; it has one for each frame from its source's
            to that before its target's.
        acoustic_scale: Factor on the log-likelihoods.
        reached_final: Whether the paths end sentences; if not, they are the best of the incomplete paths.
        beam: Upper bound of the difference in cost between a path and the best one. Every word sequence of the state
            lattice that is not beyond it is there; others that are on arcs of these may be there, with the cost of a
            path that has these words, which may not be their best.
    """

    frame: np.ndarray
    final: np.ndarray
    source: np.ndarray
    target: np.ndarray
    word: np.ndarray
    begin: np.ndarray
    graph_cost: np.ndarray
    log_likelihood: np.ndarray
    pdf: np.ndarray
    offset: np.ndarray
    acoustic_scale: float
    reached_final: bool
    beam: float

    @property
    def frames(self) -> int:
        """Number of frames, T."""
        return int(self.frame[-1])

    @property
    def log_weight(self) -> np.ndarray:
        """Log of the weight of each arc, shape (A,), float64."""
        weight: np.ndarray = self.acoustic_scale * self.log_likelihood - self.graph_cost
        return weight

    def words_of(self, path: np.ndarray, words: Sequence[str]) -> tuple[str, ...]:
        """The words of a path.

        Args:
            path: Arcs of the path, in order.
            words: Word of each number, as ``DecodingGraph.words``.

        Raises:
            LatticeError: The lattice is of another vocabulary: it has a word that the table lacks.
        """
        self.check_words(words)
        return tuple(words[number] for number in self.word[path] if number)

    def check_words(self, words: Sequence[str], utterance: str | None = None) -> None:
        """Refuse a table of words that is not this lattice's.

        Args:
            words: Word of each number, as ``DecodingGraph.words``.
            utterance: Id of the utterance, for the message; None where it is not known.

        Raises:
            LatticeError: The table lacks a word of the lattice.
        """
        if (highest := int(self.word.max(initial=0))) >= len(words):
            where = "" if utterance is None else f"{utterance}: "
            raise LatticeError(
                f"{where}a lattice with word {highest}, a table of {len(words)} words; take the words of the graph "
                "that the lattice was searched with"
            )

    def pdfs_of(self, path: np.ndarray) -> np.ndarray:
        """The pdf of each frame of a path from the start to an end, shape (T,), int32."""
        first = self.offset[path]
        pdfs: np.ndarray = self.pdf[positions(first, self.offset[path + 1] - first)]
        return pdfs


def determinized(utterance: str, lattice: Lattice, config: WordLatticeConfig) -> WordLattice:
    """The word lattice of a state lattice.

    A frame's log-likelihood of a pdf must be the same on all arcs of that frame and pdf, as those of a search are.

    Args:
        utterance: Id of the utterance.
        lattice: The state lattice.
        config: Options of the word lattice.

    Raises:
        LatticeError: The lattice is empty: no path leads from its start to an end.
        LatticeBoundError: The bounds are too narrow for any word lattice.
    """
    if len(lattice.source) == 0 or lattice.frames == 0:
        raise LatticeError(f"{utterance}: an empty lattice, without arcs or without frames; leave the utterance out")
    graph = StateArcs.of(lattice)
    best, beam, frames = float(graph.rest[0]), config.within(lattice.beam), lattice.frames
    if not np.isfinite(best):
        raise LatticeError(f"{utterance}: an empty lattice: no path leads to an end; search again")
    asked, arcs = beam, 2 + config.max_arcs * frames
    elements = min(config.max_elements, max(LEAST_ELEMENTS, ELEMENTS_AN_ARC * len(lattice.source)))
    while True:
        strings, subsets = PdfStrings.empty(elements), Subsets.empty(elements, arcs)
        kept, steps = determinize(graph, strings, subsets, frames, beam, config.max_steps)
        full = kept < beam and steps <= config.max_steps and subsets.counts[ARCS] < arcs
        if full and elements < config.max_elements:
            elements = min(config.max_elements, 8 * elements)
            continue
        if kept >= 0.5 * beam:
            break
        # With a narrower beam, less time and memory go into what is not kept in the end.
        beam *= 0.5
        if beam < LEAST_BEAM:
            raise LatticeBoundError(
                f"{utterance}: its best path takes more than {config.max_elements} elements, {config.max_arcs} arcs a "
                f"frame or {config.max_steps} steps; raise the bounds of the word lattice"
            )
    if kept < beam:
        beam = JUST_BELOW * kept
    if beam < asked:
        logger.warning(
            "%s: word lattice narrowed to stay within its bounds: beam %.3g (asked for %g)", utterance, beam, asked
        )
    return _assemble(lattice, strings, subsets, beam, best + beam)


def problem_of(lattice: WordLattice) -> str | None:
    """The first rule of ``WordLattice`` that a lattice breaks; None if it breaks none.

    The arrays must have the right shapes, and the nodes of arcs must exist.
    """
    nodes, source, target = np.arange(len(lattice.frame)), lattice.source, lattice.target
    ends, silent = np.isfinite(lattice.final), lattice.word == 0
    to_the_end = (target == nodes[-1:]) & silent.any()
    repeated = (np.diff(source, append=-1) == 0) & (np.diff(lattice.word, append=0) <= 0)
    if not ends.any():
        return "no path leads to an end"
    rules = (
        ("node", np.diff(lattice.frame, prepend=0) < 0, "is at an earlier frame than the node before"),
        ("node", (nodes == 0) & (lattice.frame != 0), "is the start, but not at frame 0"),
        ("node", np.isnan(lattice.final) | (lattice.final == -np.inf), "has a final cost that is not a number"),
        ("node", ends & (lattice.frame != lattice.frames), "ends paths before the last frame"),
        ("arc", np.diff(source, prepend=0) < 0, "leaves a lower node than the arc before"),
        ("arc", target <= source, "does not lead to a higher node"),
        ("arc", lattice.word < 0, "has a negative word"),
        ("arc", repeated, "has no lower word than the next arc of its node"),
        ("arc", silent & ~to_the_end, "has no word, and does not lead to the last node"),
        ("arc", to_the_end & ~silent, "has a word, and leads to the end of arcs without"),
        ("arc", to_the_end & (lattice.final[target] != 0.0), "has no word, and the end has a cost"),
        ("arc", silent & ends[source], "has no word, and its path could end before it"),
        ("arc", ~np.isfinite(lattice.graph_cost + lattice.log_likelihood), "has a score that is not finite"),
        ("arc", np.diff(lattice.offset) != lattice.frame[target] - lattice.frame[source], "has a pdf too few or many"),
        ("arc", (lattice.begin < 0) | (lattice.begin >= lattice.frames), "emits its word at none of the frames"),
        ("pdf", lattice.pdf < 0, "is negative"),
    )
    for noun, wrong, what in rules:
        if wrong.any():
            return f"{noun} {int(np.argmax(wrong))} {what}"
    reached = _on_paths(source, target, lattice.final, np.ones(len(source), np.bool_))
    return None if reached[0] else "no path leads from the start to an end"


def trimmed(lattice: WordLattice, kept: np.ndarray) -> WordLattice:
    """The paths of a lattice all of whose arcs are kept; nodes that are on none of them are left out.

    Args:
        lattice: The lattice.
        kept: Mask of the arcs, shape (A,), bool.
    """
    on_path = _on_paths(lattice.source, lattice.target, lattice.final, kept)
    arcs = np.flatnonzero(kept & on_path[lattice.source] & on_path[lattice.target])
    number = (np.cumsum(on_path) - 1).astype(np.int32)
    lengths = np.diff(lattice.offset)
    return replace(
        lattice,
        frame=lattice.frame[on_path],
        final=lattice.final[on_path],
        source=number[lattice.source[arcs]],
        target=number[lattice.target[arcs]],
        word=lattice.word[arcs],
        begin=lattice.begin[arcs],
        graph_cost=lattice.graph_cost[arcs],
        log_likelihood=lattice.log_likelihood[arcs],
        pdf=lattice.pdf[positions(lattice.offset[arcs], lengths[arcs])],
        offset=offsets(lengths[arcs]),
    )


def offsets(lengths: np.ndarray) -> np.ndarray:
    """Index of the first item of each of many stretches, and of the end of the last, shape (A + 1,), int64."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def positions(first: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Indices of the items of many stretches, one stretch after the other, int64.

    Args:
        first: Index of the first item of each stretch, shape (A,).
        lengths: Number of items of each stretch, shape (A,).
    """
    indices: np.ndarray = np.arange(lengths.sum()) + np.repeat(first - offsets(lengths)[:-1], lengths)
    return indices


def _assemble(lattice: Lattice, strings: PdfStrings, subsets: Subsets, beam: float, limit: float) -> WordLattice:
    """Number the subsets in the order of their frames, and look up the parts of the arcs."""
    count = int(subsets.counts[SUBSETS])
    maker = subsets.maker[:count]
    stems = subsets.stem[maker]
    # The first state of a subset is behind the first state of any that leads to it.
    order = np.lexsort([subsets.node[subsets.low[maker]], strings.length[stems]])
    number = np.empty(count + 1, np.int32)
    number[order], number[count] = np.arange(count), count

    arcs = np.arange(1, subsets.counts[ARCS])
    arcs = arcs[(subsets.target[arcs] != NOWHERE) & (subsets.through[arcs] <= limit)]
    target = subsets.target[arcs]
    source, target = number[subsets.source[arcs]], number[np.where(target == THE_END, count, target)]
    by_source = np.lexsort([subsets.word[arcs], source])
    arcs, source, target = arcs[by_source], source[by_source], target[by_source]
    before, behind = stems[subsets.source[arcs]], subsets.stem[arcs]
    lengths = strings.length[behind] - strings.length[before]
    offset = offsets(lengths)
    return trimmed(
        WordLattice(
            frame=np.append(strings.length[stems][order], np.int32(lattice.frames)),
            final=np.append(subsets.final[:count][order], 0.0),
            source=source,
            target=target,
            word=subsets.word[arcs],
            begin=np.minimum(subsets.begin[arcs], lattice.frames - 1),
            graph_cost=subsets.graph_cost[arcs],
            log_likelihood=strings.log_likelihood[behind] - strings.log_likelihood[before],
            pdf=_spelt(strings.parent, strings.pdf, behind, offset),
            offset=offset,
            acoustic_scale=lattice.acoustic_scale,
            reached_final=lattice.reached_final,
            beam=beam,
        ),
        np.ones(len(arcs), np.bool_),
    )


@compiled
def _spelt(parent: np.ndarray, pdf: np.ndarray, place: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """The last pdfs of strings: of each as many as its offsets leave room for."""
    pdfs = np.empty(offset[-1], np.int32)
    for string in range(len(place)):
        here = place[string]
        for position in range(offset[string + 1] - 1, offset[string] - 1, -1):
            pdfs[position], here = pdf[here], parent[here]
    return pdfs


@compiled
def _on_paths(source: np.ndarray, target: np.ndarray, final: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Whether each node is on a path of arcs that are kept."""
    begins, ends = np.zeros(len(final), np.bool_), np.isfinite(final)
    begins[0] = True
    for arc in range(len(source)):
        if kept[arc] and begins[source[arc]]:
            begins[target[arc]] = True
    for arc in range(len(source) - 1, -1, -1):
        if kept[arc] and ends[target[arc]]:
            ends[source[arc]] = True
    on_paths: np.ndarray = begins & ends
    return on_paths
