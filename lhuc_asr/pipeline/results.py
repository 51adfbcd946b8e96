"""The results of a recipe's passes over its test sets: tables, significance and figures, pooled over folds."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lhuc_asr.base.atomic import read_json_lines, write_json, write_json_lines, write_text
from lhuc_asr.base.errors import MissingExtraError
from lhuc_asr.base.experiment_folder import ExperimentFolder
from lhuc_asr.corpus.noise import CLEAN
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.earlier_pass import HYPOTHESES_FILE, WER_FILE
from lhuc_asr.pipeline.experiment import fold_configs, seed_configs
from lhuc_asr.pipeline.pass_config import SI, first_pass, reuse_name
from lhuc_asr.pipeline.plan import networks_of, others_in, passes_of, sequence_networks
from lhuc_asr.pipeline.resolved_pass import Adaptation, Pass, Reuse
from lhuc_asr.score.formats import FORMATS
from lhuc_asr.score.judgement import Against, Entry, PassScore, Role, judge
from lhuc_asr.score.significance import Comparison
from lhuc_asr.score.tables import environment_table, table_text, wer_table, write_speaker_csv
from lhuc_asr.score.wer import WerReport, pool, read_wer, summed, write_wer

logger = logging.getLogger(__name__)

COMPARISON_FILE, TABLE_FILE, SPEAKERS_FILE = "comparison.json", "table.txt", "speakers.csv"
ENVIRONMENTS_FILE = "environments.txt"


def compare_splits(config: ExperimentConfig, splits: Sequence[str], formats: Sequence[str] = ()) -> list[PassScore]:
    """Judge all passes over all test sets, and write tables, CSV and figures of each set, from the wer.json files.

    The figure ``<pass>.png`` shows each speaker's word error rate in the first pass and in that pass, and
    ``am/training.png`` of each seed and fold its networks' cross-entropy by epoch. Without the extra "figures" there
    are none, and the log says so.

    Args:
        config: The recipe.
        splits: Names of the test sets.
        formats: Formats of the figures beside PNG, from ``score.formats.FORMATS``.
    """
    folder, reports = ExperimentFolder(config.folder), wer_reports(config, splits)
    scores = judged(config, reports)
    for split, theirs in reports.items():
        _write(folder, split, theirs, [line for line in scores if line.entry.split == split])
    _draw(config, scores, formats)
    return scores


def wer_reports(config: ExperimentConfig, splits: Sequence[str]) -> dict[str, dict[str, WerReport]]:
    """The errors of all passes over some test sets, by the set's and the pass's name, from the wer.json files.

    Raises:
        ScoreError: A pass was not made yet, or its file is damaged.
    """
    folder, passes = ExperimentFolder(config.folder), passes_of(config)
    return {
        split: {
            plan.name: read_wer(folder.decode(split, plan.name) / WER_FILE)
            for plan in made_passes(config, split, passes)
        }
        for split in splits
    }


def judged(config: ExperimentConfig, reports: Mapping[str, Mapping[str, WerReport]]) -> list[PassScore]:
    """All passes over all test sets, compared and judged together.

    Args:
        config: The recipe.
        reports: Errors of each pass by the test set's and the pass's name, the first set first.
    """
    passes, primary = passes_of(config), primary_pass(config)
    first = next(iter(reports), None)
    entries = [
        _entry(config, split, passes[name], theirs, name == primary and split == first)
        for split, theirs in reports.items()
        for name in theirs
    ]
    return judge(entries, config.seed)


def pool_folds(config: ExperimentConfig, split: str) -> None:
    """Write one report per pass, over the test speakers of all folds."""
    folder, folds = ExperimentFolder(config.folder), fold_configs(config)
    for plan in made_passes(config, split, passes_of(config)):
        folders = [ExperimentFolder(fold.folder).decode(split, plan.name) for fold in folds]
        write_wer(folder.decode(split, plan.name) / WER_FILE, pool([read_wer(each / WER_FILE) for each in folders]))
        rows = (row for each in folders for row in read_json_lines(each / HYPOTHESES_FILE))
        write_json_lines(folder.decode(split, plan.name) / HYPOTHESES_FILE, rows)


def sum_seeds(config: ExperimentConfig, split: str) -> None:
    """Write one report per pass, with each utterance's errors summed over the seeds."""
    folder = ExperimentFolder(config.folder)
    for plan in made_passes(config, split, passes_of(config)):
        write_wer(folder.decode(split, plan.name) / WER_FILE, summed(_by_seed(config, split, plan.name)))


