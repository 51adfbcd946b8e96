"""Tables of the tiny recipe: what each pass is compared with, and how it is judged; one seed, and several."""

from __future__ import annotations

from pathlib import Path

import pytest

from lhuc_asr.base.atomic import read_json
from lhuc_asr.base.config import load_config
from lhuc_asr.base.errors import ConfigError, ExperimentError
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.experiment import read_experiment
from lhuc_asr.pipeline.run import run_recipe
from lhuc_asr.study.run import run_benchmark


def errors_of(folder: Path, split: str, name: str) -> int:
    return read_json(folder / "decode" / split / name / "wer.json")["errors"]


def relative(folder: Path, split: str, name: str, reference: str) -> float:
    before = errors_of(folder, split, reference)
    return (errors_of(folder, split, name) - before) / before


def test_each_pass_is_compared_with_the_network_and_with_its_control(finished: Path) -> None:
    rows = read_json(finished / "decode" / "test" / "comparison.json")
    assert {name: row["role"] for name, row in rows.items()} == {"lhuc": "result", "lhuc__others_mean": "control"}
    lhuc = rows["lhuc"]
    assert lhuc["primary"]
    assert lhuc["against_base"]["relative"] == pytest.approx(relative(finished, "test", "lhuc", "si"))
    control = relative(finished, "test", "lhuc", "lhuc__others_mean")
    assert lhuc["against_others_mean"]["relative"] == pytest.approx(control)
    # Two speakers can show nothing.
    assert lhuc["against_base"]["least_p"] >= 0.5
    assert lhuc["verdict"] == "no evidence"
    assert rows["lhuc__others_mean"]["against_others_mean"] is rows["lhuc__others_mean"]["verdict"] is None
    table = (finished / "decode" / "test" / "table.txt").read_text(encoding="utf-8")
    assert "no evidence (primary)" in table
    assert not read_json(finished / "decode" / "control" / "comparison.json")["lhuc"]["primary"]


def test_controls_have_no_speakers_of_their_own_and_other_words_than_the_pass(finished: Path) -> None:
    assert not (finished / "speakers" / "lhuc__others_mean").exists()
    words = [
        (finished / "decode" / "test" / name / "hypotheses.jsonl").read_bytes()
        for name in ("si", "lhuc", "lhuc__others_mean")
    ]
    assert len(set(words)) == 3


def test_a_test_set_of_one_speaker_has_no_control_and_the_table_says_so(copied: Path, run) -> None:
    executed = run(copied, "corpus.voices.test_speakers=1")
    assert "lhuc over test" in executed
    assert not any(stage.startswith("lhuc__others_mean over test") for stage in executed)
    assert "lhuc__others_mean" not in read_json(copied / "decode" / "test" / "comparison.json")
    table = (copied / "decode" / "test" / "table.txt").read_text(encoding="utf-8")
    assert "test: one speaker; p and intervals are over recordings, without a control" in table


def test_several_seeds_are_experiments_of_their_own_whose_errors_are_summed(tiny_recipe: Path, tmp_path: Path) -> None:
    overrides = [
        f"exp={tmp_path / 'exp'}", "seeds=[1, 2]", "trainer.schedule.max_epochs=1", "tuning.acoustic_scales=[0.1]",
        "monophone={iterations: 2, growing_iterations: 1, gaussians: 60}", "search.beam=6",
    ]  # fmt: skip
    config = load_config(ExperimentConfig, tiny_recipe / "config.yaml", overrides)
    lines = {(line.entry.split, line.entry.name): line for line in run_recipe(config)}
    seeds = [tmp_path / "exp" / f"seed{seed}" for seed in (1, 2)]
    weights = [(seed / "am" / "si" / "model.safetensors").read_bytes() for seed in seeds]
    assert weights[0] != weights[1]
    for (split, name), line in lines.items():
        assert line.entry.report.errors == sum(errors_of(seed, split, name) for seed in seeds)
        assert list(line.entry.by_seed) == [
            read_json(seed / "decode" / split / name / "wer.json")["wer"] for seed in seeds
        ]
    table = (tmp_path / "exp" / "decode" / "test" / "table.txt").read_text(encoding="utf-8")
    assert " ± " in table
    assert "2 seeds: errors and words are summed" in table
    # Each seed is a finished experiment; the folder above is not one.
    assert read_experiment(seeds[0])[0].seed == 1
    for ask in (read_experiment, lambda path: run_benchmark(path, ["gains"])):
        with pytest.raises(ExperimentError, match=r"has an experiment for each of 2 seeds; give one, such as .*seed1"):
            ask(tmp_path / "exp")
    with pytest.raises(ExperimentError, match=r"holds an experiment with seeds=\(1, 2\), not seeds=None"):
        run_recipe(config.model_copy(update={"seeds": None}))


@pytest.mark.parametrize(
    ("seeds", "message"), [("[1]", "seeds: Tuple should have at least 2"), ("[1, 1]", "expected each only once")]
)
def test_seeds_that_repeat_nothing_are_refused(seeds: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(ExperimentConfig, Path("recipes/demo/config.yaml"), [f"seeds={seeds}"])
