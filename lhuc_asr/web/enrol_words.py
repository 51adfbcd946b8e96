"""What the enrolment page is told, as it shows it: words as they come, and the result."""

from __future__ import annotations

from typing import Any

from lhuc_asr.recognizer.live import Heard
from lhuc_asr.recognizer.verdict import Verdict
from lhuc_asr.score.word_alignment import word_columns
from lhuc_asr.web.enrolment import Result, Row


def told_heard(heard: Heard | None) -> dict[str, Any] | None:
    """Words of one side as the page shows them."""
    if heard is None:
        return None
    lines = [{"words": [each.word for each in line]} for line in heard.lines]
    return {"lines": lines, "unfinished": heard.unfinished}


def told_result(ended: Result) -> dict[str, Any]:
    """A result as the page shows it."""
    adaptation = ended.adaptation
    headline, tone = _headline(adaptation.verdict)
    learned = f"{adaptation.seconds:.0f} s of speech with {adaptation.words} words"
    why = _why(adaptation.verdict, reads=all(row.read is not None for row in ended.rows))
    return {
        "headline": headline,
        "tone": tone,
        "sentences": [why, f"It has learned from {learned}.", *ended.problems],
        "rows": [_told_row(row) for row in ended.rows],
    }


def _headline(verdict: Verdict | None) -> tuple[str, str]:
    """The verdict in a line, and its tone."""
    if verdict is None:
        return "Your voice file is ready; whether it helps cannot be told", ""
    if verdict.helps:
        return "Your voice file helps", "good"
    if verdict.hurts:
        return "Your voice file changes nothing, because a change would do harm", "bad"
    return "Your voice file makes no difference that can be told", ""


def _why(verdict: Verdict | None, *, reads: bool) -> str:
    """What a verdict stands on."""
    if verdict is None:
        return "There is too little speech, or the model does not work at all without what it learns of a person."
    words = (
        "that were not heard as they were written"
        if reads
        else "that are unlike what a second recognizer heard"
        if verdict.measure == "unlike"
        else "that the recognizer is unsure of"
    )
    return (
        f"Each half of what you said was tried with what the other half has taught. Words {words}: "
        f"{verdict.before:.1f} without, {verdict.after:.1f} with it."
    )


def _told_row(row: Row) -> dict[str, Any]:
    """The words of a recording beside each other, with what has become of each."""
    read = row.without if row.read is None else row.read
    columns = [
        [each.reference, each.before, each.after, str(each.fate)]
        if row.read is not None
        # Who was right is not known.
        else [each.before, each.after, "right" if each.before == each.after else "changed"]
        for each in word_columns(read, row.without, row.adapted)
    ]
    heads = ["without", "with"] if row.read is None else ["read", "without", "with"]
    texts = {"without": " ".join(row.without), "with": " ".join(row.adapted)}
    return {"heads": heads, "columns": columns, "texts": texts}
