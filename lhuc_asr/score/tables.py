"""Word error rates as tables: passes by split, and by environment, on a terminal, speakers in a CSV file."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lhuc_asr.base.atomic import write_text
from lhuc_asr.score.significance import Comparison, compare
from lhuc_asr.score.wer import SpeakerScore, WerReport, require_same_speakers

# The cell of a pass that is not compared, the first one.
BLANK = ""
# Wide enough for a line of the table of passes, so that text in a file is not wrapped.
TEXT_WIDTH = 160
# The row of a CSV file that sums up the speakers.
TOTAL = "TOTAL"


@dataclass(frozen=True, slots=True)
class PassScore:
    """One line of the table: a pass over a split, and its comparison with the split's first pass.

    Attributes:
        split: Name of the set of utterances, as "test".
        name: Name of the pass, as "si" or "lhuc".
        report: Errors of the pass.
        comparison: Comparison with the split's first pass; None for that pass itself.
    """

    split: str
    name: str
    report: WerReport
    comparison: Comparison | None


def compare_passes(
    split: str, reports: Mapping[str, WerReport], generator: np.random.Generator, samples: int = 10_000
) -> list[PassScore]:
    """Compare every pass over a split with the first one.

    Args:
        split: Name of the set of utterances.
        reports: Report of each pass, by name; the others are compared with the first.
        generator: Draws the bootstrap's samples.
        samples: Number of bootstrap samples of each comparison.

    Raises:
        ScoreError: Two passes cannot be compared: see ``significance.compare``.
    """
    names = list(reports)
    return [
        PassScore(
            split,
            name,
            reports[name],
            None if name == names[0] else compare(reports[names[0]], reports[name], generator, samples),
        )
        for name in names
    ]


def wer_table(passes: Sequence[PassScore], title: str | None = None) -> Table:
    """The table of passes by split, one line per pass, for a terminal.

    Changes are relative to the split's first pass, with their 95 % interval; p is two-sided. The intervals of a split
    with one speaker hold for that speaker only, and the table's caption says so.
    """
    table = Table(title=None if title is None else Text(title), title_justify="left", caption_justify="left")
    table.add_column("split")
    table.add_column("pass")
    for heading in ("WER %", "errors/words", "change %", "95 % interval", "p", "better/worse/equal"):
        table.add_column(heading, justify="right", no_wrap=True)
    for position, line in enumerate(passes):
        opens_split = position == 0 or passes[position - 1].split != line.split
        if opens_split and position > 0:
            table.add_section()
        cells = (
            line.split if opens_split else BLANK,
            line.name,
            f"{100 * line.report.wer:.2f}",
            f"{line.report.errors}/{line.report.words}",
            *_comparison_cells(line.comparison),
        )
        # A plain string would be read as markup: a name in square brackets would vanish.
        table.add_row(*map(Text, cells))
    alone = sorted({line.split for line in passes if line.comparison and not line.comparison.speakers_resampled})
    if alone:
        table.caption = Text(f"{', '.join(alone)}: one speaker; only the utterances were resampled")
    return table


def environment_table(passes: Sequence[PassScore], clean: str, title: str | None = None) -> Table | None:
    """Word error rates of passes in each environment, one line per pass, for a terminal.

    The clean environment comes first. The column "noisy" is all the other environments together, errors over words;
    "all" is every utterance.

    Args:
        passes: Scores of the passes, those of a split together.
        clean: Name of the environment without noise.
        title: Title of the table.

    Returns:
        The table; None where no utterance has an environment.
    """
    scores = [line.report.environments() for line in passes]
    names = sorted({name for score in scores for name in score if name}, key=lambda name: (name != clean, name))
    if not names:
        return None
    table = Table(title=None if title is None else Text(title), title_justify="left")
    for heading in ("split", "pass"):
        table.add_column(heading)
    averaged = clean in names and len(names) > 2
    for heading in (*names, *(["noisy"] if averaged else []), "all"):
        table.add_column(Text(heading), justify="right", no_wrap=True)
    for position, (line, environments) in enumerate(zip(passes, scores, strict=True)):
        opens_split = position == 0 or passes[position - 1].split != line.split
        if opens_split and position > 0:
            table.add_section()
        noisy = [score for name, score in environments.items() if name not in ("", clean)]
        rates = [environments[name].wer if name in environments else None for name in names]
        if averaged:
            words = sum(score.words for score in noisy)
            rates.append(sum(score.errors for score in noisy) / words if words else None)
        cells = [BLANK if rate is None else f"{100 * rate:.2f}" for rate in (*rates, line.report.wer)]
        table.add_row(*map(Text, (line.split if opens_split else BLANK, line.name, *cells)))
    return table


def table_text(table: Table, width: int = TEXT_WIDTH) -> str:
    """The table as plain text, without colours, for a file."""
    console = Console(file=io.StringIO(), width=width, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(table)
    return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())


def write_speaker_csv(path: Path, reports: Mapping[str, WerReport]) -> None:
    """Write a CSV file with a row for each speaker and a last one, TOTAL.

    Columns: speaker, words, then ``<pass>_errors`` and ``<pass>_wer`` (a fraction) of every pass.

    Args:
        path: The file, written whole or not at all.
        reports: Report of each pass, by name, all over the same utterances.

    Raises:
        ScoreError: ``reports`` is empty, or the passes differ in speakers or in a speaker's reference words.
    """
    require_same_speakers(reports)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["speaker", "words", *(f"{name}_{kind}" for name in reports for kind in ("errors", "wer"))])
    for speaker in next(iter(reports.values())).speakers:
        writer.writerow(_csv_row(speaker, [report.speakers[speaker] for report in reports.values()]))
    writer.writerow(_csv_row(TOTAL, [SpeakerScore(report.errors, report.words) for report in reports.values()]))
    write_text(path, text.getvalue())


def _comparison_cells(comparison: Comparison | None) -> tuple[str, str, str, str]:
    if comparison is None:
        return BLANK, BLANK, BLANK, BLANK
    low, high = comparison.interval_relative
    return (
        _signed_percent(comparison.relative),
        f"[{_signed_percent(low)}, {_signed_percent(high)}]",
        f"{comparison.p_value:.4f}",
        f"{comparison.speakers_better}/{comparison.speakers_worse}/{comparison.speakers_equal}",
    )


def _signed_percent(fraction: float) -> str:
    return "∞" if math.isinf(fraction) else f"{100 * fraction:+.1f}"


def _csv_row(speaker: str, scores: Sequence[SpeakerScore]) -> list[str | int]:
    row: list[str | int] = [speaker, scores[0].words]
    for score in scores:
        row += [score.errors, f"{score.wer:.6f}"]
    return row
