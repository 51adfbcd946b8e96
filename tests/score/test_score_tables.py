import csv
import re

import pytest

from lhuc_asr.base.errors import ScoreError
from lhuc_asr.score.judgement import Entry, PassScore, Role, judge
from lhuc_asr.score.tables import SHORT_WIDTH, environment_table, short_table, table_text, wer_table, write_speaker_csv
from lhuc_asr.score.wer import SpeakerScore, UtteranceScore, WerReport


def report(errors: dict[str, int]) -> WerReport:
    """Two utterances of ten words a speaker, each with so many errors."""
    return WerReport.of(
        UtteranceScore(f"{speaker}-{number}", speaker, 10, count, 0, 0)
        for speaker, count in errors.items()
        for number in range(2)
    )


NAMES = ("alice", "bob", "carol", "dave", "eve", "frank")
BEFORE, AFTER = (report(dict.fromkeys(NAMES, errors)) for errors in (4, 2))


def lines(split: str, reports: dict[str, WerReport]) -> list[PassScore]:
    """Passes compared with the first; one named ``x__others_mean`` is the control of ``x``."""
    (first, before), *others = reports.items()
    entries = [Entry(split, first, before, Role.FIRST)]
    for name, after in others:
        role = Role.CONTROL if "__" in name else Role.RESULT
        entries.append(Entry(split, name, after, role, before, reports.get(f"{name}__others_mean")))
    return judge(entries, 1)


def cells(text: str, name: str) -> list[str]:
    """Cells of the line of pass ``name``, without its split."""
    (line,) = [line for line in text.splitlines() if re.search(rf"[ │]{re.escape(name)}[ │]", line)]
    return [cell.strip() for cell in line.strip("│").split("│")][1:]


def test_a_line_says_how_a_pass_compares_with_the_first_and_with_its_control() -> None:
    control = report(dict.fromkeys(NAMES, 3))
    text = table_text(wer_table(lines("test", {"si": BEFORE, "lhuc": AFTER, "lhuc__others_mean": control}), "AN4"))
    assert text.startswith("AN4\n")
    assert cells(text, "si") == ["si", "40.00", "48/120", *[""] * 7]
    half, third = "-50.0 [-50.0, -50.0]", "-33.3 [-33.3, -33.3]"
    # Six speakers, all better: p is 2 / 2^6.
    assert cells(text, "lhuc") == [
        "lhuc", "20.00", "24/120", half, "0.0312", "<0.0001", "6/0/0", third, "0.0312", "helped",
    ]  # fmt: skip
    assert cells(text, "lhuc__others_mean")[-3:] == ["", "", ""]


def test_the_short_table_fits_a_terminal_and_loses_no_figure() -> None:
    names = ["lhuc", "a_name_that_is_longer_than_its_column"]
    control = report(dict.fromkeys(NAMES, 3))
    reports = {"si": BEFORE, "lhuc": AFTER, "lhuc__others_mean": control, names[1]: report(dict.fromkeys(NAMES, 40))}
    entries = [
        Entry(
            split, name, errors, Role.CONTROL if "__" in name else Role.RESULT, BEFORE, control, name == "lhuc", seeds
        )
        for split, seeds in (("test", (0.1, 0.12)), ("another_set", ()))
        for name, errors in reports.items()
    ]
    lines_shown = table_text(short_table(judge(entries, 1), "exp/x: word error rates"), SHORT_WIDTH).splitlines()
    assert max(map(len, lines_shown)) <= SHORT_WIDTH
    assert "…" not in "".join(lines_shown)
    first = next(line for line in lines_shown if line.split()[:1] == ["lhuc"])
    assert " ".join(first.split()) == "lhuc 20.00 24 -50 [-50, -50] 0.031 -33 [-33, -33] 0.031 helped *"
    assert next(line for line in lines_shown if "mean" in line).split()[:2] == ["others", "mean"]
    assert [line.split()[0] for line in lines_shown if line.endswith(" of 120")] == ["test", "another_set"]


def test_a_bound_and_the_primary_comparison_are_called_so() -> None:
    entries = [
        Entry("test", "lhuc", AFTER, Role.RESULT, BEFORE, BEFORE, primary=True),
        Entry("test", "oracle", AFTER, Role.BOUND, BEFORE, BEFORE),
    ]
    text = table_text(wer_table(judge(entries, 1)))
    assert cells(text, "lhuc")[-1] == "helped (primary)"
    assert cells(text, "oracle")[-1] == "(a bound)"


def test_a_split_is_named_once() -> None:
    passes = [line for split in ("first", "second") for line in lines(split, {"si": BEFORE, "lhuc": AFTER})]
    text = table_text(wer_table(passes))
    assert text.count("first") == text.count("second") == 1
    assert text.count("lhuc") == 2


def test_few_speakers_are_pointed_out() -> None:
    alone = lines("home", {"si": report({"a": 4}), "lhuc": report({"a": 2})})
    assert "home: one speaker; p and intervals are over recordings" in table_text(wer_table(alone))
    four = {name: report(dict.fromkeys("abcd", errors)) for name, errors in (("si", 4), ("lhuc", 2))}
    assert "test, lhuc: too few speakers have other errors than before; p cannot be below 0.1250" in table_text(
        wer_table(lines("test", four))
    )
    many = table_text(wer_table(lines("test", {"si": BEFORE, "lhuc": AFTER})))
    assert "one speaker" not in many
    assert "cannot be below" not in many


