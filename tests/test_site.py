"""The documentation site: its links lead somewhere, and it asks nothing of other servers."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mkdocs_hooks", ROOT / "mkdocs_hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Page(HTMLParser):
    """What a page of HTML loads, links to, and can be linked to at."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if "id" in given:
            self.ids.add(given["id"])
        if tag == "a":
            self.links += [given["href"]] if "href" in given else []
        else:
            self.loads += [given[name] for name in ("src", "href") if name in given]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Page]:
    """The pages of the site, built as ``make site`` builds it."""
    folder = tmp_path_factory.mktemp("site").resolve()
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", folder],
        cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return {path: Page(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html") if path.name != "404.html"}


def test_every_link_of_the_site_leads_to_a_file_and_an_anchor_of_it(site: dict[Path, Page]) -> None:
    for path, page in site.items():
        for link in [*page.links, *page.loads]:
            if re.match(r"\w+:", link):
                continue
            target, _, anchor = unquote(link).partition("#")
            place = Path(os.path.normpath(path.parent / target)) if target else path
            assert place.is_file(), (path, link)
            assert not anchor or anchor in site[place].ids, (path, link)


def test_the_site_loads_nothing_from_other_servers(site: dict[Path, Page]) -> None:
    folder = next(path.parent for path in site if path.name == "overview.html")
    loads = [load for page in site.values() for load in page.loads]
    assert loads
    assert not [load for load in loads if re.match(r"(\w+:)?//", load)]
    for sheet in folder.rglob("*.css"):
        assert not re.findall(r"(?:url\(|@import )[\"']?(?:https?:)?//", sheet.read_text(encoding="utf-8")), sheet


def test_the_site_has_results_of_every_recipe_with_their_figures(site: dict[Path, Page]) -> None:
    results = {path.stem: page for path, page in site.items() if path.parent.name == "results"}
    assert set(results) == {
        path.parent.name for pattern in ("*", "recipes/*") for path in ROOT.glob(f"{pattern}/RESULTS.md")
    }
    for name, page in results.items():
        figures = {path.name for path in ROOT.glob(f"recipes/{name}/figures/*.png")}
        assert figures <= {Path(load).name for load in page.loads}, name


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name in ("README.md", "docs/a.md", "docs/api/lhuc.md", "recipes/x/RESULTS.md", "recipes/x/figures/f.png",
                 "recipes/x/config.yaml", "lhuc_asr/lhuc/bank.py", "lhuc_asr/study/toy.py"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("source", "written", "led"),
    [
        ("docs/a.md", "[r](../recipes/x/RESULTS.md#one)", "[r](results/x.md#one)"),
        ("docs/a.md", "[r](../README.md)", "[r](overview.md)"),
        ("docs/api/lhuc.md", "[a](../a.md)", "[a](../a.md)"),
        ("recipes/x/RESULTS.md", "![f](figures/f.png)", "![f](x/f.png)"),
        ("recipes/x/RESULTS.md", "[`a`](../../docs/a.md)", "[`a`](../a.md)"),
        ("README.md", "[a](docs/a.md), [b](docs/a.md)", "[a](a.md), [b](a.md)"),
        ("docs/a.md", "[bank](../lhuc_asr/lhuc/bank.py)", "[bank](api/lhuc.md)"),  # a room with a page
        ("docs/a.md", "[toy](../lhuc_asr/study/toy.py)", "toy"),  # one without
        ("docs/a.md", "[c](../recipes/x/config.yaml)", "c"),
        ("docs/a.md", "[n](../recipes/y/RESULTS.md)", "[n](../recipes/y/RESULTS.md)"),  # strict refuses it
        ("docs/a.md", "[h](https://x.org/a.md) [s](#s) `[c](../README.md)`", None),
        ("docs/a.md", "```\n[c](../README.md)\n```\n", None),
    ],
)
def test_links_are_led(hooks: ModuleType, repository: Path, source: str, written: str, led: str | None) -> None:
    places = hooks.brought(repository) | {"docs/a.md": "a.md", "docs/api/lhuc.md": "api/lhuc.md"}
    assert hooks.relinked(written, source, places, repository) == (written if led is None else led)
