"""The files by which the project is installed, cited and checked elsewhere: they agree with what they speak of."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import yaml

from lhuc_asr.base.extras import EXTRAS
from lhuc_asr.base.version import __version__
from lhuc_asr.cli.recipes import recipe_names

ROOT = Path(__file__).parents[1]


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def project() -> dict:
    return tomllib.loads(text_of("pyproject.toml"))["project"]


def test_the_citation_is_of_this_version_and_licence() -> None:
    citation = yaml.safe_load(text_of("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["version"] == __version__
    assert citation["license"] == project()["license"]
    [paper] = citation["references"]
    assert f"*{paper['title']}*" in " ".join(text_of("docs/equations.md").split())
    assert paper["identifiers"][0]["value"].removeprefix("arXiv:") in text_of("README.md")


def test_the_workflow_runs_what_ci_runs_on_pythons_that_are_supported() -> None:
    job = yaml.safe_load(text_of(".github/workflows/check.yml"))["jobs"]["check"]
    assert job["steps"][-1] == {"run": ".ci/run"}
    lowest, limit = re.findall(r"3\.(\d+)", project()["requires-python"])
    for python in job["strategy"]["matrix"]["python"]:
        assert int(lowest) <= int(python.removeprefix("3.")) < int(limit)


def test_the_makefile_takes_the_pythons_of_the_package() -> None:
    lowest, limit = map(int, re.findall(r"3\.(\d+)", project()["requires-python"]))
    makefile = text_of("Makefile")
    assert f"(3, {lowest}) <= sys.version_info[:2] <= (3, {limit - 1})" in makefile
    assert re.findall(r"command -v python3\.(\d+)", makefile) == [str(minor) for minor in range(lowest, limit)]


def test_the_dockerfile_makes_what_the_makefile_has() -> None:
    made = re.findall(r'make"?,? "?(\w+)', text_of("Dockerfile").split("FROM", 1)[1])
    assert made[-2:] == ["setup", "demo"]
    targets = set(re.findall(r"^(\w+):", text_of("Makefile"), re.M))
    assert set(made[-2:]) <= targets


def test_the_install_page_names_extras_and_recipes_that_there_are() -> None:
    page = text_of("docs/install.md")
    named = {
        name for group in re.findall(r"lhuc_asr\[([\w,]+)\]|`\[(\w+)\]`", page) for name in ",".join(group).split(",")
    }
    assert named - {""} == EXTRAS.keys()
    for line in re.findall(r"lhuc-asr (?:run|init) (\w+)", page):
        assert line in recipe_names()
    for block in re.findall(r"^```sh\n(.*?)^```", page, re.M | re.S):
        for line in block.splitlines():
            words = [word for word in shlex.split(line) if "=" not in word]
            assert words[:2] == ["pip", "install"] or words == ["make", "demo"]
