"""An experiment's folder: one run at a time, nobody else's files, and not elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from lhuc_asr.base.config import load_config
from lhuc_asr.base.errors import ConfigError, ExperimentError
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.experiment import opened


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
