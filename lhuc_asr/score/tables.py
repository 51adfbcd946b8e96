"""Word error rates as tables: passes by split, and by environment, on a terminal, speakers in a CSV file."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lhuc_asr.base.atomic import write_text
from lhuc_asr.score.judgement import Against, Entry, PassScore, Role
from lhuc_asr.score.significance import LEVEL, Comparison
from lhuc_asr.score.wer import SpeakerScore, WerReport, require_same_speakers

# The cell of a pass that is not compared, the first one.
BLANK = ""
# Wide enough for a line of the table of passes, so that text in a file is not wrapped.
TEXT_WIDTH = 200
# Width of the short table; shortest and longest width of its column of names.
SHORT_WIDTH, SHORTEST_NAME, LONGEST_NAME = 100, 15, 24
# p below this are not told apart.
SMALLEST_P = 0.0001
# The row of a CSV file that sums up the speakers.
TOTAL = "TOTAL"


def wer_table(passes: Sequence[PassScore], title: str | None = None) -> Table:
    """The table of passes by split, one line per pass, for a terminal; controls stand below the pass that they control.

    Changes are relative, with their 95 % interval over speakers: once against the pass's base, once against the mean of
    the other speakers' parameters. p are two-sided; the caption says what they are, and where the speakers are
    too few for evidence.
    """
    table = Table(title=None if title is None else Text(title), title_justify="left", caption_justify="left")
    table.add_column("split")
    table.add_column("pass")
    for heading in (
        "WER %", "errors/words",
        "change %", "p", "MAPSSWE", "better/worse/equal",
        "over others' mean %", "p",
    ):  # fmt: skip
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("adaptation", no_wrap=True)
    for position, line in enumerate(passes):
        entry = line.entry
        opens_split = position == 0 or passes[position - 1].entry.split != entry.split
        if opens_split and position > 0:
            table.add_section()
        cells = (
            entry.split if opens_split else BLANK,
            f"  {entry.name}" if entry.role is Role.CONTROL else entry.name,
            _rate(entry),
            f"{entry.report.errors}/{entry.report.words}",
            *_change_cells(line.base),
            *_others_cells(line.others),
            _in_words(line),
        )
        # A plain string would be read as markup: a name in square brackets would vanish.
        table.add_row(*map(Text, cells))
    table.caption = Text("\n".join(_notes(passes)))
    return table


def narrow_table(title: str | None = None) -> Table:
    """A table without columns yet, whose lines take as little of the width as can be."""
    return Table(
        title=None if title is None else Text(title), title_justify="left", caption_justify="left",
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False,
    )  # fmt: skip


def short_table(passes: Sequence[PassScore], title: str | None = None) -> Table:
    """The table of passes for a terminal of ``SHORT_WIDTH`` columns, in whole per cent; ``wer_table`` has all figures.

    Controls stand below the pass that they control, without its name.
    """
    table = narrow_table(title)
    table.add_column("pass", overflow="fold", min_width=SHORTEST_NAME, max_width=LONGEST_NAME)
    for heading in ("WER %", "errors", "change %", "p", "over others' %", "p"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    split = None
    for line in passes:
        entry = line.entry
        if entry.split != split:
            split = entry.split
            table.add_row(Text(split, style="bold"), BLANK, f"of {entry.report.words}")
        cells = (
            f"  {_short_name(entry)}",
            f"{100 * entry.report.wer:.2f}",
            str(entry.report.errors),
            *_short_change(line.base),
            *_short_change(line.others),
            _in_words(line).replace(" (primary)", " *"),
        )
        table.add_row(*map(Text, cells))
    notes = _base_notes(passes)
    if any(line.entry.primary for line in passes):
        notes.append("*: the primary comparison; p of the others are adjusted by Holm's method.")
    if seeds := max((len(line.entry.by_seed) for line in passes), default=0):
        notes.append(f"{seeds} seeds: errors and words are summed; the full table has the spread.")
    table.caption = Text("\n".join(notes))
    return table


def _short_name(entry: Entry) -> str:
    control = entry.name.rpartition("__")[2]
    return f"  {control.replace('_', ' ')}" if entry.role is Role.CONTROL else entry.name


def _short_change(against: Against | None) -> tuple[str, str]:
    if against is None:
        return BLANK, BLANK
    return change_text(against.comparison, digits=0), short_p(against.adjusted_p)


def short_p(p: float) -> str:
    """A p with three digits; smaller ones as "<0.001"."""
    return f"{p:.3f}" if p >= 0.001 else "<0.001"


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
    scores = [line.entry.report.environments() for line in passes]
    names = sorted({name for score in scores for name in score if name}, key=lambda name: (name != clean, name))
    if not names:
        return None
    # Without blanks beside the lines, nine environments and their means fit into SHORT_WIDTH.
    table = Table(title=None if title is None else Text(title), title_justify="left", padding=0)
    for heading in ("split", "pass"):
        table.add_column(heading, overflow="fold")
    averaged = clean in names and len(names) > 2
    for heading in (*names, *(["noisy"] if averaged else []), "all"):
        table.add_column(Text(heading.replace("_", "\n")), justify="right", no_wrap=True)
    for position, (line, environments) in enumerate(zip(passes, scores, strict=True)):
        entry = line.entry
        opens_split = position == 0 or passes[position - 1].entry.split != entry.split
        if opens_split and position > 0:
            table.add_section()
        noisy = [score for name, score in environments.items() if name not in ("", clean)]
        rates = [environments[name].wer if name in environments else None for name in names]
        if averaged:
            words = sum(score.words for score in noisy)
            rates.append(sum(score.errors for score in noisy) / words if words else None)
        cells = [BLANK if rate is None else f"{100 * rate:.2f}" for rate in (*rates, entry.report.wer)]
        table.add_row(*map(Text, (entry.split if opens_split else BLANK, entry.name, *cells)))
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


def _rate(entry: Entry) -> str:
    spread = f" ± {100 * statistics.stdev(entry.by_seed):.2f}" if entry.by_seed else ""
    return f"{100 * entry.report.wer:.2f}{spread}"


def _change_cells(against: Against | None) -> tuple[str, str, str, str]:
    if against is None:
        return BLANK, BLANK, BLANK, BLANK
    comparison = against.comparison
    return (
        change_text(comparison),
        p_text(against.adjusted_p),
        p_text(comparison.matched_pairs_p),
        f"{comparison.speakers_better}/{comparison.speakers_worse}/{comparison.speakers_equal}",
    )


def _others_cells(against: Against | None) -> tuple[str, str]:
    return (BLANK, BLANK) if against is None else (change_text(against.comparison), p_text(against.adjusted_p))


def change_text(comparison: Comparison, digits: int = 1) -> str:
    """The relative change of the error rate with its interval, such as "-12.0 [-30.1, +3.0]", in percent."""
    low, high = comparison.interval_relative
    change, low_end, high_end = (_signed_percent(each, digits) for each in (comparison.relative, low, high))
    return f"{change} [{low_end}, {high_end}]"


def _in_words(line: PassScore) -> str:
    if line.verdict is None:
        return "(a bound)" if line.entry.role is Role.BOUND else BLANK
    return f"{line.verdict} (primary)" if line.entry.primary else line.verdict


def _notes(passes: Sequence[PassScore]) -> list[str]:
    """What a reader of the table must know, a line each."""
    compared = [(line.entry, line.base.comparison) for line in passes if line.base is not None]
    if not compared:
        return []
    notes = [
        "p: sign flips over speakers; for the passes with a verdict, but the primary one, adjusted by Holm's method. "
        "MAPSSWE: matched pairs of recordings, not adjusted.",
        "helped, hurt: p below 0.05, and better, or worse, than before and than the other speakers' mean parameters.",
        *_base_notes(passes),
    ]
    notes += [
        f"{line.entry.split}, {line.entry.name}: also against {name} {change_text(comparison)} %, "
        f"p {p_text(comparison.p_value)}, not adjusted."
        for line in passes
        for name, comparison in line.also.items()
    ]
    for entry, comparison in compared:
        if entry.role is Role.RESULT and comparison.least_p >= LEVEL:
            units = "speakers" if comparison.over_speakers else "recordings of the only speaker"
            notes.append(
                f"{entry.split}, {entry.name}: too few {units} have other errors than before; p cannot be below "
                f"{p_text(comparison.least_p)}."
            )
    if seeds := max(len(entry.by_seed) for entry, _ in compared):
        notes.append(f"{seeds} seeds: errors and words are summed; ± is the standard deviation of the WER over seeds.")
    notes += [
        f"{split}: one speaker; p and intervals are over recordings, without a control."
        for split in dict.fromkeys(entry.split for entry, comparison in compared if not comparison.over_speakers)
    ]
    return notes


def _base_notes(passes: Sequence[PassScore]) -> list[str]:
    """What the changes are of, if not all are of the same pass."""
    on: dict[str, list[str]] = {}
    for line in passes:
        if line.base is not None and line.entry.role is not Role.CONTROL:
            names = on.setdefault(line.entry.base_name, [])
            names += [] if line.entry.name in names else [line.entry.name]
    if len(on) < 2:
        return []
    return [f"change: against {base} for {', '.join(names)}." for base, names in on.items()]


def p_text(p: float) -> str:
    """A p with four digits; very small ones as "<0.0001"."""
    return f"{p:.4f}" if p >= SMALLEST_P else f"<{SMALLEST_P}"


def _signed_percent(fraction: float, digits: int) -> str:
    return "∞" if math.isinf(fraction) else f"{100 * fraction:+.{digits}f}"


def _csv_row(speaker: str, scores: Sequence[SpeakerScore]) -> list[str | int]:
    row: list[str | int] = [speaker, scores[0].words]
    for score in scores:
        row += [score.errors, f"{score.wer:.6f}"]
    return row
