"""Word error rates of a set of utterances: by utterance, by speaker, by environment, in total.

WER = (substitutions + deletions + insertions) / reference words, where errors and words are
summed before dividing. The words of each utterance are aligned at minimum edit distance by jiwer. They are compared as
they are: differences of case or spelling that should not count are normalised before (lang/text).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import jiwer
from pydantic import BaseModel, ConfigDict

from lhuc_asr.base.atomic import write_json
from lhuc_asr.base.documents import Count, DocumentKind
from lhuc_asr.base.errors import ScoreError

# Maximum number of ids in a message; more would hide what is wrong.
IDS_IN_MESSAGE = 5


@dataclass(frozen=True, slots=True)
class UtteranceScore:
    """Errors in one utterance.

    Attributes:
        id: Id of the utterance.
        speaker: Name of the speaker.
        words: Number of reference words; 0 where nothing was said, so that every hypothesis word is an insertion.
        substitutions: Number of reference words recognised as another word.
        deletions: Number of reference words that nothing was recognised for.
        insertions: Number of recognised words that were not said.
        environment: Name of the acoustic condition; "" where it is not known.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    id: str
    speaker: str
    words: Count
    substitutions: Count
    deletions: Count
    insertions: Count
    environment: str = ""

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions together."""
        return self.substitutions + self.deletions + self.insertions


@dataclass(frozen=True, slots=True)
class SpeakerScore:
    """Errors in all utterances of one speaker or one environment, with at least one reference word."""

    errors: int
    words: int

    @property
    def wer(self) -> float:
        """Word error rate, a fraction."""
        return self.errors / self.words


@dataclass(frozen=True)
class WerReport:
    """Errors of one pass over one set of utterances.

    Attributes:
        speakers: Score of each speaker, by name.
        utterances: Score of each utterance, which add up to the speakers; empty where the report was read from a file
            that gives speakers only.

    Raises:
        ScoreError: The report has no speakers, a speaker has no reference words, an utterance appears twice, or the
            utterances do not add up to the speakers.
    """

    speakers: dict[str, SpeakerScore]
    utterances: tuple[UtteranceScore, ...] = ()

    def __post_init__(self) -> None:
        if not self.speakers:
            raise ScoreError("no utterances to score: expected at least one reference")
        wordless = [name for name, score in self.speakers.items() if score.words == 0]
        if wordless:
            raise ScoreError(
                f"{_listed(wordless)}: no reference words, so that the word error rate is not defined; "
                "leave the speaker out or transcribe at least one of its utterances"
            )
        if self.utterances:
            self._check_utterances()

    @classmethod
    def of(cls, utterances: Iterable[UtteranceScore]) -> WerReport:
        """The report of utterances, added up by speaker."""
        utterances = tuple(utterances)
        return cls(_add_up(utterances), utterances)

    @property
    def words(self) -> int:
        """Number of reference words."""
        return sum(score.words for score in self.speakers.values())

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions together."""
        return sum(score.errors for score in self.speakers.values())

    @property
    def wer(self) -> float:
        """Word error rate, a fraction: all errors over all words, not a mean over speakers."""
        return self.errors / self.words

    @property
    def substitutions(self) -> int:
        """Number of reference words recognised as another word."""
        return sum(score.substitutions for score in self.scored_utterances())

    @property
    def deletions(self) -> int:
        """Number of reference words that nothing was recognised for."""
        return sum(score.deletions for score in self.scored_utterances())

    @property
    def insertions(self) -> int:
        """Number of recognised words that were not said."""
        return sum(score.insertions for score in self.scored_utterances())

    def environments(self) -> dict[str, SpeakerScore]:
        """The score in each environment with reference words, sorted by name; "" where it is not known."""
        scores = _add_up(self.utterances, lambda score: score.environment)
        return {name: score for name, score in scores.items() if score.words}

    def scored_utterances(self) -> tuple[UtteranceScore, ...]:
        """The scores of the utterances.

        Raises:
            ScoreError: The report gives speakers only.
        """
        if not self.utterances:
            raise ScoreError("the report gives speakers only, expected utterances as well; score the pass again")
        return self.utterances

    def _check_utterances(self) -> None:
        repeated = [id for id, count in Counter(score.id for score in self.utterances).items() if count > 1]
        if repeated:
            raise ScoreError(f"{_listed(repeated)}: scored twice; an id must be unique in a report")
        sums = _add_up(self.utterances)
        for speaker in sorted(sums.keys() | self.speakers.keys()):
            if sums.get(speaker) != self.speakers.get(speaker):
                raise ScoreError(
                    f"speaker {speaker!r}: the utterances give {_fraction(sums.get(speaker))}, "
                    f"the speaker's total {_fraction(self.speakers.get(speaker))}; score the pass again"
                )


