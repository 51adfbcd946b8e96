"""An experiment's folder: one run at a time, nobody else's files, and not elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lhuc_asr.base.config import load_config
from lhuc_asr.base.errors import ConfigError, ExperimentError
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.experiment import load_recipe, opened, read_experiment
from lhuc_asr.pipeline.export import export
from lhuc_asr.study.run import run_benchmark


def test_two_runs_in_one_folder_are_refused(copied: Path, run) -> None:
    with (
        opened(load_config(ExperimentConfig, copied / "config.yaml", [f"exp={copied}"])),
        pytest.raises(ExperimentError, match=f"{copied}: another run is using this folder; wait for it, or choose"),
    ):
        run(copied)
    assert run(copied) == []


def test_a_recipes_own_folder_is_not_taken_for_an_experiment(tiny_recipe: Path, run) -> None:
    settings = (tiny_recipe / "config.yaml").read_bytes()
    with pytest.raises(
        ExperimentError, match=r"holds a config\.yaml that no run made; choose another folder with exp="
    ):
        run(tiny_recipe)
    assert (tiny_recipe / "config.yaml").read_bytes() == settings


@pytest.mark.parametrize("name", ["..", ".", ".hidden", "../../x", ""])
def test_a_name_does_not_lead_out_of_the_folder_of_experiments(name: str, tiny_recipe: Path) -> None:
    with pytest.raises(ConfigError, match="name"):
        load_config(ExperimentConfig, tiny_recipe / "config.yaml", [f"name='{name}'"])


OLD_OPTIONS = {
    "method: {kind: bayes, around: row 0}": r"around: Input should be 'speakers' or 'unadapted' \(found 'row 0'\)",
    "method: {kind: lhuc, removed: 3}": r"unknown key 'passes.lhuc.method.removed'; .*",
}


@pytest.mark.parametrize("method", OLD_OPTIONS)
@pytest.mark.parametrize("read", [read_experiment, lambda folder: run_benchmark(folder, ["gains"])])
def test_an_experiment_of_another_version_is_refused_in_one_line(
    method: str, read: Callable[[Path], object], tmp_path: Path, tiny_recipe: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"{(tiny_recipe / 'config.yaml').read_text()}\npasses: {{lhuc: {{{method}}}}}", encoding="utf-8")
    remedy = f"make the experiment again, lhuc-asr run RECIPE exp={tmp_path}"
    expected = f"{config}: .*{OLD_OPTIONS[method]}; expected a file of this version of lhuc_asr: {remedy}"
    with pytest.raises(ConfigError, match=f"^{expected}$") as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


def test_another_experiments_folder_is_refused_and_left_as_it_is(copied: Path, run) -> None:
    before = (copied / "config.yaml").read_bytes()
    with pytest.raises(ExperimentError, match=f"^{copied}: holds the experiment 'tiny', and the recipe is 'other'; ch"):
        run(copied, "name=other", "lhuc.sweeps=3")
    with pytest.raises(ExperimentError, match=f"^{copied}: holds an experiment with folds=1, not folds=2; choose"):
        run(copied, "folds=2", "corpus={kind: an4, dir: somewhere}")
    assert (copied / "config.yaml").read_bytes() == before
    assert run(copied) == []
    assert run(copied, "name=renamed") == []


@pytest.mark.parametrize("content", ["", "name: tiny\n  x: [", "name: tiny\ncorpus: {}\nremoved: 3\n"])
def test_a_folder_whose_configuration_is_damaged_or_old_is_that_of_its_recipe(content: str, copied: Path, run) -> None:
    (copied / "config.yaml").write_text(content)
    assert run(copied) == []


def test_a_folder_of_an_old_experiment_of_another_name_is_refused(copied: Path, run) -> None:
    (copied / "config.yaml").write_text("name: other\ncorpus: {}\nremoved: 3\n")
    with pytest.raises(ExperimentError, match="holds the experiment 'other', and the recipe is 'tiny'"):
        run(copied)


def test_a_rankers_experiment_of_the_same_name_is_refused(copied: Path, run) -> None:
    before = "name: tiny\ndata: {}\nexamples: {}\nmodels: {}\nbaseline: x\n"
    (copied / "config.yaml").write_text(before)
    with pytest.raises(ExperimentError, match=f"^{copied}: holds an experiment of another kind; choose another folder"):
        run(copied)
    assert (copied / "config.yaml").read_text() == before


def test_a_model_and_a_corpus_are_not_taken_for_an_experiment(copied: Path, tmp_path: Path, run) -> None:
    model = tmp_path / "model"
    export(copied, model)
    before = (model / "model.json").read_bytes()
    with pytest.raises(ExperimentError, match=r"holds a model\.json that no run made; choose another folder"):
        run(model)
    assert (model / "model.json").read_bytes() == before
    (tmp_path / "recordings" / "corpus").mkdir(parents=True)
    with pytest.raises(ExperimentError, match="holds a corpus that no run made; choose another folder"):
        run(tmp_path / "recordings")


def test_the_recipe_of_a_moved_experiment_is_that_of_its_new_place(copied: Path, tmp_path: Path, run) -> None:
    assert run(copied) == []
    moved = copied.rename(tmp_path / "moved")
    assert load_recipe(moved / "config.yaml").folder == moved
    assert load_recipe(moved / "config.yaml", ["exp=elsewhere"]).folder == Path("elsewhere").absolute()
    assert run(moved) == []
    copy = shutil.copytree(moved, tmp_path / "copy", copy_function=shutil.copyfile)  # with new times
    shutil.rmtree(moved)
    assert run(copy) == []
    assert run(copy, "features.bins=30")[0] == "features of train"
    export(copy, tmp_path / "model")


def test_a_recipe_that_no_run_wrote_names_its_own_folder(tiny_recipe: Path) -> None:
    assert load_recipe(tiny_recipe / "config.yaml").folder == Path("exp/tiny")
