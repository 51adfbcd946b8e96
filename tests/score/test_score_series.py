"""Tables and figures of a series of passes."""

import csv
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import ErrorbarContainer

from lhuc_asr.base.atomic import read_json_lines
from lhuc_asr.score.series import Point, series_figure, write_series
from lhuc_asr.score.significance import compare
from lhuc_asr.score.wer import UtteranceScore, WerReport


def report(errors: dict[str, int]) -> WerReport:
    """Ten utterances of ten words a speaker, the first so many of them with an error each."""
    return WerReport.of(
        UtteranceScore(f"{speaker}-{number}", speaker, 10, int(number < count), 0, 0)
        for speaker, count in errors.items()
        for number in range(10)
    )


BEFORE = dict(zip("abcdefgh", (8, 4, 6, 5, 7, 6, 4, 8), strict=True))


def point(curve: str, label: str, changes: list[int], split: str = "test", others: WerReport | None = None) -> Point:
    before, after = report(BEFORE), report({n: e + c for (n, e), c in zip(BEFORE.items(), changes, strict=True)})
    generator = np.random.default_rng(1)
    control = None if others is None else compare(others, after, generator)
    comparison = compare(before, after, generator)
    return Point.of(split, f"{curve}_{label}", curve, label, after, "si", comparison, control, seed=7)


POINTS = [
    point("lhuc", "5 s", [0, 1, 0, -1, -2, -1, 1, 0]),
    point("lhuc", "10 s", [-2, 0, -1, -1, -1, -2, 1, -1]),
    point("moments", "10 s", [-4, -2, -3, -2, -3, -3, -3, -4], others=report(dict.fromkeys(BEFORE, 6))),
]


def test_a_point_says_what_the_reports_say() -> None:
    made = POINTS[2]
    assert (made.errors, made.words, made.speakers, made.seed) == (24, 800, 8, 7)
    assert (made.wer, made.relative, made.p) == (pytest.approx(0.03), pytest.approx(-0.5), 2 / 2**8)
    assert (made.better, made.worse, made.equal) == (8, 0, 0)
    assert made.low <= made.relative <= made.high
    # The control has six errors of each speaker.
    assert made.over_others == pytest.approx(24 / 48 - 1)
    assert made.over_others_low <= made.over_others <= made.over_others_high < 0
    assert POINTS[0].over_others is POINTS[0].over_others_p is None


