"""The wheel and the source distribution, built here without a network, and the wheel used outside the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from email.parser import Parser
from pathlib import Path

import pytest
from hatchling import build

from lhuc_asr.base.version import __version__

ROOT = Path(__file__).parents[1]
RECIPES = sorted(path for path in (ROOT / "recipes").rglob("*") if path.is_file())


def built(hook: Callable[[str], str], source: Path, target: Path) -> Path:
    """What a hook of the build backend (PEP 517) makes of a source tree."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(source)
        return target / hook(str(target))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(build.build_wheel, ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that stands for site-packages."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, unpacked."""
    folder = tmp_path_factory.mktemp("source")
    with tarfile.open(built(build.build_sdist, ROOT, folder)) as archive:
        archive.extractall(folder, filter="data")
    return folder / f"lhuc_asr-{__version__}"


def content(wheel: Path) -> dict[str, bytes]:
    """The files of a wheel; RECORD lists their hashes again."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/RECORD")}


def test_the_wheel_has_the_package_and_the_recipes_and_nothing_else(wheel: Path) -> None:
    package = [path for path in (ROOT / "lhuc_asr").rglob("*") if path.suffix == ".py" or path.name == "py.typed"]
    package += (ROOT / "lhuc_asr" / "web" / "templates").iterdir()
    expected = {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in package}
    expected |= {f"lhuc_asr/{path.relative_to(ROOT).as_posix()}": path.read_bytes() for path in RECIPES}
    assert len(package) > 150
    assert any(name.endswith("demo/config.yaml") for name in expected)
    assert {name: data for name, data in content(wheel).items() if ".dist-info/" not in name} == expected


def test_the_wheel_says_who_and_under_which_licence(wheel: Path) -> None:
    files = content(wheel)
    metadata = Parser().parsestr(files[f"lhuc_asr-{__version__}.dist-info/METADATA"].decode())
    assert (metadata["Name"], metadata["Version"]) == ("lhuc_asr", __version__)
    assert (metadata["License-Expression"], metadata["License-File"]) == ("Apache-2.0", "LICENSE")
    assert files[f"lhuc_asr-{__version__}.dist-info/licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()
    assert "lhuc-asr = lhuc_asr.cli.entry:main" in files[f"lhuc_asr-{__version__}.dist-info/entry_points.txt"].decode()


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
def test_the_source_distribution_has_what_git_has(source: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tracked = {name for name in listed.split("\0") if name}
    assert tracked >= {"Makefile", ".ci/run", "tests/conftest.py", "recipes/demo/config.yaml"}
    assert {name for name in tracked if not (source / name).is_file()} == set()


def test_the_source_distribution_makes_the_same_wheel(source: Path, wheel: Path, tmp_path: Path) -> None:
    assert content(built(build.build_wheel, source, tmp_path)) == content(wheel)


def lhuc_asr(site: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command in a folder, by the package in ``site``."""
    return subprocess.run(
        [sys.executable, "-m", "lhuc_asr", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_wheel_finds_and_copies_its_recipes_outside_the_checkout(unpacked: Path, tmp_path: Path) -> None:
    copied = lhuc_asr(unpacked, tmp_path, "init", "own_data", "mine")
    assert copied.returncode == 0, copied.stderr
    assert str(unpacked / "lhuc_asr" / "recipes" / "own_data" / "README.md") in copied.stdout
    assert "\nname: mine\n" in (tmp_path / "mine" / "config.yaml").read_text(encoding="utf-8")
    refused = lhuc_asr(unpacked, tmp_path, "run", "demo", "seed=-1")
    place = unpacked / "lhuc_asr" / "recipes" / "demo" / "config.yaml"
    assert refused.stderr.strip().startswith(f"lhuc-asr: error: {place}: seed: ")
