"""The transducers that a decoding graph is composed of: G, L and H. C, the context, is made by kaldifst.

G accepts sentences at the n-gram model's cost, L maps phones to words, H maps labels of HMM states to windows
of phones. Disambiguation symbols (#0 on the back-offs of G, #1 ... behind pronunciations that others share)
keep their composition determinizable: M. Mohri, F. Pereira and M. Riley, "Weighted finite-state
transducers in speech recognition" (2002), section 3.
"""

from __future__ import annotations

import logging
import math
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import kaldifst
import numpy as np

from lhuc_asr.base.errors import GraphError, LanguageModelError
from lhuc_asr.base.outputs import nameless_file
from lhuc_asr.decode.const_fst import ArcTable
from lhuc_asr.hmm.topology import ContextDependency
from lhuc_asr.lang.arpa import read_arpa
from lhuc_asr.lang.lexicon import Lexicon, WordTable, disambiguate
from lhuc_asr.lang.phones import SILENCE
from lhuc_asr.lang.text import BACKOFF, SENTENCE_BEGIN, SENTENCE_END, UNKNOWN

logger = logging.getLogger(__name__)

# Number of words that a message names.
WORDS_SHOWN = 8


def grammar_fst(arpa_path: Path, words_path: Path) -> kaldifst.StdVectorFst:
    """G: word sequences with the n-gram model's costs; back-off arcs have the label #0.

    Args:
        arpa_path: The n-gram model.
        words_path: The table of words, ``words.txt``.

    Raises:
        LanguageModelError: kaldilm cannot read the file.
    """
    with nameless_file() as path:
        # In a separate process: kaldilm aborts its process on a malformed file instead of raising.
        command = [sys.executable, "-m", "kaldilm", f"--disambig-symbol={BACKOFF}", "--max-arpa-warnings=0"]
        command += [f"--read-symbol-table={words_path.absolute()}", str(arpa_path.absolute()), str(path)]
        result = subprocess.run(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            check=False,
            pass_fds=(int(path.name),),
        )
        grammar = kaldifst.StdVectorFst.read(str(path)) if result.returncode == 0 else None
    if grammar is None:
        errors = [line for line in result.stderr.splitlines() if line.startswith("[E]")]
        complaint = (errors or [result.stderr])[-1].removeprefix("[E]").strip()
        raise LanguageModelError(f"{arpa_path}: kaldilm cannot read it: {complaint}; estimate the language model again")
    kaldifst.arcsort(grammar, "ilabel")
    return grammar


def check_vocabulary(lexicon: Lexicon, arpa_path: Path) -> None:
    """Log the words that only the language model or only the lexicon has.

    Raises:
        GraphError: They share no words.
        LanguageModelError: The ARPA file is missing or malformed.
    """
    modelled = set(read_arpa(arpa_path).symbols) - {SENTENCE_BEGIN, SENTENCE_END}
    pronounced = set(lexicon.words)
    if not modelled & pronounced:
        raise GraphError(
            f"{arpa_path}: none of its {len(modelled)} words ({_some(modelled)}) is among the lexicon's "
            f"{len(pronounced)} ({_some(pronounced)}); spell both in the same case"
        )
    unpronounced, unmodelled = modelled - pronounced - {UNKNOWN}, pronounced - modelled
    if unpronounced:
        logger.warning("%s: %d words without pronunciation: %s", arpa_path, len(unpronounced), _some(unpronounced))
    if unmodelled:
        logger.warning("%s: lacks %d words of the lexicon: %s", arpa_path, len(unmodelled), _some(unmodelled))


def _some(words: set[str]) -> str:
    """The first few words in order, for a message."""
    named = sorted(words)[:WORDS_SHOWN]
    return " ".join(named) + (" ..." if len(words) > len(named) else "")


def lexicon_fst(lexicon: Lexicon, words: WordTable) -> tuple[kaldifst.StdVectorFst, list[int]]:
    """L: phones to words at the cost of each pronunciation, with optional silence before, between and after them.

    Returns:
        L, and the input labels of its disambiguation symbols.
    """
    pronunciations, count = disambiguate(lexicon)
    phones = lexicon.phones.ids
    backoff = len(phones) + 1  # #0; those of the pronunciations are #1 .. #count
    after_silence = backoff + count + 1
    with_silence = -math.log(lexicon.silence_probability)
    without_silence = -math.log1p(-lexicon.silence_probability)

    begin, between_words, before_silence, silent = range(4)
    arcs = [
        (begin, 0, 0, without_silence, between_words),
        (begin, 0, 0, with_silence, before_silence),
        (before_silence, phones[SILENCE], 0, 0.0, silent),
        # This symbol tells silence from a word that is pronounced as silence.
        (silent, after_silence, 0, 0.0, between_words),
    ]
    state_count = 4
    for pronunciation in pronunciations:
        labels = [phones[phone] for phone in pronunciation.phones]
        if pronunciation.disambiguation:
            labels.append(backoff + pronunciation.disambiguation)
        state, output = between_words, words.ids[pronunciation.word]
        cost = -math.log(lexicon.probability(pronunciation.word, pronunciation.phones))
        for label in labels[:-1]:
            arcs.append((state, label, output, 0.0, state_count))
            state, output, state_count = state_count, 0, state_count + 1
        arcs.append((state, labels[-1], output, cost + without_silence, between_words))
        arcs.append((state, labels[-1], output, cost + with_silence, before_silence))
    fst = kaldifst.StdVectorFst(ArcTable.of(arcs, final={between_words: 0.0}).to_fst())
    kaldifst.add_self_loops(fst, [backoff], [words.ids[BACKOFF]])
    kaldifst.arcsort(fst, "olabel")
    return fst, list(range(backoff, after_silence + 1))


