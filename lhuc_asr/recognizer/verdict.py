"""Whether adaptation hurts a person, told from pieces of their speech that it did not adapt on.

The parameters of each half of a person's pieces are estimated on the other half. Where the words that were learned are
known, or another system's, adaptation hurts if the network's words become less like them. A network's own words are
those that it says without adaptation, which tells nothing. There adaptation hurts if its words become less stable: if
more of them change when the acoustic scale does, or if there are fewer. Errors that it is sure of cannot be seen so.
Both count words, so that no threshold is needed. With half a minute of speech, most people have as many words in
doubt as before; their adaptation is kept. The measures and this rule were chosen on development speakers
(docs/settings.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lhuc_asr.adapt.method import AdaptedSpeakers
from lhuc_asr.adapt.stacked import Stacked
from lhuc_asr.adapt.two_pass import Scores
from lhuc_asr.base.runlog import progress
from lhuc_asr.decode.hypothesis import likeness
from lhuc_asr.decode.lattice_search import LatticeSummary
from lhuc_asr.recognizer.model_folder import ModelDescription
from lhuc_asr.recognizer.passes import Pass, Passes

Measure = Literal["unlike", "unstable"]
# Sums of fractions of words are equal within rounding.
ROUNDING = 1e-6


@dataclass(frozen=True)
class Verdict:
    """What the pieces of one person say.

    Attributes:
        measure: What was counted: ``unlike`` for words unlike those that were learned, ``unstable`` for words that
            change with the acoustic scale, and half of those that are fewer.
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

    Both sides are decoded with the same transforms, those of the other half, where the network needs them. A person of
    whom only one piece has words has no verdict; nor has anybody where the network cannot do without the pass's own
    parameters, as one on fMLLR features cannot do without transforms.

    Args:
        passes: The passes over the speech of the persons.
        last: The pass that adapts to them.
    """
    halves = passes.model.halves(last.loop.features)
    if passes.model.description.without_speaker == last.plan.name or last.source is None or not halves:
        return {}
    adapted = last.estimated(passes.model.halves)
    after, before = (
        _summaries(passes, last, last.loop.second_pass(speakers, halves), f"verdict, {title}")
        for speakers, title in ((adapted, "adapted"), (unadapted(passes.model.description, adapted), "unadapted"))
    )
    learned = last.source.words.found_words  # none, if the method learns from features alone
    own = not learned or (passes.transcripts is None and last.source.plan.network == last.plan.network)
    pairs: dict[str, list[tuple[LatticeSummary, LatticeSummary]]] = {}
    for each in halves:
        if learned and not any(learned.get(piece.id) for piece, _ in each.estimated_on):
            continue  # nothing was learned
        known = [piece.id for piece in each.used_for if not learned or piece.id in learned]
        pairs.setdefault(each.speaker, []).extend((before[piece], after[piece]) for piece in known)
    return {name: verdict_of(theirs, None if own else learned) for name, theirs in pairs.items() if theirs}


def unadapted(description: ModelDescription, adapted: AdaptedSpeakers) -> AdaptedSpeakers:
    """The speakers as the model decodes them without adaptation: with their transforms, if it needs them."""
    method = description.with_speaker.method
    if isinstance(adapted, Stacked) and method is not None and method.on == description.without_speaker:
        return replace(adapted, above=adapted.above.unadapted())
    return adapted.unadapted()


def _summaries(passes: Passes, made: Pass, scores: Iterable[Scores], title: str) -> dict[str, LatticeSummary]:
    lattices = passes.pool.lattices_all(scores, made.plan.search, passes.model.description.lattice)
    return {each.hypothesis.utterance: each for each in progress(lattices, title, len(passes.speech.pieces))}


def verdict_of(
    pairs: Sequence[tuple[LatticeSummary, LatticeSummary]], learned: Mapping[str, Sequence[str]] | None
) -> Verdict:
    """The verdict on a person.

    Args:
        pairs: Each piece as it is decoded without and with adaptation.
        learned: The words that were learned, by the piece's id; None for the network's own words.
    """
    if learned is not None:
        first, second = (sum(unlike(pair[which], learned) for pair in pairs) for which in (0, 1))
        return Verdict("unlike", len(pairs), first, second)
    first = sum(unstable(before) for before, _ in pairs)
    return Verdict("unstable", len(pairs), first, sum(unstable(after) + lost(before, after) for before, after in pairs))


def unstable(summary: LatticeSummary) -> float:
    """Number of a piece's words that change with the acoustic scale."""
    return (1.0 - summary.agreement) * len(summary.hypothesis.words)


def lost(before: LatticeSummary, after: LatticeSummary) -> float:
    """Half the number of words that a piece has less: a network that falls silent is stable."""
    return max(0, len(before.hypothesis.words) - len(after.hypothesis.words)) / 2


def unlike(summary: LatticeSummary, learned: Mapping[str, Sequence[str]]) -> float:
    """Number of a piece's words that are unlike those that were learned."""
    words, others = summary.hypothesis.words, learned[summary.hypothesis.utterance]
    return (1.0 - likeness(words, others)) * (len(words) + len(others)) / 2
