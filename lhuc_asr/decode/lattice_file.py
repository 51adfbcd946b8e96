"""Word lattices in Kaldi's text format of compact lattices, many utterances in a file.

An utterance is a line with its id, a line for each arc and each end, and an empty line::

    utt-1
    0 1 HELLO 3.5,812.25,5_5_5_6
    1 2.25,40.5,6_2

An arc is ``from to word graph,acoustic,ids``, an end ``node graph,acoustic,ids``. ``graph`` is a graph cost,
``acoustic`` the negated log-likelihood, unscaled. ``ids`` has a number for each frame. In Kaldi's own files these are
transition-ids; here they are pdfs, counted from 1: pdf + 1. Programs that need no transition model (lattice-1best,
lattice-nbest, lattice-mbr-decode, lattice-lmrescore) take them as they are.

Words are written as text, as after Kaldi's ``utils/int2sym.pl -f 3 words.txt``: a number says nothing without the graph
that was searched, and changes when the graph is built again. Kaldi's programs read numbers, so that either can be
written and read. The acoustic scale, the beam, and the frames at which words are emitted have no place in the format.
"""

from __future__ import annotations

import heapq
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lhuc_asr.base.atomic import atomic_path
from lhuc_asr.base.errors import LatticeError
from lhuc_asr.decode.word_lattice import WordLattice, offsets, problem_of
from lhuc_asr.lang.lines import quoted, read_lines

# Costs beyond this are damage: sums of them are inexact.
LARGEST_COST = 1e9
# Largest number of a node, an id or a word.
LARGEST_NUMBER = 2**31 - 2
_IDS = re.compile(r"[0-9]{1,10}(_[0-9]{1,10})*")
_NUMBER = re.compile(r"[0-9]{1,10}")
_COST = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")


def write_lattices(
    path: Path, lattices: Iterable[tuple[str, WordLattice]], words: Sequence[str], *, as_numbers: bool = False
) -> None:
    """Write a file of lattices, whole or not at all.

    Args:
        path: The file.
        lattices: Ids of the utterances, and their lattices.
        words: Word of each number in the lattices, as ``DecodingGraph.words``.
        as_numbers: Whether words are written as numbers, as Kaldi's programs read them.

    Raises:
        LatticeError: A lattice is empty or of another vocabulary, or an id is empty, has white space, or occurs twice.
        OutputError: The file cannot be written.
    """
    written: set[str] = set()
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for utterance, lattice in lattices:
            if utterance.split() != [utterance] or utterance in written:
                raise LatticeError(
                    f"{path}: the id {utterance!r} is empty, has white space, or occurs twice; change it"
                )
            written.add(utterance)
            if (problem := problem_of(lattice)) is not None:
                raise LatticeError(f"{utterance}: not a word lattice: {problem}; determinize the state lattice again")
            lattice.check_words(words, utterance)
            file.writelines(lattice_lines(utterance, lattice, None if as_numbers else words))


def lattice_lines(utterance: str, lattice: WordLattice, words: Sequence[str] | None) -> Iterator[str]:
    """The lines of a lattice that nothing is wrong with, each with its line break.

    Args:
        utterance: Id of the utterance.
        lattice: The lattice.
        words: Word of each number, to be written as text; None for numbers.
    """
    yield f"{utterance}\n"
    yield from _lines(lattice, words)
    yield "\n"


def _lines(lattice: WordLattice, words: Sequence[str] | None) -> Iterator[str]:
    ids, offset = (lattice.pdf + 1).tolist(), lattice.offset.tolist()
    graph_costs, acoustic_costs = lattice.graph_cost.tolist(), (0.0 - lattice.log_likelihood).tolist()
    rows = zip(lattice.source.tolist(), lattice.target.tolist(), lattice.word.tolist(), strict=True)
    ends = {node: f"{node} {lattice.final[node]},0,\n" for node in np.flatnonzero(np.isfinite(lattice.final)).tolist()}
    if (lattice.word == 0).any():
        # Arcs without words are what Kaldi has at the ends of paths, and their target is not a node there.
        del ends[len(lattice.final) - 1]
    for arc, (source, target, word) in enumerate(rows):
        string = "_".join(map(str, ids[offset[arc] : offset[arc + 1]]))
        weight = f"{graph_costs[arc]},{acoustic_costs[arc]},{string}"
        if word:
            yield f"{source} {target} {words[word] if words is not None else word} {weight}\n"
        else:
            yield f"{source} {weight}\n"
    yield from ends.values()


