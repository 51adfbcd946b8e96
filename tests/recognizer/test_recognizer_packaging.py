"""A model as a package: installed, it is found by its name, and says its terms."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from hatchling import build

from lhuc_asr.base.errors import ConfigError, ExperimentError, LhucError, OutputError
from lhuc_asr.recognizer.installed import installed_models, model_folder
from lhuc_asr.recognizer.model_folder import read_model
from lhuc_asr.recognizer.packaging import package
from lhuc_asr.recognizer.recognizer import load

COMMAND = "from lhuc_asr.cli.entry import main; main()"


@pytest.fixture(scope="module")
def notice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("notice") / "MODEL.md"
    path.write_text("# Tiny\n\nOf synthetic voices; do as you like.\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def project(exported: Path, notice: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package") / "tiny"
    package(exported, folder, "tiny_voices", notice, "CC0-1.0")
    return folder


@pytest.fixture(scope="module")
def site(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that stands for site-packages, with the package's wheel unpacked."""
    folder, made = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("wheel")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        wheel = made / build.build_wheel(str(made))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def command(site: Path, folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_project_names_model_licence_and_toolkit(project: Path, exported: Path) -> None:
    content = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    description, _ = read_model(exported)
    assert content["name"] == "lhuc-asr-model-tiny-voices"
    assert content["version"].endswith(f"+{description.network[:8]}")
    assert content["license"] == "CC0-1.0"
    assert content["dependencies"] == [f"lhuc_asr>={description.made_by}"]
    copied, files = read_model(project / "lhuc_asr_model_tiny_voices" / "model")
    assert copied == description
    assert all(path.is_file() for path in files.by_name.values())


def test_an_installed_model_adapts_and_transcribes_by_its_name(
    site: Path, audio: Path, exported: Path, tmp_path: Path
) -> None:
    (metadata,) = site.glob("*.dist-info/METADATA")
    assert "do as you like" in metadata.read_text()
    adapted = command(site, tmp_path, "adapt", "tiny_voices", "--speaker", "me", audio)
    assert adapted.returncode == 0, adapted.stderr
    by_name = command(site, tmp_path, "transcribe", "tiny_voices", "--speaker", "me", audio)
    by_folder = command(site, tmp_path, "transcribe", exported, "--speaker", "me", audio)
    assert by_name.returncode == 0, by_name.stderr
    assert by_name.stdout
    assert by_name.stdout == by_folder.stdout
    assert "pass lhuc" in command(site, tmp_path, "info", "tiny_voices").stdout


def test_a_folder_goes_before_a_name(site: Path, audio: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny_voices").mkdir()
    ran = command(site, tmp_path, "transcribe", "tiny_voices", audio)
    assert ran.returncode == 1
    assert "tiny_voices/model.json" in ran.stderr


def test_a_name_that_is_not_installed_is_told_with_those_that_are(site: Path, audio: Path, tmp_path: Path) -> None:
    ran = command(site, tmp_path, "transcribe", "tiny", audio)
    assert ran.returncode == 1
    assert "tiny: not a folder" in ran.stderr
    assert "or the name of an installed model: tiny_voices" in ran.stderr
    assert "Traceback" not in ran.stderr
    with pytest.raises(ExperimentError, match=r"tiny_voices: not a folder; .*no model is installed under a name"):
        load("tiny_voices")
    assert installed_models() == {}
    assert model_folder("a/b") == Path("a/b")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "Tiny"}, "expected small letters"),
        ({"name": "../x"}, "expected small letters"),
        ({"name": 'a"\nb = "c'}, "expected small letters"),
        ({"name": "a" * 60}, "expected small letters"),
        ({"license_expression": 'MIT"\nx = "'}, "expected an SPDX expression"),
        ({"notice": Path("/nowhere")}, "cannot be read"),
        ({"notice": Path("/dev/null")}, "cannot be read"),
    ],
)
def test_what_a_package_cannot_have_is_refused_and_nothing_is_written(
    exported: Path, notice: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    options = {"name": "tiny", "notice": notice, "license_expression": "CC0-1.0", **change}
    with pytest.raises(ConfigError, match=message):
        package(exported, tmp_path / "out", **options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_replaced(exported: Path, notice: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for out in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(OutputError, match="is there already"):
            package(exported, out, "tiny", notice, "CC0-1.0")
    with pytest.raises(LhucError, match="not a folder"):
        package(tmp_path / "none", tmp_path / "out", "tiny", notice, "CC0-1.0")
    assert [each.name for each in tmp_path.iterdir()] == ["mine.txt"]
