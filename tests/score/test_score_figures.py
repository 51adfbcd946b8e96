import itertools
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from lhuc_asr.base.errors import ScoreError
from lhuc_asr.score.figures import BETTER, EQUAL, WORSE, save_figure, speaker_wer_figure, svg_of
from lhuc_asr.score.significance import Comparison, compare
from lhuc_asr.score.speaker_figures import amplitude_map, frames_figure, gains_figure
from lhuc_asr.score.tables import change_text
from lhuc_asr.score.wer import UtteranceScore, WerReport, read_wer, write_wer


def report(errors: dict[str, int]) -> WerReport:
    """An utterance of a hundred words a speaker, so that errors are percent."""
    return WerReport.of(UtteranceScore(f"{name}-1", name, 100, count, 0, 0) for name, count in errors.items())


def write(path: Path, errors: dict[str, int]) -> Path:
    write_wer(path, report(errors))
    return path


def compared(before: Path, after: Path) -> Comparison:
    return compare(read_wer(before), read_wer(after), np.random.default_rng(1))


def figure_of(before: Path, after: Path, *names: str) -> Figure:
    return speaker_wer_figure(before, after, compared(before, after), *names)


BEFORE, AFTER = {"bob": 10, "carol": 5, "alice": 20}, {"bob": 10, "carol": 8, "alice": 12}


@pytest.fixture
def figure(tmp_path) -> Figure:
    return figure_of(write(tmp_path / "before.json", BEFORE), write(tmp_path / "after.json", AFTER), "si", "lhuc")


def test_speakers_are_sorted_with_the_worst_on_top(figure: Figure) -> None:
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["carol", "bob", "alice"]


def test_dots_stand_at_the_rates_in_percent(figure: Figure) -> None:
    (axes,) = figure.axes
    _, before, after = axes.collections
    np.testing.assert_allclose(before.get_offsets(), [(5, 0), (10, 1), (20, 2)])
    np.testing.assert_allclose(after.get_offsets(), [(8, 0), (10, 1), (12, 2)])


def test_colours_tell_better_from_worse(figure: Figure) -> None:
    from matplotlib.colors import to_rgba_array

    lines, _, after = figure.axes[0].collections
    expected = to_rgba_array([WORSE, EQUAL, BETTER])
    np.testing.assert_allclose(after.get_facecolors(), expected)
    np.testing.assert_allclose(lines.get_colors()[:, :3], expected[:, :3])


def test_title_and_legend_give_the_totals(figure: Figure) -> None:
    title = figure.axes[0].get_title(loc="left")
    assert "si 11.67 %" in title
    assert "lhuc 10.00 %" in title
    # Sign flips over three speakers reject nothing at 5 %, whatever the errors: the interval has no ends.
    assert "-14.3 [-100.0, ∞] % relative (95 % interval), 300 words, 3 speakers" in title
    assert "lower is better" in figure.axes[0].get_xlabel()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["si", "better (1)", "worse (1)", "equal (1)"]


@pytest.mark.parametrize("count", [1, 8, 84])
def test_nothing_overlaps(tmp_path, count: int) -> None:
    generator = np.random.default_rng(count)
    names = [f"speaker{number:03}" for number in range(count)]
    before = write(tmp_path / "b.json", dict(zip(names, generator.integers(0, 60, count).tolist(), strict=True)))
    after = write(tmp_path / "a.json", dict(zip(names, generator.integers(0, 60, count).tolist(), strict=True)))
    figure = figure_of(before, after, "speaker independent", "sat_lhuc from lattices")
    figure.draw_without_rendering()
    (axes,) = figure.axes
    title = axes._left_title
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
    assert all(low.y1 <= high.y0 for low, high in itertools.pairwise(boxes))
    page = figure.bbox
    for box in [*boxes, title.get_window_extent(), figure.legends[0].get_window_extent()]:
        assert page.x0 <= box.x0
        assert box.x1 <= page.x1
        assert page.y0 <= box.y0
        assert box.y1 <= page.y1
    assert figure.legends[0].get_window_extent().y1 <= axes.xaxis.label.get_window_extent().y0
    assert title.get_window_extent().y0 >= boxes[-1].y1