def read_lattices(
    path: Path,
    words: Sequence[str],
    *,
    acoustic_scale: float,
    as_numbers: bool = False,
    reached_final: bool = True,
    beam: float = math.inf,
) -> Iterator[tuple[str, WordLattice]]:
    """Read a file of lattices, plain or compressed with gzip, one utterance after the other.

    Each word is taken to begin where its arc ends: our lattices end arcs before the graph emits their words.

    Args:
        path: The file.
        words: Word of each number, as ``DecodingGraph.words``.
        acoustic_scale: Acoustic scale of the lattices.
        as_numbers: Whether the words are numbers.
        reached_final: Whether the paths end sentences.
        beam: Beam of the lattices.

    Raises:
        LatticeError: A line is not an arc or an end, a number is out of range, a word is not in the table, or the
            lines are not a deterministic lattice all of whose paths have the same number of frames; the message names
            the line or the node.
    """
    number_of = {str(number) if as_numbers else word: number for number, word in enumerate(words)}
    seen: set[str] = set()
    lines: _Lines | None = None
    behind = 0
    for number, line in read_lines(path, LatticeError):
        if lines is None or number > behind + 1:
            if lines is not None:
                yield lines.utterance, lines.lattice(acoustic_scale, reached_final, beam)
            lines = _Lines(f"{path}:{number}", line, number_of)
            if len(line.split()) != 1 or line in seen:
                raise LatticeError(
                    f"{path}:{number}: expected the id of the next utterance, found {quoted(line)}; each lattice has "
                    "an id of its own, and an empty line behind it"
                )
            seen.add(line)
        else:
            lines.add(f"{path}:{number}", line.split())
        behind = number
    if lines is not None:
        yield lines.utterance, lines.lattice(acoustic_scale, reached_final, beam)


@dataclass
class _Line:
    """An arc, or the end of paths at a node: then without a target, and with word 0."""

    where: str
    source: int
    target: int | None
    word: int
    graph_cost: float
    acoustic_cost: float
    pdfs: list[int]


