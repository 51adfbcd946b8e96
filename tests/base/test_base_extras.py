"""What the package does where an extra is not installed: one line that names the extra, and all else works."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lhuc_asr.base.errors import MissingExtraError
from lhuc_asr.base.extras import EXTRAS, extra

# What the libraries of the extras are called when they are imported.
LIBRARIES = ("matplotlib", "sklearn", "starlette", "pyarrow", "espeakng_loader", "silero_vad", "librosa", "tensorboard")
WITHOUT = f"import sys; sys.modules.update(dict.fromkeys({LIBRARIES}))\n"
# Runs ``lhuc-asr``, whose arguments are this process's.
COMMAND = "from lhuc_asr.cli.main import main; main()"
# Modules that need no extra: all that adapt, transcribe and recipes need.
IMPORTS = (
    "import importlib, json, pkgutil, lhuc_asr\n"
    "names = [each.name for each in pkgutil.walk_packages(lhuc_asr.__path__, 'lhuc_asr.')]\n"
    "def extra_of(name):\n"
    "    try: importlib.import_module(name)\n"
    "    except ImportError as error: return f'{type(error).__name__}: {error}'\n"
    "print(json.dumps({name: extra_of(name) for name in names if not name.endswith('__main__')}))"
)


def without_extras(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh process that has none of the extras' libraries."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=200,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


@pytest.mark.parametrize("name", EXTRAS)
def test_a_library_that_is_missing_is_named_with_its_extra(name: str) -> None:
    with pytest.raises(MissingExtraError) as caught, extra(name):
        import no_such_library  # noqa: F401
    assert str(caught.value).startswith("no_such_library is not installed, and ")
    assert str(caught.value).endswith(f": pip install 'lhuc_asr[{name}]'")


def test_other_errors_of_an_import_pass() -> None:
    with pytest.raises(ImportError, match="cannot import name") as caught, extra("rank"):
        from math import no_such_name  # noqa: F401
    assert not isinstance(caught.value, MissingExtraError)


def test_every_module_is_there_or_names_the_extra_that_it_needs() -> None:
    ran = without_extras(IMPORTS)
    assert ran.returncode == 0, ran.stderr
    outcome = json.loads(ran.stdout)
    missing = {name: said for name, said in outcome.items() if said}
    rooms = {name.split(".")[1] for name in missing}
    curves = ["lhuc_asr.base.event_files", "lhuc_asr.pipeline.curves", "lhuc_asr.ppnet.curves"]
    assert rooms == {"base", "pipeline", "ppnet", "score", "serving", "study", "web"}
    assert [name for name in missing if name.split(".")[1] in ("base", "pipeline")] == curves[:2]
    for name, said in missing.items():
        wanted = "rank" if name.startswith("lhuc_asr.ppnet") else "figures"
        wanted = "tensorboard" if name in curves else wanted
        wanted = "enrol" if name.startswith("lhuc_asr.web.enrol") else wanted
        wanted = "serve" if name.startswith("lhuc_asr.serving") else wanted
        assert said.startswith("MissingExtraError: "), (name, said)
        assert said.endswith(f"pip install 'lhuc_asr[{wanted}]'"), (name, said)
    # What needs no figure and no table of examples is there.
    assert {"lhuc_asr.score.tables", "lhuc_asr.pipeline.run", "lhuc_asr.ppnet.layer"}.isdisjoint(missing)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("toy",), "figures"),
        (("benchmark", "exp/an4"), "figures"),
        (("report", "exp/an4"), "figures"),
        (("enrol", "exp/an4"), "enrol"),
        (("ppnet", "train", "ppnet_synthetic"), "rank"),
        (("ppnet", "inspect", "ranker", "x.csv", "-o", "y"), "rank"),
        (("run", "demo"), "voices"),
        (("run", "demo", "--format", "svg"), "figures"),
        (("run", "demo", "--tensorboard"), "tensorboard"),
    ],
)
def test_a_command_without_its_extra_is_one_line(
    arguments: tuple[str, ...], name: str, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = without_extras(COMMAND, *arguments)
    last = ran.stderr.strip().splitlines()[-1]
    assert ran.returncode == 1
    assert last.startswith("lhuc-asr: error: ")
    assert f"pip install 'lhuc_asr[{name}]'" in last
    assert "Traceback" not in ran.stderr


def test_a_recipe_without_matplotlib_has_all_but_its_figures(finished: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "exp"
    shutil.copytree(finished, folder)
    results = folder / "decode" / "test"
    assert (results / "lhuc.png").is_file()
    (results / "table.txt").unlink()
    ran = without_extras(COMMAND, "run", tiny_recipe, f"exp={folder}")
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.count("pip install 'lhuc_asr[figures]'") == 1
    assert (results / "table.txt").read_text() == (finished / "decode" / "test" / "table.txt").read_text()
    assert not list(folder.rglob("*.png"))
