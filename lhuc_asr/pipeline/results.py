"""The results of the passes over a split: tables, significance and figures, pooled over folds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lhuc_asr.base.atomic import read_json_lines, write_json, write_json_lines, write_text
from lhuc_asr.base.experiment_folder import ExperimentFolder
from lhuc_asr.corpus.noise import CLEAN
from lhuc_asr.pipeline.earlier_pass import HYPOTHESES_FILE, WER_FILE
from lhuc_asr.score.figures import save_figure, speaker_wer_figure
from lhuc_asr.score.significance import Comparison
from lhuc_asr.score.tables import PassScore, compare_passes, environment_table, table_text, wer_table, write_speaker_csv
from lhuc_asr.score.wer import pool, read_wer, write_wer

COMPARISON_FILE, TABLE_FILE, SPEAKERS_FILE = "comparison.json", "table.txt", "speakers.csv"
ENVIRONMENTS_FILE = "environments.txt"


def compare_split(folder: ExperimentFolder, split: str, names: Sequence[str], seed: int) -> list[PassScore]:
    """Write tables, CSV and figures of a split's passes, from their wer.json files; each is compared with the first.

    The figure ``<pass>.png`` shows each speaker's word error rate in the first pass and in that pass.
    """
    place = folder.decode(split)
    reports = {name: read_wer(place / name / WER_FILE) for name in names}
    passes = compare_passes(split, reports, np.random.default_rng(seed))
    write_json(place / COMPARISON_FILE, {p.name: _comparison_row(p.comparison) for p in passes if p.comparison})
    write_text(place / TABLE_FILE, table_text(wer_table(passes)))
    by_environment = environment_table(passes, CLEAN)
    if by_environment is not None:
        write_text(place / ENVIRONMENTS_FILE, table_text(by_environment))
    write_speaker_csv(place / SPEAKERS_FILE, reports)
    for name in names[1:]:
        figure = speaker_wer_figure(place / names[0] / WER_FILE, place / name / WER_FILE, names[0], name)
        save_figure(figure, place / f"{name}.png")
    return passes


def pool_folds(folder: ExperimentFolder, folds: Sequence[ExperimentFolder], split: str, names: Sequence[str]) -> None:
    """Write one report per pass, over the test speakers of all folds."""
    for name in names:
        folders = [fold.decode(split, name) for fold in folds]
        write_wer(folder.decode(split, name) / WER_FILE, pool([read_wer(each / WER_FILE) for each in folders]))
        rows = (row for each in folders for row in read_json_lines(each / HYPOTHESES_FILE))
        write_json_lines(folder.decode(split, name) / HYPOTHESES_FILE, rows)


def _comparison_row(comparison: Comparison) -> dict[str, object]:
    return {
        "before": comparison.before,
        "after": comparison.after,
        "relative": comparison.relative if np.isfinite(comparison.relative) else None,
        "interval_relative": [bound if np.isfinite(bound) else None for bound in comparison.interval_relative],
        "p_value": comparison.p_value,
        "speakers_better": comparison.speakers_better,
        "speakers_worse": comparison.speakers_worse,
        "speakers_equal": comparison.speakers_equal,
    }