@dataclass
class _Lines:
    """The lines of an utterance so far."""

    where: str
    utterance: str
    number_of: dict[str, int]
    lines: list[_Line] = field(default_factory=list)
    labels: set[tuple[int, int]] = field(default_factory=set)

    def add(self, where: str, fields: list[str]) -> None:
        """Read a line: that of an arc has three or four fields, that of an end one or two."""
        if len(fields) > 4:
            raise LatticeError(
                f"{where}: expected 'from to word graph,acoustic,ids' or 'node graph,acoustic,ids', found "
                f"{len(fields)} fields; write the lattices again, with an empty line behind each"
            )
        is_arc = len(fields) > 2
        source = _number(where, "a node", fields[0])
        target = _number(where, "a node", fields[1]) if is_arc else None
        word = self._word(where, fields[2]) if is_arc else 0
        # As OpenFst, Kaldi may leave out a weight of no costs and no frames.
        weight = _weight(where, fields[-1]) if len(fields) in (2, 4) else (0.0, 0.0, [])
        if target == source:
            raise LatticeError(f"{where}: an arc from node {source} to itself; expected a lattice without cycles")
        if (source, word) in self.labels:
            what = f"second arc with {fields[2]!r}" if is_arc else "second end"
            raise LatticeError(f"{where}: the {what} of node {source}; determinize the lattice first")
        self.labels.add((source, word))
        self.lines.append(_Line(where, source, target, word, *weight))

    def lattice(self, acoustic_scale: float, reached_final: bool, beam: float) -> WordLattice:
        """The lattice of all lines."""
        frame = self._frames()
        ends = [line for line in self.lines if line.target is None]
        frames = frame[ends[0].source] + len(ends[0].pdfs)
        for line in ends:
            if frame[line.source] + len(line.pdfs) != frames:
                raise LatticeError(
                    f"{line.where}: paths end after {frame[line.source] + len(line.pdfs)} frames, others after "
                    f"{frames}; expected one number of frames"
                )
        if not frames:
            raise LatticeError(f"{self.where}: {self.utterance}: a lattice without frames; leave it out")
        number = {node: index for index, node in enumerate(frame)}
        # An end with frames, or with a score that no frame has, is an arc to a node of its own.
        silent = [line for line in ends if line.pdfs or line.acoustic_cost]
        last = len(frame)
        final = np.full(last + bool(silent), np.inf)
        for line in ends:
            final[number[line.source]] = line.graph_cost
        for line in silent:
            final[number[line.source]] = np.inf
        if silent:
            final[last] = 0.0
        arcs = sorted(
            [line for line in self.lines if line.target is not None] + silent,
            key=lambda line: (number[line.source], line.word),
        )
        node_frames = np.array([*frame.values(), *[frames] * bool(silent)], np.int32)
        target = np.array([last if line.target is None else number[line.target] for line in arcs], np.int32)
        return WordLattice(
            frame=node_frames,
            final=final,
            source=np.array([number[line.source] for line in arcs], np.int32),
            target=target,
            word=np.array([line.word for line in arcs], np.int32),
            begin=np.minimum(node_frames[target], frames - 1),
            graph_cost=np.array([line.graph_cost for line in arcs]),
            log_likelihood=np.array([0.0 - line.acoustic_cost for line in arcs]),
            pdf=np.array([pdf for line in arcs for pdf in line.pdfs], np.int32),
            offset=offsets(np.array([len(line.pdfs) for line in arcs], np.int64)),
            acoustic_scale=acoustic_scale,
            reached_final=reached_final,
            beam=beam,
        )

    def _frames(self) -> dict[int, int]:
        """The frame of each node, in an order in which arcs lead on, and frames ascend."""
        if not self.lines:
            raise LatticeError(f"{self.where}: {self.utterance}: an empty lattice; leave it out")
        out: dict[int, list[_Line]] = {}
        waiting_for: dict[int, int] = {}
        for line in self.lines:
            out.setdefault(line.source, []).append(line)
            waiting_for.setdefault(line.source, 0)
            if line.target is not None:
                waiting_for[line.target] = waiting_for.get(line.target, 0) + 1
        start = self.lines[0].source
        for node, count in waiting_for.items():
            if node not in out:
                raise LatticeError(
                    f"{self.where}: {self.utterance}: no line for node {node}, to which an arc leads; the file is "
                    "cut off, or the lattice damaged"
                )
            if count == 0 and node != start:
                raise LatticeError(
                    f"{out[node][0].where}: no arc leads to node {node}, and the first line starts from {start}; "
                    "expected one start"
                )
        reached, ordered = {start: 0}, {}
        heap = [(0, start)] if waiting_for[start] == 0 else []
        while heap:
            frame, node = heapq.heappop(heap)
            ordered[node] = frame
            for line in out[node]:
                if line.target is None:
                    continue
                behind = frame + len(line.pdfs)
                if reached.setdefault(line.target, behind) != behind:
                    raise LatticeError(
                        f"{line.where}: node {line.target} is reached after {behind} frames, and elsewhere after "
                        f"{reached[line.target]}; expected one id for each frame"
                    )
                waiting_for[line.target] -= 1
                if waiting_for[line.target] == 0:
                    heapq.heappush(heap, (behind, line.target))
        if len(ordered) < len(out):
            node = min(out.keys() - ordered.keys())
            raise LatticeError(f"{out[node][0].where}: node {node} is in a cycle or behind one; expected no cycles")
        return ordered

    def _word(self, where: str, text: str) -> int:
        word = self.number_of.get(text)
        if word is None:
            raise LatticeError(
                f"{where}: the word {quoted(text)} is not in the table; read the lattice with the words of the graph "
                "that it was searched with, and say whether words are numbers"
            )
        if word == 0:
            raise LatticeError(f"{where}: an arc without a word; determinize the lattice first")
        return word


def _number(where: str, noun: str, text: str) -> int:
    if _NUMBER.fullmatch(text) is None or int(text) > LARGEST_NUMBER:
        raise LatticeError(f"{where}: expected {noun} from 0 to {LARGEST_NUMBER}, found {quoted(text)}")
    return int(text)


def _cost(where: str, text: str) -> float:
    cost = float(text) if _COST.fullmatch(text) is not None else math.nan
    if not abs(cost) <= LARGEST_COST:  # not so for NaN
        raise LatticeError(f"{where}: expected a cost up to {LARGEST_COST:g}, found {quoted(text)}")
    return cost


def _weight(where: str, text: str) -> tuple[float, float, list[int]]:
    """Graph cost, acoustic cost and pdfs of a weight."""
    parts = text.split(",")
    if len(parts) != 3:
        raise LatticeError(f"{where}: expected graph,acoustic,ids, found {quoted(text)}; the file may be cut off")
    return _cost(where, parts[0]), _cost(where, parts[1]), _pdfs(where, parts[2]) if parts[2] else []


def _pdfs(where: str, text: str) -> list[int]:
    if _IDS.fullmatch(text) is not None:
        pdfs = [int(each) - 1 for each in text.split("_")]
        if min(pdfs) >= 0 and max(pdfs) < LARGEST_NUMBER:
            return pdfs
    wrong = next(
        each for each in text.split("_") if _NUMBER.fullmatch(each) is None or not 0 < int(each) <= LARGEST_NUMBER
    )
    raise LatticeError(f"{where}: expected ids from 1 to {LARGEST_NUMBER}, pdfs counted from 1, found {quoted(wrong)}")