def made_passes(config: ExperimentConfig, split: str, passes: Mapping[str, Pass]) -> list[Pass]:
    """The passes that every seed and fold makes over a split; a control needs other speakers."""
    counts = []
    for fold in (fold for part in seed_configs(config) for fold in fold_configs(part)):
        utterances = read_wer(ExperimentFolder(fold.folder).decode(split, SI) / WER_FILE).scored_utterances()
        counts.append(others_in((each.speaker, each.environment) for each in utterances))
    return [plan for plan in passes.values() if all(plan.possible(*count) for count in counts)]


def primary_pass(config: ExperimentConfig) -> str | None:
    """Name of the pass of the primary comparison; None if all passes are bounds."""
    return config.primary or next(filter(config.is_result, config.passes), None)


def _entry(config: ExperimentConfig, split: str, plan: Pass, reports: Mapping[str, WerReport], primary: bool) -> Entry:
    base, others = _base(plan), reports.get(_others_mean(plan))
    by_seed = () if config.seeds is None else tuple(each.wer for each in _by_seed(config, split, plan.name))
    role, also = _role(config, plan), {name: reports[name] for name in _also(plan) if name in reports}
    return Entry(split, plan.name, reports[plan.name], role, reports.get(base), others, primary, by_seed, base, also)


def _base(plan: Pass) -> str:
    """Name of the pass that one is compared with; "" for the unadapted network itself.

    An output of a pass that adapts is compared with the same output of what the pass is compared with.
    """
    if plan.output is not None:
        without = _base(replace(plan, name=plan.output.of, output=None))
        return plan.output.of if plan.adaptation is None else reuse_name(without, plan.output.name)
    match plan.adaptation:
        case Adaptation(on=on) if on is not None:
            return on.name
        case Reuse(source=Pass(adaptation=Adaptation(on=Pass() as below)), whose="others_mean_of_both"):
            return _base(below)  # it has given up the transform of the pass below
        case Reuse(source=source):
            return _base(source)
    return "" if plan.name == SI else SI


def _others_mean(plan: Pass) -> str:
    """Name of the control of a pass, with the pass's output."""
    if plan.output is None:
        return reuse_name(plan.name, "others_mean")
    return reuse_name(reuse_name(plan.output.of, "others_mean"), plan.output.name)


def _also(plan: Pass) -> tuple[str, ...]:
    """Names of what a pass is also compared with.

    For an output of a pass that adapts this is the pass itself. For transforms and amplitudes together it is the base
    of the pass below and the control of both. Other passes that adapt another network than ``si``, and have ``si`` for
    a base, are compared with that network's first pass too.
    """
    if plan.output is not None:
        return () if plan.adaptation is None else (plan.output.of,)
    match plan.adaptation:
        case Adaptation(on=Pass() as below):
            return _base(below), reuse_name(plan.name, "others_mean_of_both")
        case Adaptation() if plan.network != SI and plan.place is None:
            return (first_pass(plan.network),)
    return ()


def _by_seed(config: ExperimentConfig, split: str, name: str) -> list[WerReport]:
    folders = [ExperimentFolder(part.folder) for part in seed_configs(config)]
    return [read_wer(folder.decode(split, name) / WER_FILE) for folder in folders]


def _role(config: ExperimentConfig, plan: Pass) -> Role:
    match plan.adaptation:
        case _ if plan.is_control:
            return Role.CONTROL
        case None:
            return Role.FIRST
        case Reuse(source=source):
            return _role(config, source)
    return Role.RESULT if config.is_result(plan.name) else Role.BOUND


