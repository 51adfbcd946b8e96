"""What a table says of each pass in words: "helped", "hurt", or "no evidence".

A pass that adapts is compared twice: with its base, and with its control, the mean of the other speakers' parameters.
The base is the unadapted network; that of a pass on top of another's transforms is this other pass, so that what the
transforms gain is not counted again; the gain of both is in the other comparisons of the pass. What every speaker
would have gained is in the control too; only what goes beyond that is the speaker's own.

    helped        p against the base below 0.05, fewer errors than the base and than the control
    hurt          p against the base below 0.05, more errors than the base and than the control
    no evidence   everything else, also where the split's speakers are too few for a control

A recipe names one primary comparison before it is run. All other comparisons with bases are a family, and their p are
adjusted by Holm's method (S. Holm, "A simple sequentially rejective multiple test procedure", 1979); so are all other
comparisons with controls. Passes on reference transcripts are bounds and not results; neither they nor controls are
judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from lhuc_asr.score.holm import holm
from lhuc_asr.score.significance import LEVEL, Comparison, compare
from lhuc_asr.score.wer import WerReport


class Role(StrEnum):
    """What a pass is in a table."""

    FIRST = "first"  # without adaptation
    RESULT = "result"
    BOUND = "bound"
    CONTROL = "control"


class Verdict(StrEnum):
    """What the comparisons of a pass say."""

    HELPED = "helped"
    HURT = "hurt"
    NO_EVIDENCE = "no evidence"


@dataclass(frozen=True)
class Entry:
    """A pass over a split, before it is compared.

    Attributes:
        split: Name of the set of utterances, such as "test".
        name: Name of the pass, such as "lhuc".
        report: Errors of the pass.
        role: What the pass is in the table.
        base: Errors of the pass that it is compared with; None for a pass that is compared with none.
        others: Errors of the pass's control, the mean of the other speakers' parameters; None without one.
        primary: Whether this is the recipe's primary comparison.
        by_seed: WER with each seed, fractions; empty with one seed. The reports are then summed over the seeds.
        base_name: Name of the pass that it is compared with.
        also: What else the pass is compared with, by name: for a pass on top of another's transforms the base of the
            pass below and, where the recipe asks for it, the control of both; for an output the pass itself; for a pass
            of another network than ``si`` that network's first pass.
    """

    split: str
    name: str
    report: WerReport
    role: Role
    base: WerReport | None = None
    others: WerReport | None = None
    primary: bool = False
    by_seed: tuple[float, ...] = ()
    base_name: str = "si"
    also: Mapping[str, WerReport] = field(default_factory=dict)


@dataclass(frozen=True)
class Against:
    """A comparison, and its p among those of its family.

    Attributes:
        comparison: The comparison.
        adjusted_p: p adjusted by Holm's method; for the primary comparison, and outside of any family, the p itself.
    """

    comparison: Comparison
    adjusted_p: float


@dataclass(frozen=True)
class PassScore:
    """One line of a table: a pass over a split, compared and judged.

    Attributes:
        entry: The pass.
        base: Comparison with the base; None for a pass without one.
        others: Comparison with the mean of the other speakers' parameters; None without such a control.
        verdict: What the comparisons say; None for a pass that is not judged.
        also: Other comparisons, by the name of what the pass is compared with; their p are not adjusted.
    """

    entry: Entry
    base: Against | None
    others: Against | None
    verdict: Verdict | None
    also: Mapping[str, Comparison] = field(default_factory=dict)


def judge(entries: Sequence[Entry], seed: int) -> list[PassScore]:
    """Compare and judge all passes of a table.

    Args:
        entries: The passes, of all splits.
        seed: Seed of the intervals.

    Raises:
        ScoreError: Two passes cannot be compared: see ``significance.compare``.
    """
    bases = _against(entries, [entry.base for entry in entries], seed)
    others = _against(entries, [entry.others for entry in entries], seed)
    return [
        PassScore(entry, change, own, _verdict(entry, change), _also(entry, seed))
        for entry, change, own in zip(entries, bases, others, strict=True)
    ]


def _against(entries: Sequence[Entry], references: Sequence[WerReport | None], seed: int) -> list[Against | None]:
    """Compare each pass with its reference, and adjust the p of the results that are not the primary comparison."""
    comparisons = [
        None if reference is None else compare(reference, entry.report, np.random.default_rng(seed))
        for entry, reference in zip(entries, references, strict=True)
    ]
    family = {
        place: comparison.p_value
        for place, (entry, comparison) in enumerate(zip(entries, comparisons, strict=True))
        if comparison is not None and entry.role is Role.RESULT and not entry.primary
    }
    adjusted = dict(zip(family, holm(list(family.values())), strict=True))
    return [
        None if comparison is None else Against(comparison, adjusted.get(place, comparison.p_value))
        for place, comparison in enumerate(comparisons)
    ]


def _also(entry: Entry, seed: int) -> dict[str, Comparison]:
    return {
        name: compare(reference, entry.report, np.random.default_rng(seed)) for name, reference in entry.also.items()
    }


def _verdict(entry: Entry, change: Against | None) -> Verdict | None:
    if entry.role is not Role.RESULT or change is None:
        return None
    if entry.others is None or change.adjusted_p >= LEVEL or entry.base is None:
        return Verdict.NO_EVIDENCE
    errors, references = entry.report.errors, (entry.base.errors, entry.others.errors)
    if errors < min(references):
        return Verdict.HELPED
    return Verdict.HURT if errors > max(references) else Verdict.NO_EVIDENCE