def test_errors_out_of_nothing_are_shown_as_infinite() -> None:
    nothing, some = (report(dict.fromkeys("ab", errors)) for errors in (0, 1))
    assert cells(table_text(wer_table(lines("test", {"si": nothing, "x": some}))), "x")[3] == "∞ [-100.0, ∞]"


def test_names_in_brackets_are_not_markup() -> None:
    passes = lines("test", {"[bold]": BEFORE})
    assert "[bold]" in table_text(wer_table(passes, "[red]"))
    assert table_text(wer_table(passes, "[red]")).startswith("[red]")


def test_text_has_no_colours_and_no_trailing_spaces() -> None:
    text = table_text(wer_table(lines("test", {"si": BEFORE}), "title"))
    assert "\x1b" not in text
    assert all(line == line.rstrip() for line in text.splitlines())


def test_csv_has_a_row_for_each_speaker_and_the_total(tmp_path) -> None:
    path = tmp_path / "speakers.csv"
    write_speaker_csv(path, {"si": report({"alice": 4, "bob": 4}), "lhuc": report({"alice": 1, "bob": 4})})
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["speaker"] for row in rows] == ["alice", "bob", "TOTAL"]
    assert [int(row["words"]) for row in rows] == [20, 20, 40]
    assert [int(row["si_errors"]) for row in rows] == [8, 8, 16]
    assert [float(row["lhuc_wer"]) for row in rows] == [0.1, 0.4, 0.25]


def test_csv_quotes_what_needs_quotes(tmp_path) -> None:
    path = tmp_path / "speakers.csv"
    write_speaker_csv(path, {"si": WerReport({'O"Hara, Scarlett': SpeakerScore(1, 2)})})
    with path.open(newline="") as file:
        assert next(csv.DictReader(file))["speaker"] == 'O"Hara, Scarlett'


def test_csv_refuses_passes_over_other_utterances(tmp_path) -> None:
    with pytest.raises(ScoreError, match="'carol': 20 reference words in lhuc, 0 in si"):
        write_speaker_csv(
            tmp_path / "x.csv",
            {"si": report({"alice": 4, "bob": 4}), "lhuc": report({"alice": 1, "bob": 1, "carol": 1})},
        )
    assert not (tmp_path / "x.csv").exists()


def in_environments(errors: dict[str, int]) -> WerReport:
    """One utterance of a speaker in each environment, ten words each, in "car" twenty."""
    return WerReport.of(
        UtteranceScore(f"u.{name}", "alice", 20 if name == "car" else 10, count, 0, 0, name)
        for name, count in errors.items()
    )


def test_error_rates_by_environment_the_clean_one_first_and_the_noisy_ones_together() -> None:
    passes = lines(
        "test",
        {
            "si": in_environments({"babble": 5, "car": 4, "clean": 1}),
            "lhuc": in_environments({"babble": 2, "car": 4, "clean": 0}),
        },
    )
    table = environment_table(passes, "clean", "by environment")
    assert table is not None
    assert [column.header.plain for column in table.columns[2:]] == ["clean", "babble", "car", "noisy", "all"]
    text = table_text(table)
    assert cells(text, "si") == ["si", "10.00", "50.00", "20.00", "30.00", "25.00"]
    assert cells(text, "lhuc") == ["lhuc", "0.00", "20.00", "20.00", "20.00", "15.00"]


def test_the_environments_of_an4_noisy_fit_100_columns_and_no_rate_is_cut() -> None:
    noises = ["rain", "sea_waves", "clock_tick", "helicopter", "chainsaw", "fire_crackling", "clean"]
    named = {name: 10 - number for number, name in enumerate(noises)}
    table = environment_table(
        lines("test", {"si": in_environments(named), "a_pass_of_a_long_name": in_environments(named)}), "clean"
    )
    assert table is not None
    shown = table_text(table, SHORT_WIDTH)
    assert max(map(len, shown.splitlines())) <= SHORT_WIDTH
    assert "…" not in shown
    assert all(heading in shown for heading in ("crackling", "helicopter", "noisy", "all"))


def test_splits_with_other_environments_and_with_none() -> None:
    first = lines("first", {"si": in_environments({"clean": 1, "car": 4})})
    second = lines("second", {"si": in_environments({"": 1, "street": 3})})
    third = lines("third", {"si": BEFORE})
    assert environment_table(third, "clean") is None
    table = environment_table([*first, *second, *third], "clean")
    assert table is not None
    shown = [line for line in table_text(table).splitlines() if "│si│" in line.replace(" ", "")]
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in shown]
    assert rows == [
        ["first", "si", "10.00", "20.00", "", "20.00", "16.67"],
        ["second", "si", "", "", "30.00", "30.00", "20.00"],
        ["third", "si", "", "", "", "", "40.00"],
    ]