def score(
    references: Mapping[str, str],
    hypotheses: Mapping[str, str],
    speakers: Mapping[str, str],
    environments: Mapping[str, str] | None = None,
) -> WerReport:
    """Align every hypothesis with its reference and count the errors.

    Args:
        references: Text of each utterance id, words separated by white space; "" where nothing was said.
        hypotheses: Recognised text of the same ids; "" where nothing was recognised.
        speakers: Speaker of each utterance id.
        environments: Environment of utterance ids; an id that is missing has none.

    Raises:
        ScoreError: An utterance has no hypothesis, no reference or no speaker; a speaker has no words.

    Example:
        >>> report = score({"u1": "one two"}, {"u1": "one too two"}, {"u1": "alice"})
        >>> report.wer, report.insertions, report.speakers["alice"].words
        (0.5, 1, 2)
    """
    _require(references, hypotheses, "no hypothesis", "decode them, or leave them out of the references")
    _require(hypotheses, references, "a hypothesis but no reference", "score the split that was decoded")
    _require(references, speakers, "no speaker", "give every utterance the speaker of its manifest line")
    if not references:
        raise ScoreError("no utterances to score: expected at least one reference")
    output = jiwer.process_words(
        [_single_spaced(text) for text in references.values()],
        [_single_spaced(hypotheses[id]) for id in references],
    )
    return WerReport.of(
        _utterance_score(id, speakers[id], (environments or {}).get(id, ""), len(words), chunks)
        for id, words, chunks in zip(references, output.references, output.alignments, strict=True)
    )


def pool(reports: Iterable[WerReport]) -> WerReport:
    """Join reports of different speakers, such as the folds of a cross-validation, to one.

    Raises:
        ScoreError: A speaker is in two reports, or only some reports have utterances.
    """
    reports = list(reports)
    counts = Counter(speaker for report in reports for speaker in report.speakers)
    repeated = [speaker for speaker, count in counts.items() if count > 1]
    if repeated:
        raise ScoreError(f"{_listed(repeated)}: in more than one report; expected every speaker in one fold")
    speakers = {name: score for report in reports for name, score in report.speakers.items()}
    return WerReport(dict(sorted(speakers.items())), tuple(score for report in reports for score in report.utterances))


def summed(reports: Sequence[WerReport]) -> WerReport:
    """Add up reports over the same utterances, such as those of several seeds, utterance by utterance.

    Raises:
        ScoreError: ``reports`` is empty, they differ in their utterances, or one gives speakers only.
    """
    require_same_speakers({f"report {number}": report for number, report in enumerate(reports, start=1)})
    rows = [{score.id: score for score in report.scored_utterances()} for report in reports]
    if any(row.keys() != rows[0].keys() for row in rows):
        raise ScoreError("the reports are over different utterances; expected the same in all")
    counts = ("words", "substitutions", "deletions", "insertions")
    return WerReport.of(
        replace(score, **{count: sum(getattr(row[id], count) for row in rows) for count in counts})
        for id, score in rows[0].items()
    )


def require_same_speakers(reports: Mapping[str, WerReport]) -> None:
    """Refuse reports that cannot be compared speaker by speaker.

    Args:
        reports: Reports by their names in messages.

    Raises:
        ScoreError: ``reports`` is empty, or they differ in speakers or in a speaker's number of reference words.
    """
    if not reports:
        raise ScoreError("no report given; expected at least one")
    (first_name, first), *others = reports.items()
    for name, report in others:
        for speaker in sorted(first.speakers.keys() | report.speakers.keys()):
            words = report.speakers[speaker].words if speaker in report.speakers else 0
            expected = first.speakers[speaker].words if speaker in first.speakers else 0
            if words != expected:
                raise ScoreError(
                    f"speaker {speaker!r}: {words} reference words in {name}, {expected} in {first_name}; "
                    "expected reports of the same utterances"
                )


