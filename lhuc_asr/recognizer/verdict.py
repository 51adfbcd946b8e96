"""Whether adaptation hurts a person, told without a transcript, from pieces of speech that it did not adapt on.

The parameters of each half of a person's pieces are estimated on the other half. Where the words that were learned are
known, or another system's, adaptation hurts if the network's words become less like them. A network's own words are
those that it says without adaptation, which tells nothing. There adaptation hurts if its words become less stable: if
more change when the acoustic scale does. Both count words, and there is no threshold: where as many words are in doubt
as before, which is so for most people with half a minute of speech, adaptation is believed. The measures, and that,
were chosen on development speakers (docs/settings.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lhuc_asr.adapt.two_pass import Scores
from lhuc_asr.base.runlog import progress
from lhuc_asr.decode.hypothesis import likeness
from lhuc_asr.decode.lattice_search import LatticeSummary
from lhuc_asr.recognizer.passes import Pass, Passes

Measure = Literal["unlike", "unstable"]
# Sums of fractions of words are equal within rounding.
ROUNDING = 1e-6


@dataclass(frozen=True)
class Verdict:
    """What the pieces of one person say.

    Attributes:
        measure: What was counted: ``unlike`` for words unlike those that were learned, ``unstable`` for words that
            change with the acoustic scale.
        pieces: Number of pieces.
        before: Number of such words without adaptation; a word that is missing, or too many, counts half.
        after: The same with adaptation on the other half.
    """

    measure: Measure
    pieces: int
    before: float
    after: float

    @property
    def helps(self) -> bool:
        """Whether fewer words are in doubt with adaptation."""
        return self.after < self.before - ROUNDING

    @property
    def hurts(self) -> bool:
        """Whether more are."""
        return self.after > self.before + ROUNDING


def verdicts(passes: Passes, last: Pass) -> dict[str, Verdict]:
    """The verdict on a pass for each person, by name.

    A person of whom there is one piece only has none; nor has anybody where the network cannot do without the pass's
    parameters, as one on fMLLR features cannot do without transforms.

    Args:
        passes: The passes over the speech of the persons.
        last: The pass that adapts to them.
    """
    without = passes[passes.model.description.without_speaker]
    halves = passes.model.halves(last.loop.features)
    if without.plan == last.plan or last.source is None or not halves:
        return {}
    decoded = last.loop.second_pass(last.estimated(passes.model.halves), halves)
    after = _summaries(passes, last, decoded, "verdict: adapted")
    before = _summaries(passes, without, without.scores(), "verdict: unadapted")
    pieces: dict[str, list[str]] = {}
    for each in halves:
        pieces.setdefault(each.speaker, []).extend(piece.id for piece in each.used_for)
    if passes.transcripts is None and last.source.plan.network == last.plan.network:
        return {name: _judged("unstable", theirs, before, after, unstable) for name, theirs in pieces.items()}
    learned = last.source.words.found_words
    known = {name: [piece for piece in theirs if piece in learned] for name, theirs in pieces.items()}
    return {
        name: _judged("unlike", theirs, before, after, lambda each: unlike(each, learned))
        for name, theirs in known.items()
        if theirs
    }


def _summaries(passes: Passes, made: Pass, scores: Iterable[Scores], title: str) -> dict[str, LatticeSummary]:
    lattices = passes.pool.lattices_all(scores, made.plan.search, passes.model.description.lattice)
    return {each.hypothesis.utterance: each for each in progress(lattices, title, len(passes.speech.pieces))}


def _judged(
    measure: Measure,
    pieces: Sequence[str],
    before: Mapping[str, LatticeSummary],
    after: Mapping[str, LatticeSummary],
    doubt: Callable[[LatticeSummary], float],
) -> Verdict:
    first, second = (sum(doubt(summaries[piece]) for piece in pieces) for summaries in (before, after))
    return Verdict(measure, len(pieces), first, second)


def unstable(summary: LatticeSummary) -> float:
    """Number of a piece's words that change with the acoustic scale."""
    return (1.0 - summary.agreement) * len(summary.hypothesis.words)


def unlike(summary: LatticeSummary, learned: Mapping[str, Sequence[str]]) -> float:
    """Number of a piece's words that are unlike those that were learned."""
    words, others = summary.hypothesis.words, learned[summary.hypothesis.utterance]
    return (1.0 - likeness(words, others)) * (len(words) + len(others)) / 2
