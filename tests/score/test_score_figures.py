import itertools
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from lhuc_asr.base.errors import ScoreError
from lhuc_asr.score.figures import BETTER, EQUAL, WORSE, save_figure, speaker_wer_figure
from lhuc_asr.score.wer import SpeakerScore, WerReport, write_wer


def write(path: Path, errors: dict[str, int]) -> Path:
    """A hundred words a speaker, so that errors are percent."""
    write_wer(path, WerReport({name: SpeakerScore(count, 100) for name, count in errors.items()}))
    return path


@pytest.fixture
def figure(tmp_path) -> Figure:
    before = write(tmp_path / "before.json", {"bob": 10, "carol": 5, "alice": 20})
    after = write(tmp_path / "after.json", {"bob": 10, "carol": 8, "alice": 12})
    return speaker_wer_figure(before, after, "si", "lhuc")


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
    assert "-14.3 % relative, 300 words, 3 speakers" in title
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["si", "better (1)", "worse (1)", "equal (1)"]


@pytest.mark.parametrize("count", [1, 8, 84])
def test_nothing_overlaps(tmp_path, count: int) -> None:
    generator = np.random.default_rng(count)
    names = [f"speaker{number:03}" for number in range(count)]
    before = write(tmp_path / "b.json", dict(zip(names, generator.integers(0, 60, count).tolist(), strict=True)))
    after = write(tmp_path / "a.json", dict(zip(names, generator.integers(0, 60, count).tolist(), strict=True)))
    figure = speaker_wer_figure(before, after, "speaker independent", "sat_lhuc from lattices")
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
    save_figure(speaker_wer_figure(perfect, perfect), tmp_path / "figure.png")
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
        speaker_wer_figure(before, after)