class NumberedStates(NamedTuple):
    """The HMM states behind the windows of phones of a graph.

    Attributes:
        label_pdf: Pdf of each label, whose index is the label less 1, shape (L,), int32.
        stay_cost: -log of the probability of staying, scaled, for each label, shape (L,), float32.
        leave_cost: -log of the probability of leaving, scaled, for each label, shape (L,), float32.
        chains: Labels of the states of each window, by the window's number.
        disambiguation: Numbers of the windows that are disambiguation symbols.
    """

    label_pdf: np.ndarray
    stay_cost: np.ndarray
    leave_cost: np.ndarray
    chains: dict[int, list[int]]
    disambiguation: list[int]


def number_states(
    windows: list[list[int]], dependency: ContextDependency, transition_scale: float = 1.0
) -> NumberedStates:
    """Number the distinct HMM states by pdf, then phone, then position.

    A pdf that the graph does not use takes a label too, so that label = pdf + 1 wherever pdfs are not shared.

    Args:
        windows: Windows as compose_context returns them: empty for epsilon, one number up to 0 for a disambiguation
            symbol (compose_context adds 0 itself, at the utterance's beginning), otherwise the numbers of phones,
            0 beyond the edges of the utterance.
        dependency: States of the acoustic model's phones.
        transition_scale: Factor on the costs of staying and leaving.

    Raises:
        GraphError: A state has different probabilities of staying in different windows.
    """
    names = ("", *dependency.phones.names)
    keys_of: dict[int, list[tuple[int, int, int]]] = {}
    self_loop: dict[tuple[int, int, int], float] = {}
    disambiguation = []
    for index, window in enumerate(windows):
        if not window:
            continue
        if len(window) == 1 and window[0] <= 0:
            disambiguation.append(index)
            continue
        phone = window[dependency.central_position]
        keys_of[index] = []
        for position, state in enumerate(dependency.states(tuple(names[number] for number in window))):
            key = (state.pdf, phone, position)
            if self_loop.setdefault(key, state.self_loop) != state.self_loop:
                raise GraphError(
                    f"state {position} of {names[phone]} with pdf {state.pdf} has two probabilities of "
                    f"staying, {self_loop[key]} and {state.self_loop}; give it the same one in every context"
                )
            keys_of[index].append(key)
    for pdf in set(range(dependency.pdf_count)) - {key[0] for key in self_loop}:
        self_loop[pdf, 0, 0] = 0.5  # no arc has this label
    label_of = {key: label for label, key in enumerate(sorted(self_loop), start=1)}
    stay = np.array([self_loop[key] for key in label_of])
    return NumberedStates(
        label_pdf=np.array([pdf for pdf, _, _ in label_of], np.int32),
        stay_cost=(-transition_scale * np.log(stay)).astype(np.float32),
        leave_cost=(-transition_scale * np.log1p(-stay)).astype(np.float32),
        chains={number: [label_of[key] for key in keys] for number, keys in keys_of.items()},
        disambiguation=disambiguation,
    )


def hmm_fst(hmm: NumberedStates) -> kaldifst.StdVectorFst:
    """H without loops: labels of HMM states to numbers of windows.

    The cost of leaving a state is on the arc that enters it, since each state is entered once and left once.
    """
    first_symbol = len(hmm.label_pdf) + 1
    arcs = [(0, first_symbol + index, number, 0.0, 0) for index, number in enumerate(hmm.disambiguation)]
    state_count = 1
    for number, labels in hmm.chains.items():
        source, output = 0, number
        for label in labels[:-1]:
            arcs.append((source, label, output, float(hmm.leave_cost[label - 1]), state_count))
            source, output, state_count = state_count, 0, state_count + 1
        arcs.append((source, labels[-1], output, float(hmm.leave_cost[labels[-1] - 1]), 0))
    fst = kaldifst.StdVectorFst(ArcTable.of(arcs, final={0: 0.0}).to_fst())
    kaldifst.arcsort(fst, "olabel")
    return fst
