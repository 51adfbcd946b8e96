"""Where a run is, and what it would do: places and times in its log, and the dry run."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lhuc_asr.base.atomic import read_json_lines
from lhuc_asr.base.config import load_config
from lhuc_asr.base.errors import ExperimentError
from lhuc_asr.base.stage_plan import about
from lhuc_asr.cli.run import run as run_command
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.planned import Part, plan_lines

Configured = Callable[..., ExperimentConfig]


@pytest.fixture
def configured(tiny_recipe: Path) -> Configured:
    def load(folder: Path, *overrides: str) -> ExperimentConfig:
        return load_config(ExperimentConfig, tiny_recipe / "config.yaml", [f"exp={folder}", *overrides])

    return load


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def to_run(config: ExperimentConfig) -> list[str]:
    return [stage.name for stage in Part(config).plan() if not stage.finished]


@pytest.mark.parametrize(
    ("override", "removed"),
    [("workers=1", None), ("lhuc.sweeps=1", None), ("lm.order=1", None), ("workers=1", "lang/HCLG.fst")],
)
def test_the_dry_run_names_the_stages_that_the_run_then_makes(
    override: str, removed: str | None, copied: Path, configured: Configured, run
) -> None:
    if removed is not None:
        (copied / removed).unlink()
    before = contents(copied)
    planned = to_run(configured(copied, override))
    assert contents(copied) == before
    made = run(copied, override)
    if removed is None:
        assert planned == made
    else:  # it was made again as it was, which the plan could not know
        assert set(made) < set(planned)
        assert planned[0] == made[0] == "graph"


@pytest.mark.parametrize(
    ("networks", "passes", "before"),
    [
        ("", "tuner: {network: moved, targets: {source: si}, method: {kind: basis_fmllr}}", "prepare basis_fmllr-"),
        (
            "",
            """warped: {method: {kind: vtln}, targets: {source: si}},
            tuner: {network: moved, targets: {source: warped}, method: {kind: fmllr}}""",
            "prepare vtln-",
        ),
        (
            "other: {sequence: {}},",
            "tuner: {network: moved, targets: {source: other_si}, method: {kind: fmllr}}",
            "network other",
        ),
    ],
)
def test_a_search_is_tuned_after_all_that_its_pass_needs_and_before_its_lattices(
    networks: str, passes: str, before: str, tmp_path: Path, configured: Configured
) -> None:
    config = configured(
        tmp_path / "new",
        "aligners=[mono, tri, lda_mllt, fmllr_sat]",
        f"networks={{sharp: {{start: moved, sequence: {{}}}}, {networks} moved: {{features: fmllr_sat}}}}",
        f"passes={{{passes}, last: {{network: sharp, targets: {{source: si}}, method: {{kind: fmllr}}}}}}",
    )
    names = to_run(config)
    needed = next(place for place, name in enumerate(names) if name.startswith(before))
    assert needed < names.index("tuner over heldout") < names.index("lattices of sharp") < names.index("network sharp")


def test_before_a_run_every_stage_is_to_run_and_nothing_is_written(
    finished: Path, configured: Configured, executed: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    config = configured(tmp_path / "new")
    assert to_run(config) == executed(finished)
    lines = plan_lines(config)
    count = len(executed(finished))
    assert lines[0] == f"{tmp_path / 'new'}: {count} of {count} stages to run"
    assert "one speaker" in lines[-1]
    assert not list(tmp_path.iterdir())


def test_the_command_lists_stages_with_the_times_of_an_earlier_run(
    copied: Path, tiny_recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_command(tiny_recipe, [f"exp={copied}", "lhuc.sweeps=1"], dry_run=True)
    title, *stages = capsys.readouterr().out.splitlines()
    rows = [row for row in read_json_lines(copied / "metrics.jsonl") if row.keys() == {"stage", "time", "seconds"}]
    waiting = [row for row in rows if row["stage"].startswith("lhuc") or row["stage"] == "model"]
    time = about(sum(row["seconds"] for row in waiting))
    assert title == f"{copied}: {len(waiting)} of {len(rows)} stages to run, {time}"
    assert [line.split("  ")[1] for line in stages] == [row["stage"] for row in rows]
    for line, row in zip(stages, rows, strict=True):
        ending = f"to run, took {row['seconds']:.1f} s before" if row in waiting else f"took {row['seconds']:.1f} s"
        assert line.endswith(ending)


def test_a_folder_of_another_experiment_is_refused_by_the_dry_run_too(copied: Path, configured: Configured) -> None:
    with pytest.raises(ExperimentError, match="holds the experiment 'tiny', and the recipe is 'other'"):
        plan_lines(configured(copied, "name=other", "lhuc.sweeps=1"))


def test_each_line_of_the_log_says_which_stage_it_is(
    copied: Path, run, executed: Callable[[Path], list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    names = list(dict.fromkeys(executed(copied)))
    with caplog.at_level(logging.INFO, logger="lhuc_asr.base.stages"):
        made = run(copied, "lhuc.sweeps=1")
    lines = [record.getMessage() for record in caplog.records if record.name == "lhuc_asr.base.stages"]
    assert lines[0] == "corpus (stage 1): done before"
    for number, (name, line) in enumerate(zip(names[1:], lines[1:], strict=True), start=2):
        place = re.escape(f"{name} (stage {number} of {len(names)}")
        rest = r", (a few seconds|about .*) left\)" if name in made else r"\): done before"
        assert re.fullmatch(place + rest, line)


def test_seeds_and_folds_know_the_times_of_each_other(finished: Path, configured: Configured, tmp_path: Path) -> None:
    """The first fold of the first seed has times; of the second seed's second fold nothing has been begun beside it."""
    voices = next(finished.glob("voices-*"))
    corpus = f"corpus={{kind: librispeech, dir: {voices}, train: [train, test], test: [control]}}"
    config = configured(tmp_path / "all", corpus, "lexicon.language=en-us", "seeds=[3, 4]", "folds=2")
    first = tmp_path / "all" / "seed3" / "fold1"
    first.mkdir(parents=True)
    shutil.copy(finished / "metrics.jsonl", first)
    rows = [row for row in read_json_lines(first / "metrics.jsonl") if row.keys() == {"stage", "time", "seconds"}]
    times = {row["stage"]: row["seconds"] for row in rows}
    seeds = [[fold.plan() for fold in seed.folds()] for seed in Part(config).seeds()]
    assert [len(folds) for folds in seeds] == [2, 2]
    for plan in (*seeds[0], seeds[1][0]):
        assert [stage.seconds for stage in plan] == [times[stage.name] for stage in plan]
    assert {stage.seconds for stage in seeds[1][1]} == {None}
