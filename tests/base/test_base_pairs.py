"""A torchaudio that does not load beside the torch that is there: one sentence where it is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import lhuc_asr
from lhuc_asr.base.errors import ConfigError, IncompatibleError
from lhuc_asr.base.pairs import torchaudio_beside_torch

# What the dynamic linker says.
REASON = "libtorchaudio.so: undefined symbol: _ZN3c104impl\nat line 2"


@pytest.mark.parametrize("kind", [OSError, ImportError, RuntimeError])
def test_what_an_import_raises_becomes_one_sentence(kind: type[Exception]) -> None:
    with pytest.raises(IncompatibleError) as caught, torchaudio_beside_torch():
        raise kind(REASON)
    assert str(caught.value) == (
        f"torchaudio {version('torchaudio')} does not load beside torch {version('torch')} (libtorchaudio.so: "
        "undefined symbol: _ZN3c104impl at line 2); install the two in one version and from one index, such as: "
        "pip install torch==2.11.0 torchaudio==2.11.0"
    )
    assert isinstance(caught.value, ImportError)


def test_other_errors_pass() -> None:
    with pytest.raises(ConfigError), torchaudio_beside_torch():
        raise ConfigError("seed=x")


def test_a_recipe_is_refused_before_it_begins(tiny_recipe: Path, tmp_path: Path) -> None:
    broken = tmp_path / "torchaudio" / "__init__.py"
    broken.parent.mkdir()
    broken.write_text(f"raise OSError({REASON!r})")
    package = Path(lhuc_asr.__file__).parents[1]
    ran = subprocess.run(
        [sys.executable, "-m", "lhuc_asr", "run", tiny_recipe, f"exp={tmp_path / 'exp'}"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{package}"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ran.returncode == 1
    [line] = ran.stderr.splitlines()
    assert line.startswith("lhuc-asr: error: torchaudio ")
    assert "does not load beside torch" in line
    assert not (tmp_path / "exp").exists()