def _write(folder: ExperimentFolder, split: str, reports: Mapping[str, WerReport], passes: Sequence[PassScore]) -> None:
    place = folder.decode(split)
    write_json(place / COMPARISON_FILE, {line.entry.name: _row(line) for line in passes if line.base})
    write_text(place / TABLE_FILE, table_text(wer_table(passes)))
    by_environment = environment_table(passes, CLEAN)
    if by_environment is not None:
        write_text(place / ENVIRONMENTS_FILE, table_text(by_environment))
    write_speaker_csv(place / SPEAKERS_FILE, reports)


def _draw(config: ExperimentConfig, scores: Sequence[PassScore], formats: Sequence[str]) -> None:
    """Draw the figures of all test sets and networks, also in the formats that lie there: none stays of earlier ones.

    Without matplotlib there are none, and those of earlier results go.
    """
    folder = ExperimentFolder(config.folder)
    drawn = [(folder.decode(line.entry.split), line.entry, line.base) for line in scores]
    trained = [] if config.seeds else [ExperimentFolder(fold.folder) for fold in fold_configs(config)]
    try:
        from lhuc_asr.score.figures import save_figure, speaker_wer_figure
        from lhuc_asr.score.training_figure import training_figure
    except MissingExtraError as error:
        logger.warning("no figures: %s", error)
        figures = [place / f"{entry.name}.png" for place, entry, _ in drawn]
        for path in (*figures, *(each.training_figure for each in trained)):
            for format in FORMATS:
                path.with_suffix(f".{format}").unlink(missing_ok=True)
        return

    for place, entry, against in drawn:
        if against is not None:
            name, base = entry.name, entry.base_name
            reports = place / base / WER_FILE, place / name / WER_FILE
            figure = speaker_wer_figure(*reports, against.comparison, base, name)
            save_figure(figure, place / f"{name}.png", [*formats, *_drawn_formats(place / f"{name}.png")])
    networks = networks_of(config)
    by_frames = [name for name in networks if name not in sequence_networks(config, networks)]
    curves_of = [*(f"first{number}" for number in range(1, config.realignments + 1)), *by_frames]
    for each in trained:
        curves = training_figure(each.metrics.path, curves_of)
        if curves is not None:
            save_figure(curves, each.training_figure, [*formats, *_drawn_formats(each.training_figure)])


def _drawn_formats(path: Path) -> list[str]:
    """The formats in which a figure lies there."""
    return [format for format in FORMATS if path.with_suffix(f".{format}").exists()]


def _row(line: PassScore) -> dict[str, object]:
    entry = line.entry
    return {
        "role": entry.role,
        "primary": entry.primary,
        "errors": entry.report.errors,
        "words": entry.report.words,
        "wer_by_seed": list(entry.by_seed),
        "base": entry.base_name,
        "against_base": _against_row(line.base),
        "against_others_mean": _against_row(line.others),
        "also_against": {name: _comparison_row(comparison) for name, comparison in line.also.items()},
        "verdict": line.verdict,
    }


def _against_row(against: Against | None) -> dict[str, object] | None:
    if against is None:
        return None
    return {**_comparison_row(against.comparison), "adjusted_p": against.adjusted_p}


def _comparison_row(comparison: Comparison) -> dict[str, object]:
    return {
        "before": comparison.before,
        "after": comparison.after,
        # JSON has no infinity.
        "relative": comparison.relative if math.isfinite(comparison.relative) else None,
        "interval_relative": [bound if math.isfinite(bound) else None for bound in comparison.interval_relative],
        "p_value": comparison.p_value,
        "least_p": comparison.least_p,
        "matched_pairs_p": comparison.matched_pairs_p,
        "over": "speakers" if comparison.over_speakers else "recordings",
        "speakers_better": comparison.speakers_better,
        "speakers_worse": comparison.speakers_worse,
        "speakers_equal": comparison.speakers_equal,
    }
