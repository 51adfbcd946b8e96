"""Decoding graphs: H o C o L o G as one transducer from HMM states to words.

After M. Mohri, F. Pereira and M. Riley, "Speech recognition with weighted finite-state transducers" (2008),
in the order of operations of Kaldi's mkgraph.sh. G is the n-gram model, L the lexicon with optional silence,
C the phones' context, H their HMM states. A path's cost is the sum of three: the language model's, the lexicon's
(optional silence), and that of staying in and leaving HMM states, the last scaled by ``transition_scale``. All are
negative natural logs of probabilities. Kaldi's weight pushing and its final epsilon removal (fstrmepslocal) are left
out: they affect speed; the result is the same up to pruning.

An input label is the number of a distinct HMM state (phone, position, pdf), from 1. The arc into an HMM state and its
self-loop carry the same label, so the labels of a path are its state alignment.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from threading import Lock
from typing import Self

import kaldifst
import numpy as np
from pydantic import ConfigDict, Field, model_validator

from lhuc_asr.base.atomic import atomic_path, sha256_of, write_json
from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.documents import Count, DocumentKind, Positive
from lhuc_asr.base.errors import GraphError
from lhuc_asr.decode.components import check_vocabulary, grammar_fst, hmm_fst, lexicon_fst, number_states
from lhuc_asr.decode.const_fst import ARC, ArcTable
from lhuc_asr.decode.packed_graph import PackedGraph, epsilon_levels
from lhuc_asr.hmm.topology import ContextDependency
from lhuc_asr.lang.lexicon import Lexicon, WordTable

logger = logging.getLogger(__name__)

GRAPH_FILE, WORDS_FILE, DESCRIPTION_FILE = "HCLG.fst", "words.txt", "graph.json"
# Number of insertion penalties whose transducers stay in memory: a sweep tries all scales for one penalty at a time.
PENALTIES_KEPT = 2
# Without this lock, threads that need the same transducer at once would each read it.
_READING = Lock()


class _Hashes(StrictModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=False)

    graph: str = Field(alias=GRAPH_FILE)
    words: str = Field(alias=WORDS_FILE)


class _Description(StrictModel):
    """Content of ``graph.json``; see ``DecodingGraph``."""

    context_width: Positive
    pdf_count: Positive
    states: Positive
    arcs: Count
    sha256: _Hashes
    label_pdf: tuple[Count, ...]

    @model_validator(mode="after")
    def _labels_have_pdfs(self) -> Self:
        if max(self.label_pdf, default=0) >= self.pdf_count:
            raise ValueError(f"a label has the pdf {max(self.label_pdf)}, expected 0 to {self.pdf_count - 1}")
        return self


_DESCRIPTIONS = DocumentKind(_Description, "a description of a graph", GraphError, "rebuild the graph")


@dataclass(frozen=True, eq=False)
class DecodingGraph:
    """A graph on disk and the meaning of its labels.

    Attributes:
        folder: Folder of HCLG.fst, words.txt and graph.json.
        words: Word of each output label; label 0 is epsilon.
        label_pdf: Pdf of each input label, shape (L,), int32; entry i belongs to label i + 1. The array is 0 .. K-1 if
            phones and positions do not share pdfs, as with monophones.
        pdf_count: Number of pdfs, K.
        context_width: Number of phones in a window of the acoustic model's context.
        states: Number of states.
        arcs: Number of arcs.
    """

    folder: Path
    words: tuple[str, ...]
    label_pdf: np.ndarray
    pdf_count: int
    context_width: int
    states: int
    arcs: int

    @classmethod
    def load(cls, folder: Path) -> DecodingGraph:
        """Open a graph that ``build_graph`` wrote, and check all that its files say of themselves.

        What passes leads no search outside its arrays, and into no circle: hashes prove nothing against whoever wrote
        them.

        Raises:
            GraphError: A file is missing, damaged, or not from the same build as the others.
        """
        remedy = f"delete {folder / DESCRIPTION_FILE} and rebuild the graph"
        description = replace(_DESCRIPTIONS, remedy=remedy).read(folder / DESCRIPTION_FILE)
        for name, expected in description.sha256.model_dump(by_alias=True).items():
            try:
                sha256 = sha256_of(folder / name)
            except FileNotFoundError as error:
                raise GraphError(f"{folder / name}: no such file; {remedy}") from error
            except OSError as error:
                raise GraphError(f"{folder / name}: cannot be read ({error.strerror or error}); {remedy}") from error
            if sha256 != expected:
                raise GraphError(
                    f"{folder / name}: damaged, or not from the same build as {DESCRIPTION_FILE} (sha256 "
                    f"{sha256[:12]}, expected {expected[:12]}); {remedy}"
                )
        graph = cls(
            folder=folder,
            words=WordTable.load(folder / WORDS_FILE).symbols,
            label_pdf=np.array(description.label_pdf, np.int32),
            pdf_count=description.pdf_count,
            context_width=description.context_width,
            states=description.states,
            arcs=description.arcs,
        )
        graph._table()
        return graph

    def fst(self, insertion_penalty: float) -> kaldifst.StdConstFst:
        """The transducer with an insertion penalty (a cost added to each word); the last few are kept."""
        with _READING:
            return self._kept_fst(insertion_penalty)

    def packed(self, insertion_penalty: float) -> PackedGraph:
        """The same transducer, stored as arrays, for lattice search."""
        with _READING:
            return self._kept_packed(insertion_penalty)

    @cached_property
    def _kept_fst(self) -> Callable[[float], kaldifst.StdConstFst]:
        return lru_cache(maxsize=PENALTIES_KEPT)(self._read_fst)

    @cached_property
    def _kept_packed(self) -> Callable[[float], PackedGraph]:
        return lru_cache(maxsize=PENALTIES_KEPT)(self._pack)

    def _read_fst(self, insertion_penalty: float) -> kaldifst.StdConstFst:
        # Not OpenFst's own reading of the file: it believes whatever the header says.
        return self._penalised(insertion_penalty).to_fst()

    def _pack(self, insertion_penalty: float) -> PackedGraph:
        return PackedGraph.of(self._penalised(insertion_penalty), self.label_pdf)

    def _penalised(self, insertion_penalty: float) -> ArcTable:
        table = self._table()
        table.arcs["cost"][table.arcs["output"] > 0] += insertion_penalty
        return table

    def _table(self) -> ArcTable:
        """The transducer, read from its file, each time with all its labels checked."""
        path = self.folder / GRAPH_FILE
        table = ArcTable.read(path)
        if (len(table.final), len(table.arcs)) != (self.states, self.arcs):
            raise GraphError(
                f"{path}: {len(table.final)} states and {len(table.arcs)} arcs, {DESCRIPTION_FILE} says {self.states} "
                f"and {self.arcs}; delete {DESCRIPTION_FILE} beside it and rebuild the graph"
            )
        for name, labels in (("input", len(self.label_pdf) + 1), ("output", len(self.words))):
            if (highest := int(table.arcs[name].max(initial=0))) >= labels:
                raise GraphError(
                    f"{path}: an arc has the {name} {highest}, expected 0 to {labels - 1}; delete {DESCRIPTION_FILE} "
                    "beside it and rebuild the graph"
                )
        epsilon_levels(table)
        return table


def build_graph(
    lexicon: Lexicon,
    arpa_path: Path,
    dependency: ContextDependency,
    folder: Path,
    transition_scale: float = 1.0,
) -> DecodingGraph:
    """Compose, determinize and minimize a decoding graph, and save it.

    Words that only the language model or only the lexicon has cannot be recognised; they are logged.

    Args:
        lexicon: Pronunciations of the words.
        arpa_path: The n-gram model.
        dependency: States of the acoustic model's phones.
        folder: Folder of the graph's three files; other files in it stay.
        transition_scale: Factor on the costs of staying in and leaving HMM states. If the search scales log-likelihoods
            by 0.1, unscaled transition costs outweigh them; Kaldi therefore scales self-loops by 0.1.

    Raises:
        GraphError: The lexicon's and the acoustic model's phones differ, or lexicon and language model share no words.
        LanguageModelError: The ARPA file is missing or malformed.
    """
    if lexicon.phones != dependency.phones:
        raise GraphError(
            f"the lexicon's phones ({' '.join(lexicon.phones.names)}) are not the acoustic model's "
            f"({' '.join(dependency.phones.names)}); train the model on this lexicon's phones"
        )
    # An old description must not describe files that are about to change.
    (folder / DESCRIPTION_FILE).unlink(missing_ok=True)
    words = WordTable(lexicon.words)
    words.save(folder / WORDS_FILE)
    check_vocabulary(lexicon, arpa_path)
    grammar = grammar_fst(arpa_path, folder / WORDS_FILE)
    pronunciations, disambiguation = lexicon_fst(lexicon, words)

    lexicon_grammar = _optimised(kaldifst.compose(pronunciations, grammar))
    logger.info("graph: L o G has %d states", lexicon_grammar.num_states)
    kaldifst.arcsort(lexicon_grammar, "ilabel")
    context_grammar, windows = kaldifst.compose_context(
        disambiguation, dependency.context_width, dependency.central_position, lexicon_grammar
    )
    kaldifst.arcsort(context_grammar, "ilabel")
    logger.info("graph: C o L o G has %d states, %d windows of phones", context_grammar.num_states, len(windows))

    hmm = number_states(windows, dependency, transition_scale)
    composed = kaldifst.StdVectorFst(kaldifst.compose(hmm_fst(hmm), context_grammar))
    kaldifst.determinize_star(composed, use_log=True)
    table = ArcTable.from_fst(composed)
    table.arcs["input"][table.arcs["input"] > len(hmm.label_pdf)] = 0  # disambiguation symbols are no longer needed
    stripped = kaldifst.StdVectorFst(table.to_fst())
    kaldifst.minimize_encoded(stripped)
    graph = add_self_loops(ArcTable.from_fst(stripped), hmm.stay_cost)
    logger.info("graph: H o C o L o G has %d states, %d arcs", len(graph.final), len(graph.arcs))

    with atomic_path(folder / GRAPH_FILE) as temporary:
        graph.write(temporary)
    description = {
        "context_width": dependency.context_width,
        "pdf_count": dependency.pdf_count,
        "states": len(graph.final),
        "arcs": len(graph.arcs),
        "sha256": {name: sha256_of(folder / name) for name in (GRAPH_FILE, WORDS_FILE)},
        "label_pdf": hmm.label_pdf.tolist(),
    }
    write_json(folder / DESCRIPTION_FILE, description)
    return DecodingGraph.load(folder)


def add_self_loops(table: ArcTable, stay_cost: np.ndarray) -> ArcTable:
    """Add self-loops: after each arc that enters an HMM state, a loop with the arc's label.

    If all arcs into a graph state share one label, the loop goes on that state. Otherwise a new state is inserted
    before it for each label, with a loop and an epsilon to the old state.

    Args:
        table: A graph without loops.
        stay_cost: Cost of staying in the HMM state of each label for another frame, shape (L,); entry i belongs to
            label i + 1.
    """
    states, labels = len(table.final), len(stay_cost)
    arcs = table.arcs.copy()
    target = arcs["target"].astype(np.int64)
    low, high = np.full(states, labels + 1), np.zeros(states, np.int64)
    np.minimum.at(low, target, arcs["input"])
    np.maximum.at(high, target, arcs["input"])
    low[table.start] = 0  # the start is treated as entered by an epsilon
    one_label = np.flatnonzero((low == high) & (low > 0))

    redirected = np.flatnonzero((arcs["input"] > 0) & (low[target] != high[target]))
    pairs, which = np.unique(target[redirected] * (labels + 1) + arcs["input"][redirected], return_inverse=True)
    between = states + np.arange(len(pairs))
    arcs["target"][redirected] = between[which]

    loops = np.zeros(len(one_label) + len(between), ARC)
    loops["target"] = np.concatenate([one_label, between])
    loops["input"] = np.concatenate([low[one_label], pairs % (labels + 1)])
    loops["cost"] = stay_cost[loops["input"] - 1]
    onwards = np.zeros(len(between), ARC)
    onwards["target"] = pairs // (labels + 1)
    return ArcTable(
        start=table.start,
        final=np.concatenate([table.final, np.full(len(between), np.inf, np.float32)]),
        source=np.concatenate([table.source, loops["target"], between]),
        arcs=np.concatenate([arcs, loops, onwards]),
    ).sorted()


def _optimised(fst: kaldifst.StdFst) -> kaldifst.StdVectorFst:
    """A determinized and minimized copy of the transducer, without epsilons.

    Minimization treats each label-and-weight combination as one symbol.
    """
    result = kaldifst.StdVectorFst(fst)
    kaldifst.determinize_star(result, use_log=True)
    kaldifst.minimize_encoded(result)
    return result