def test_tables_hold_every_point_and_each_split_has_a_figure(tmp_path: Path) -> None:
    points = [*POINTS, point("lhuc", "5 s", [-count for count in BEFORE.values()], split="control")]
    write_series(tmp_path, "Seconds", "adapted on", "ten help", points)
    rows = list(read_json_lines(tmp_path / "table.jsonl"))
    assert [Point(**row) for row in rows] == points
    with (tmp_path / "table.csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [(row["name"], float(row["relative"])) for row in table] == [(p.name, p.relative) for p in points]
    assert {path.name for path in tmp_path.glob("*.png")} == {"test.png", "control.png"}


def test_the_figure_shows_each_point_with_its_interval_and_what_the_paper_found() -> None:
    figure = series_figure(POINTS, "Seconds of data", "adapted on", "ten seconds help")
    (axes,) = figure.axes
    drawn = {bars.get_label(): bars for bars in axes.containers if isinstance(bars, ErrorbarContainer)}
    assert set(drawn) == {"lhuc", "moments"}
    for curve, bars in drawn.items():
        own = [p for p in POINTS if p.curve == curve]
        line, _, (vertical,) = bars.lines
        # In points, of the error rate without adaptation: 48 errors in 800 words are 6 %.
        assert line.get_ydata() == pytest.approx([100 * p.wer - 6 for p in own])
        for segment, p in zip(vertical.get_segments(), own, strict=True):
            assert segment[:, 1] == pytest.approx([6 * p.low, 6 * p.high])
    # At the label that both curves have they stand beside each other.
    assert [text.get_text() for text in axes.get_xticklabels()] == ["5 s", "10 s"]
    lhuc, moments = (bars.lines[0].get_xdata()[-1] for bars in drawn.values())
    assert round(lhuc) == round(moments) == 1
    assert lhuc < moments
    assert "8 speakers, 800 words, one seed" in axes.get_title("left")
    assert axes.get_ylabel().replace("\n", " ") == "change of the WER against no adaptation, points (lower is better)"
    assert figure.get_supxlabel() == "Bars: 95 % intervals over 8 speakers.\nThe paper: ten seconds help."


def test_a_long_sentence_of_the_paper_stays_inside_the_figure() -> None:
    figure = series_figure(POINTS, "Seconds of data", "adapted on", " ".join(["speakers are worse"] * 9))
    FigureCanvasAgg(figure).draw()
    (label,) = (text for text in figure.texts if "The paper: " in text.get_text())
    assert label.get_window_extent().x1 < figure.bbox.x1
    sentence = ["The", "paper:", *["speakers", "are", "worse"] * 8, "speakers", "are", "worse."]
    assert label.get_text().split()[-len(sentence) :] == sentence


def test_points_of_kinds_are_not_joined() -> None:
    for joined in (True, False):
        (axes,) = series_figure(POINTS, "Targets", "targets", "", joined).axes
        widths = {bars.lines[0].get_linewidth() for bars in axes.containers if isinstance(bars, ErrorbarContainer)}
        assert (widths != {0.0}) == joined


def test_an_interval_without_an_end_is_null_in_the_tables_and_leaves_the_figure(tmp_path: Path) -> None:
    """Two speakers are too few for an interval."""
    before, after = report({"alice": 1, "bob": 0}), report({"alice": 0, "bob": 1})
    comparison = compare(before, after, np.random.default_rng(1))
    assert comparison.interval_relative[1] == np.inf
    points = [POINTS[1], Point.of("test", "lhuc_1_s", "lhuc", "1 s", after, "si", comparison, None, 7)]
    write_series(tmp_path, "Seconds", "adapted on", "ten help", points)
    known, endless = read_json_lines(tmp_path / "table.jsonl")
    assert (endless["relative"], endless["high"]) == (0.0, None)
    assert Point(**known) == points[0]
    (axes,) = series_figure(points, "Seconds", "adapted on", "ten help").axes
    (bars,) = (container for container in axes.containers if isinstance(container, ErrorbarContainer))
    first, second = bars.lines[2][0].get_segments()
    assert first[:, 1] == pytest.approx([6 * points[0].low, 6 * points[0].high])
    assert np.isfinite(second).all()
    assert second[1, 1] > axes.get_ylim()[1] > 6 * points[0].high
    # Without adaptation the two speakers have one error in 200 words.
    assert axes.get_ylim()[0] < min(6 * points[0].low, 0.5 * points[1].low)


def test_where_no_adaptation_has_no_error_the_change_is_the_error_rate() -> None:
    before, after = report({"alice": 0, "bob": 0}), report({"alice": 1, "bob": 1})
    comparison = compare(before, after, np.random.default_rng(1))
    made = Point.of("test", "lhuc", "lhuc", "1 s", after, "si", comparison, None, 7)
    assert made.change == (1.0, 0.0, np.inf)


def test_with_one_speaker_the_bars_are_over_recordings() -> None:
    before, after = report({"alice": 5}), report({"alice": 2})
    comparison = compare(before, after, np.random.default_rng(1))
    made = Point.of("test", "lhuc", "lhuc", "1 s", after, "si", comparison, None, 7)
    footnote = series_figure([made], "Seconds", "adapted on", "ten help").get_supxlabel()
    assert footnote.startswith("Bars: 95 % intervals over the recordings of one speaker.")


def test_a_series_without_a_point_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the series has no points"):
        write_series(tmp_path, "Seconds", "adapted on", "", [])
    assert list(tmp_path.iterdir()) == []