def write_wer(path: Path, report: WerReport) -> None:
    """Write ``wer.json``: totals, speakers, environments and utterances; rates are fractions."""
    tree: dict[str, Any] = {"wer": report.wer, "errors": report.errors, "words": report.words}
    if report.utterances:
        tree |= {kind: getattr(report, kind) for kind in ("substitutions", "deletions", "insertions")}
    tree["speakers"] = {name: _rates(score) for name, score in report.speakers.items()}
    environments = report.environments()
    if any(environments):
        tree["environments"] = {name: _rates(score) for name, score in environments.items()}
    if report.utterances:
        tree["utterances"] = [_utterance_row(score) for score in report.utterances]
    write_json(path, tree)


def read_wer(path: Path) -> WerReport:
    """Read ``wer.json``, with utterances or without.

    Only the counts are read; the rates in the file are for other readers and follow from the counts.

    Raises:
        ScoreError: The file or a field is missing or of another kind, or the totals do not add up.
    """
    tree = _FILES.read(path)
    try:
        speakers = {name: SpeakerScore(row.errors, row.words) for name, row in tree.speakers.items()}
        report = WerReport(speakers, tree.utterances)
        total, sums = SpeakerScore(tree.errors, tree.words), SpeakerScore(report.errors, report.words)
        if total != sums:
            raise ScoreError(
                f"the total is {_fraction(total)}, the speakers give {_fraction(sums)}; score the pass again"
            )
    except ScoreError as error:
        raise ScoreError(f"{path}: {error}") from error
    return report


class _Rates(BaseModel):
    """Counts of the file; the rates beside them are not read."""

    errors: Count
    words: Count


class _File(_Rates):
    """Content of ``wer.json``."""

    speakers: dict[str, _Rates]
    utterances: tuple[UtteranceScore, ...] = ()


_FILES = DocumentKind(
    _File,
    "a WER report",
    ScoreError,
    "expected errors and words, in total and for each of the speakers; delete it and run again",
    missing="scoring a pass writes it",
)


def _rates(score: SpeakerScore) -> dict[str, float | int]:
    return {"wer": score.wer, "errors": score.errors, "words": score.words}


def _utterance_row(score: UtteranceScore) -> dict[str, str | int]:
    row: dict[str, str | int] = asdict(score)
    if not score.environment:
        del row["environment"]
    return row


def _utterance_score(
    id: str, speaker: str, environment: str, words: int, chunks: Iterable[jiwer.AlignmentChunk]
) -> UtteranceScore:
    lengths: Counter[str] = Counter()
    for chunk in chunks:
        lengths[chunk.type] += max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
    return UtteranceScore(id, speaker, words, lengths["substitute"], lengths["delete"], lengths["insert"], environment)


def _add_up(
    utterances: Iterable[UtteranceScore], group: Callable[[UtteranceScore], str] = lambda score: score.speaker
) -> dict[str, SpeakerScore]:
    errors: Counter[str] = Counter()
    words: Counter[str] = Counter()
    for score in utterances:
        errors[group(score)] += score.errors
        words[group(score)] += score.words
    return {name: SpeakerScore(errors[name], words[name]) for name in sorted(words)}


def _require(needed: Mapping[str, str], given: Mapping[str, str], lack: str, remedy: str) -> None:
    missing = [id for id in needed if id not in given]
    if missing:
        raise ScoreError(f"{_listed(missing)}: {lack} ({len(missing)} of {len(needed)} utterances); {remedy}")


def _single_spaced(text: str) -> str:
    # jiwer separates words at spaces only; tabs and line ends separate words too.
    return " ".join(text.split())


def _listed(names: list[str]) -> str:
    more = len(names) - IDS_IN_MESSAGE
    return ", ".join(names[:IDS_IN_MESSAGE]) + (f" and {more} more" if more > 0 else "")


def _fraction(score: SpeakerScore | None) -> str:
    return "nothing" if score is None else f"{score.errors} errors in {score.words} words"
