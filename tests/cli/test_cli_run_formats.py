"""``run --format``: the figures of a recipe as PDF or SVG beside PNG."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lhuc_asr.base.config import load_config
from lhuc_asr.base.errors import ScoreError
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.run import run_recipe


def test_a_format_is_drawn_beside_png_and_again_when_the_results_change(
    command: Callable[..., object], tiny_recipe: Path, copied: Path
) -> None:
    place = copied / "decode" / "test"
    assert command("run", tiny_recipe, f"exp={copied}", "--format", "svg") == 0
    figures = {path.name for path in place.glob("lhuc*.*")}
    assert figures == {f"{name}.{ending}" for name in ("lhuc", "lhuc__others_mean") for ending in ("png", "svg")}
    first = (place / "lhuc.svg").read_bytes()
    assert first.startswith(b"<?xml")
    # Without the option no figure of the earlier results is left beside the new ones.
    (place / "lhuc.svg").write_bytes(b"of earlier results")
    assert command("run", tiny_recipe, f"exp={copied}") == 0
    assert (place / "lhuc.svg").read_bytes() == first
    assert not list(copied.rglob("*.pdf"))


def test_an_unknown_format_is_refused_before_anything_is_run(tiny_recipe: Path, tmp_path: Path) -> None:
    config = load_config(ExperimentConfig, tiny_recipe / "config.yaml", [f"exp={tmp_path / 'exp'}"])
    with pytest.raises(ScoreError, match="figures cannot be drawn as gif; choose from png, pdf, svg"):
        run_recipe(config, ["gif"])
    assert not (tmp_path / "exp").exists()
