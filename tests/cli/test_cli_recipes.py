"""Recipes found by name and by path, and copied."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from lhuc_asr.base.config import StrictModel, load_config
from lhuc_asr.base.errors import ConfigError, OutputError
from lhuc_asr.cli.main import app
from lhuc_asr.cli.recipes import recipe_file, recipe_names
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.ppnet.recommender import RecommenderConfig

RECIPES = Path(__file__).parents[2] / "recipes"
KINDS: dict[str, type[StrictModel]] = {"run": ExperimentConfig, "ppnet train": RecommenderConfig}


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The current folder is one with nothing in it."""
    monkeypatch.chdir(tmp_path)


def initialised(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["init", *arguments])


def test_the_names_are_the_folders_of_the_checkout() -> None:
    assert recipe_names() == sorted(path.name for path in RECIPES.iterdir() if path.is_dir())
    assert {"demo", "own_data"} <= set(recipe_names())


def test_a_name_is_found_from_anywhere() -> None:
    assert recipe_file(Path("demo")).samefile(RECIPES / "demo" / "config.yaml")


def test_a_path_goes_before_a_name() -> None:
    Path("demo").mkdir()
    Path("demo/config.yaml").touch()
    assert recipe_file(Path("demo")) == Path("demo/config.yaml")
    assert recipe_file(Path("demo/config.yaml")) == Path("demo/config.yaml")
    Path("an4").touch()
    assert recipe_file(Path("an4")) == Path("an4")


def test_a_corpus_of_a_recipes_name_is_not_taken_for_it() -> None:
    Path("librispeech/train-clean-5").mkdir(parents=True)
    assert recipe_file(Path("librispeech")).samefile(RECIPES / "librispeech" / "config.yaml")


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ("dmo", "no such configuration file"),
        ("recipes/demo", "no such configuration file"),
        ("demo.yaml", "no such configuration file"),
        (".", "a folder without config.yaml"),
    ],
)
def test_what_is_neither_is_refused_with_the_names(given: str, fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        recipe_file(Path(given))
    assert str(caught.value) == (
        f"{given}: {fault}, and not the name of a recipe; the recipes are {', '.join(recipe_names())}"
    )


@pytest.mark.parametrize("name", recipe_names())
def test_a_copy_is_the_recipe_under_another_name(name: str) -> None:
    result = initialised(name, "new/mine")
    assert result.exit_code == 0, result.output
    verb = next(verb for verb in KINDS if f"lhuc-asr {verb} new/mine" in result.output)
    ours, theirs = (
        load_config(KINDS[verb], Path("new/mine/config.yaml")),
        load_config(KINDS[verb], RECIPES / name / "config.yaml"),
    )
    assert (theirs.name, ours.name) == (name, "mine")
    assert ours.model_dump(exclude={"name"}) == theirs.model_dump(exclude={"name"})
    assert Path("new/mine/config.yaml").read_text().count("#") == (RECIPES / name / "config.yaml").read_text().count(
        "#"
    )


def test_a_name_that_yaml_takes_for_a_number_stays_a_name() -> None:
    assert initialised("own_data", "2001").exit_code == 0
    assert load_config(ExperimentConfig, Path("2001/config.yaml")).name == "2001"


def test_a_copy_goes_into_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert initialised("own_data", ".").exit_code == 0
    assert load_config(ExperimentConfig, Path("config.yaml")).name == "here"


def test_a_copy_replaces_nothing() -> None:
    Path("mine").mkdir()
    Path("mine/config.yaml").write_text("mine")
    result = initialised("own_data", "mine")
    assert isinstance(result.exception, OutputError)
    assert "mine: cannot be written" in str(result.exception)
    assert Path("mine/config.yaml").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("own_dta", "mine"), f"own_dta: not a recipe; the recipes are {', '.join(recipe_names())}"),
        (("own_data", "my data"), "'my data': not a name for a recipe; name the folder with at most 200 letters"),
        (("own_data", "x" * 201), "not a name for a recipe"),
    ],
)
def test_what_cannot_be_copied_is_refused(arguments: tuple[str, str], message: str) -> None:
    result = initialised(*arguments)
    assert isinstance(result.exception, ConfigError)
    assert message in str(result.exception)
    assert not list(Path().iterdir())


def test_run_and_ppnet_train_take_names() -> None:
    for verb, name in ((["run"], "demo"), (["ppnet", "train"], "ppnet_synthetic")):
        result = CliRunner().invoke(app, [*verb, name, "nmae=x"])
        assert "unknown key 'nmae'; did you mean 'name'?" in str(result.exception)
        assert f"{name}/config.yaml" in str(result.exception)


def test_the_package_is_a_command(tmp_path: Path) -> None:
    said = subprocess.run([sys.executable, "-m", "lhuc_asr", "init", "demo", "mine"], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert (tmp_path / "mine" / "config.yaml").is_file()


def test_a_command_leaves_the_log_as_it_was(tmp_path: Path) -> None:
    log = logging.getLogger("lhuc_asr")
    before = log.level, log.propagate, list(log.handlers)
    for arguments in (["init", "demo", str(tmp_path / "mine")], ["init", "no such recipe", str(tmp_path / "other")]):
        CliRunner().invoke(app, arguments)
        assert (log.level, log.propagate, log.handlers) == before
