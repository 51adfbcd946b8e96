"""What the report of an experiment says, from the experiment's files.

References are from the manifests, words from the hypotheses, and the judgement is that of the table of passes
(``score/judgement.py``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from lhuc_asr.audio.utterance import Utterance, read_manifest
from lhuc_asr.base.atomic import read_json_lines
from lhuc_asr.base.config import dump_config
from lhuc_asr.base.errors import ConfigError, CorpusError
from lhuc_asr.base.experiment_folder import ExperimentFolder
from lhuc_asr.base.units import seconds_of
from lhuc_asr.decode.hypothesis import Hypothesis, from_row
from lhuc_asr.lang.tags import is_tag
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.earlier_pass import HYPOTHESES_FILE
from lhuc_asr.pipeline.experiment import fold_configs
from lhuc_asr.pipeline.pass_config import reuse_name
from lhuc_asr.pipeline.results import judged, primary_pass, wer_reports
from lhuc_asr.score.judgement import PassScore
from lhuc_asr.score.significance import sign_flip_p
from lhuc_asr.score.wer import SpeakerScore, WerReport
from lhuc_asr.score.word_alignment import Column, Fate, word_columns

# Confusions of a speaker that are named of each kind.
NAMED_CONFUSIONS = 12


@dataclass(frozen=True)
class RecordingReport:
    """What was said in a recording, and heard before and after adaptation.

    Attributes:
        utterance: The recording.
        columns: The words beside each other.
        starts: Where each column's word of the second pass begins, in seconds of the recording; None for columns
            without one.
        confidences: Confidence of that word; None where it is not known.
    """

    utterance: Utterance
    columns: tuple[Column, ...]
    starts: tuple[float | None, ...]
    confidences: tuple[float | None, ...]

    @cached_property
    def fates(self) -> Counter[Fate]:
        """How many words were mended, broken, wrong or right."""
        return Counter(column.fate for column in self.columns)

    @property
    def changed(self) -> bool:
        """Whether a word was mended or broken, or is wrong in another way."""
        return any(column.before != column.after for column in self.columns)

    @property
    def errors_before(self) -> int:
        """Word errors before adaptation."""
        return sum(column.before != column.reference for column in self.columns)

    @property
    def errors_after(self) -> int:
        """Word errors after it."""
        return sum(column.after != column.reference for column in self.columns)


@dataclass(frozen=True)
class SpeakerReport:
    """A speaker's recordings and errors.

    Attributes:
        name: The speaker's name.
        before: Errors before adaptation.
        after: Errors after it.
        others: Errors with the mean of the other speakers' parameters; None without this control.
        recordings: The recordings, those that changed most first.
    """

    name: str
    before: SpeakerScore
    after: SpeakerScore
    others: SpeakerScore | None
    recordings: tuple[RecordingReport, ...]

    @property
    def gained(self) -> int:
        """Word errors that adaptation took away."""
        return self.before.errors - self.after.errors

    @property
    def seconds(self) -> float:
        """Length of the recordings."""
        return sum(recording.utterance.seconds for recording in self.recordings)

    @property
    def chance(self) -> float:
        """Two-sided p of sign flips over the recordings; 1 where no recording has other errors than before."""
        return sign_flip_p(np.array([each.errors_after - each.errors_before for each in self.recordings]))

    def confusions(self, fate: Fate) -> list[tuple[str, int]]:
        """What was heard in place of what was said, for words of a fate, the most frequent first.

        Of a word that is right now, what was heard before.
        """
        counts = Counter(
            confusion(column.reference, column.before if fate is Fate.MENDED else column.after)
            for recording in self.recordings
            for column in recording.columns
            if column.fate is fate
        )
        return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:NAMED_CONFUSIONS]


def confusion(said: str | None, heard: str | None) -> str:
    """A word error in words.

    Example:
        >>> confusion("M", "N"), confusion("M", None), confusion(None, "N")
        ('M heard as N', 'M not heard', 'N too many')
    """
    if said is None:
        return f"{heard} too many"
    return f"{said} not heard" if heard is None else f"{said} heard as {heard}"


@dataclass(frozen=True)
class Report:
    """All that the page shows.

    Attributes:
        title: Name of the experiment.
        split: Name of the test set.
        line: The pass, compared and judged.
        base: Name of the pass that it is compared with.
        lines: All passes over the test set.
        speakers: The speakers, those who gained most first.
        settings: The recipe's settings, as YAML.
        run: Versions, seed and commit, by name.
    """

    title: str
    split: str
    line: PassScore
    base: str
    lines: Sequence[PassScore]
    speakers: Sequence[SpeakerReport]
    settings: str
    run: Mapping[str, Any] = field(default_factory=dict)


def read_report(
    config: ExperimentConfig, split: str | None = None, name: str | None = None, run: Mapping[str, Any] | None = None
) -> Report:
    """Collect a report from the files of a finished experiment.

    Args:
        config: The experiment's recipe, in its folder.
        split: Name of the test set; None for the first.
        name: Name of the pass; None for the primary comparison.
        run: What is recorded of the run.

    Raises:
        ConfigError: The experiment lacks the test set or the pass, or the pass does not adapt.
        ScoreError: A pass was not made yet.
        CorpusError: A manifest is missing or damaged.
        SearchError: The hypotheses are damaged.
    """
    splits = config.test_sets
    split, name = split or splits[0], name or primary_pass(config)
    if split not in splits:
        raise ConfigError(f"--split {split}: no such test set; choose from {', '.join(splits)}")
    reports = wer_reports(config, splits)
    lines = [line for line in judged(config, reports) if line.entry.split == split]
    compared = {line.entry.name: line for line in lines if line.base is not None}
    if name not in compared:
        raise ConfigError(f"--pass {name}: no pass that is compared; choose from {', '.join(compared) or 'none'}")
    line = compared[name]
    of = reports[split]
    return Report(
        title=config.name,
        split=split,
        line=line,
        base=line.entry.base_name,
        lines=lines,
        speakers=_speakers(config, split, name, line.entry.base_name, of),
        settings=dump_config(config),
        run=run or {},
    )


def _speakers(
    config: ExperimentConfig, split: str, name: str, base: str, reports: Mapping[str, WerReport]
) -> list[SpeakerReport]:
    """The speakers of a pass, the largest gain first."""
    before, after, others = reports[base], reports[name], reports.get(reuse_name(name, "others_mean"))
    folder = ExperimentFolder(config.folder)
    heard = [
        {each.utterance: each for each in map(from_row, read_json_lines(folder.decode(split, each) / HYPOTHESES_FILE))}
        for each in (base, name)
    ]
    recordings: dict[str, list[RecordingReport]] = {}
    for utterance in _utterances(config, split):
        if any(utterance.id not in hypotheses for hypotheses in heard):
            raise CorpusError(f"{utterance.id}: not in the hypotheses of {base} and {name}; delete them and run again")
        first, second = (hypotheses[utterance.id] for hypotheses in heard)
        recordings.setdefault(utterance.speaker, []).append(_recording(utterance, first, second))
    speakers = [
        SpeakerReport(
            speaker,
            before.speakers[speaker],
            score,
            None if others is None else others.speakers.get(speaker),
            tuple(sorted(recordings.get(speaker, []), key=_by_change)),
        )
        for speaker, score in after.speakers.items()
    ]
    return sorted(speakers, key=lambda each: (-each.gained / each.before.words, each.name))


def _by_change(recording: RecordingReport) -> tuple[int, int, int, str]:
    changed = abs(recording.errors_before - recording.errors_after)
    moved = recording.fates[Fate.MENDED] + recording.fates[Fate.BROKEN]
    return -changed, -moved, -recording.errors_after, recording.utterance.id


def _utterances(config: ExperimentConfig, split: str) -> Iterator[Utterance]:
    for fold in fold_configs(config):
        yield from read_manifest(ExperimentFolder(fold.folder).manifest(split))


def _recording(utterance: Utterance, first: Hypothesis, second: Hypothesis) -> RecordingReport:
    """The words of a recording beside each other, without tags, which do not count."""
    reference = [word for word in utterance.words if not is_tag(word)]
    before = [word for word in first.words if not is_tag(word)]
    kept = [place for place, word in enumerate(second.words) if not is_tag(word)]
    columns = word_columns(reference, before, [second.words[place] for place in kept])
    places = [None if column.place is None else kept[column.place] for column in columns]
    seconds = utterance.seconds
    return RecordingReport(
        utterance,
        tuple(columns),
        tuple(None if place is None else min(seconds, seconds_of(second.word_frames[place])) for place in places),
        tuple(None if place is None or not second.confidences else second.confidences[place] for place in places),
    )
