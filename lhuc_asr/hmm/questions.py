"""Questions about a neighbouring phone: sets of phones, from clustering, from the phones' names, from a file.

Clustering makes sets of phones that sound alike: the phones of one base (AA0_B, AA1_E, ...) are one cluster at the
start, and every cluster on the way to the last one is a question (Kaldi's cluster-phones, which splits from the top).
Names tell the place in the word and the stress (Kaldi's extra_questions).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from lhuc_asr.base.errors import LexiconError
from lhuc_asr.hmm.clustering import merges
from lhuc_asr.hmm.states import state_count
from lhuc_asr.hmm.tree import PHONE, POSITION, Question
from lhuc_asr.hmm.tree_statistics import TreeStatistics
from lhuc_asr.lang.lines import read_lines
from lhuc_asr.lang.phones import PhoneSet


def make_questions(statistics: TreeStatistics, phones: PhoneSet, path: Path | None = None) -> tuple[Question, ...]:
    """All questions, each once: of clustering, of the phones' names, of a file.

    Args:
        statistics: Statistics of the phones.
        phones: The phone set.
        path: File of linguistic questions; None for none.

    Raises:
        LexiconError: The file is missing or damaged, or has an unknown phone.
    """
    given = read_questions(path, phones) if path else ()
    questions = dict.fromkeys((*clustered_questions(statistics, phones), *name_questions(phones), *given))
    return tuple(question for question in questions if 0 < len(question) < len(phones.names))


def clustered_questions(statistics: TreeStatistics, phones: PhoneSet) -> tuple[Question, ...]:
    """The phones of each base, and the clusters of those that sound alike.

    Clustered are the middle states of the phones; phones without frames are in no larger cluster than their base.
    """
    clusters = {base: frozenset(names) for base, names in by_base(phones, phones.names).items()}
    base_of = {name: base for base, names in clusters.items() for name in names}
    order = list(clusters)
    index = np.array([-1, *(order.index(base_of[name]) for name in phones.names)])
    middle = np.array([-1, *(state_count(name, phones) // 2 for name in phones.names)])
    rows = statistics.contexts[:, POSITION] == middle[statistics.contexts[:, PHONE]]
    sums = np.zeros((len(order), statistics.sums.shape[1]))
    np.add.at(sums, index[statistics.contexts[rows, PHONE]], statistics.sums[rows])
    seen = np.flatnonzero(sums[:, 0])
    questions = list(clusters.values())
    growing = [questions[base] for base in seen]
    for i, j in merges(sums[seen]):
        growing[i] |= growing[j]
        questions.append(growing[i])
    return tuple(questions)


def name_questions(phones: PhoneSet) -> tuple[Question, ...]:
    """The phones of each place in the word, and of each stress."""
    sets: dict[tuple[str, str], set[str]] = {}
    for name in phones.speech:
        parts = phones.parts[name]
        sets.setdefault(("word position", parts.word_position), set()).add(name)
        sets.setdefault(("stress", parts.stress), set()).add(name)
    return tuple(frozenset(names) for (_, value), names in sets.items() if value)


def read_questions(path: Path, phones: PhoneSet) -> tuple[Question, ...]:
    """Read a file of linguistic questions: lines of phones; the name of a base stands for all of its phones.

    Raises:
        LexiconError: The file is missing or damaged, or has an unknown phone.
    """
    sets = by_base(phones, phones.names) | {name: (name,) for name in phones.names}
    questions = []
    for number, line in read_lines(path, LexiconError):
        unknown = [name for name in line.split() if name not in sets]
        if unknown:
            raise LexiconError(
                f"{path}:{number}: phones outside the phone set: {' '.join(unknown)}; take them out; known phones: "
                f"{' '.join(by_base(phones, phones.names))}"
            )
        questions.append(frozenset(phone for name in line.split() for phone in sets[name]))
    return tuple(questions)


def by_base(phones: PhoneSet, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Some phones of a phone set by the base of their names, in their order."""
    groups: dict[str, tuple[str, ...]] = {}
    for name in names:
        base = phones.parts[name].base
        groups[base] = (*groups.get(base, ()), name)
    return groups