def test_no_errors_at_all_and_dollar_signs_are_drawn(tmp_path) -> None:
    perfect = write(tmp_path / "wer.json", {"$a$": 0, "$\\frac": 0})
    save_figure(figure_of(perfect, perfect), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 0


def test_the_same_figure_gives_the_same_bytes(tmp_path, figure: Figure) -> None:
    save_figure(figure, tmp_path / "one.png")
    save_figure(figure, tmp_path / "two.png")
    data = (tmp_path / "one.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert data == (tmp_path / "two.png").read_bytes()
    assert b"matplotlib" not in data.lower()
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["one.png", "two.png"]


def test_other_speakers_are_refused_with_the_files_names(tmp_path) -> None:
    before, after = write(tmp_path / "b.json", {"a": 1}), write(tmp_path / "a.json", {"a": 1, "c": 1})
    with pytest.raises(ScoreError, match=r"'c': 100 reference words in .*a\.json, 0 in .*b\.json"):
        speaker_wer_figure(before, after, compared(before, before))


@pytest.mark.parametrize(("format", "begins"), [("pdf", b"%PDF-"), ("svg", b"<?xml")])
def test_another_format_lies_beside_the_png_and_is_the_same_each_time(
    tmp_path, figure: Figure, format: str, begins: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "again").mkdir()
    save_figure(figure, tmp_path / "dev.one.png", [format])
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")  # another time
    save_figure(figure, tmp_path / "again" / "dev.one.png", [format, "png"])
    assert {path.name for path in tmp_path.glob("dev*")} == {"dev.one.png", f"dev.one.{format}"}
    data = (tmp_path / f"dev.one.{format}").read_bytes()
    assert data.startswith(begins)
    assert data == (tmp_path / "again" / f"dev.one.{format}").read_bytes()


def test_the_gains_are_titled_with_the_change_and_its_interval() -> None:
    before, after = report(BEFORE), report(AFTER)
    comparison = compare(before, after, np.random.default_rng(1))
    (axes,) = gains_figure(before, after, comparison, "test: lhuc against si").axes
    assert [patch.get_height() for patch in axes.patches] == pytest.approx([-8, 0, 3])
    _, change, counts = axes.get_title(loc="left").splitlines()
    assert change.startswith(change_text(comparison))
    assert "95 % interval" in change
    assert counts.startswith("1 better, 1 worse, 1 equal")
    assert "lower is better" in axes.get_ylabel()


def test_frame_errors_are_titled_with_the_mean_change_and_its_interval() -> None:
    """Student's t of two degrees of freedom leaves 2.5 % beyond 4.302653."""
    before, after = [(0.40, 0.1), (0.50, 0.2), (0.60, 0.3)], [(0.39, 0.1), (0.47, 0.1), (0.55, 0.4)]
    (axes,) = frames_figure(before, after, "test").axes
    changes = np.array([-1.0, -3.0, -5.0])
    half = 4.302653 * changes.std(ddof=1) / np.sqrt(3)
    assert f"change -3.0 [{-3 - half:+.1f}, {-3 + half:+.1f}] points (95 % interval)" in axes.get_title(loc="left")
    assert "lower is better" in axes.get_xlabel()
    assert "lower is better" in axes.get_ylabel()
    (alone,) = frames_figure(before[:1], after[:1], "test").axes
    assert "change -1.0 points (no interval)" in alone.get_title(loc="left")


def test_a_map_of_amplitudes_has_each_layer_in_deviations_from_the_others_in_order():
    generator = np.random.default_rng(0)
    others = [np.exp(generator.normal(0.1, 0.2, (9, units))) for units in (5, 8)]
    own = [np.exp(generator.normal(0.0, 0.5, units)) for units in (5, 8)]
    axes, _ = amplitude_map(own, others, "amplitudes of <ann>").axes
    assert axes.get_title(loc="left") == "amplitudes of <ann>"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["layer 1", "layer 2"]
    for image, mine, theirs in zip(axes.images, own, others, strict=True):
        logs = np.log(theirs)
        expected = sorted((np.log(mine) - logs.mean(0)) / logs.std(0, ddof=1))
        np.testing.assert_allclose(np.asarray(image.get_array())[0], expected)


def test_a_figure_as_svg_is_the_same_each_time():
    before, after = report(BEFORE), report(AFTER)
    figure = gains_figure(before, after, compare(before, after, np.random.default_rng(0)), "gains")
    assert svg_of(figure, "gains") == svg_of(figure, "gains")
    assert b"<svg" in svg_of(figure, "gains")
