"""The files by which the project is installed, cited and checked elsewhere: they agree with what they speak of."""

from __future__ import annotations

import http.server
import re
import shlex
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from lhuc_asr.base.extras import EXTRAS
from lhuc_asr.base.version import __version__
from lhuc_asr.cli.recipes import recipe_names

ROOT = Path(__file__).parents[1]
# What else than an installation the install page types.
OTHERS = (["make", "demo"], ["uv", "venv"])


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
            assert words[:2] == ["pip", "install"] or words[:3] == ["uv", "pip", "install"] or words in OTHERS


@pytest.fixture
def index() -> Iterator[Callable[..., str]]:
    """An index of packages that has some files: ``index("torch-2.11.0+cpu...")`` returns its address."""
    files: list[str] = []

    class Pages(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.strip("/").split("/")[-1]
            links = [f'<a href="/whl/cpu/{file}">' for file in files if file.startswith(f"{name}-")]
            self.send_response(200 if links else 404)
            self.end_headers()
            self.wfile.write("".join(links).encode())

        def log_message(self, *arguments: object) -> None:
            pass

    def serve(*names: str) -> str:
        files[:] = [name.replace("+", "%2B") for name in names]
        return f"http://127.0.0.1:{server.server_port}/whl/cpu"

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield serve
        server.shutdown()


def installation(monkeypatch: pytest.MonkeyPatch, *variables: str) -> str:
    """The line by which ``make`` installs the package, as it would run it."""
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    ran = subprocess.run(
        ["make", "--dry-run", "--always-make", "setup", f"PYTHON={sys.executable}", *variables],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    [line] = [line for line in ran.stdout.splitlines() if "--editable" in line]
    return line


def torch_version() -> str:
    """The version of torch that pip takes from an index that has all: the highest that is allowed."""
    return re.search(r"^TORCH_VERSION := (\S+)$", text_of("Makefile"), re.M)[1]


def test_make_takes_torch_without_cuda_where_the_pair_is_offered(index, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = [f"{name}-{torch_version()}+cpu-cp311-cp311-linux_x86_64.whl" for name in ("torch", "torchaudio")]
    address = index(*pair)
    assert f"--extra-index-url {address} --editable" in installation(monkeypatch, f"TORCH_INDEX={address}", "GPU=")
    for variables in (
        [f"TORCH_INDEX={address}", "GPU=/usr/bin/nvidia-smi"],  # its wheels are for processors alone
        [f"TORCH_INDEX={index(pair[0])}", "GPU="],
        [f"TORCH_INDEX={index(*(file.replace('2.', '1.') for file in pair))}", "GPU="],
        ["TORCH_INDEX=", "GPU="],
        ["TORCH_INDEX=http://127.0.0.1:1/whl/cpu", "GPU="],
    ):
        assert "--extra-index-url" not in installation(monkeypatch, *variables), variables


def test_the_versions_of_torch_are_said_alike() -> None:
    ranges = {line for line in project()["dependencies"] if re.match(r"torch(audio)?\b", line)}
    [span] = {re.sub(r"^torch(audio)?", "", line) for line in ranges}
    lowest, highest = re.fullmatch(r">=([\d.]+),<=([\d.]+)", span).groups()
    assert len(ranges) == 2
    assert f"torch {lowest} to {torch_version()}" in text_of("docs/install.md")
    assert f"torch=={torch_version()} torchaudio=={torch_version()}" in text_of("lhuc_asr/base/pairs.py")
    assert highest == torch_version()
    assert [int(part) for part in lowest.split(".")] <= [int(part) for part in highest.split(".")]
