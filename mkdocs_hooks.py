"""Hooks of the documentation site: pages from outside ``docs/``, and links as the repository has them.

A page links to files by their places in the repository, so that its links work on GitHub and in a checkout. The site
has some files from outside ``docs/``, at other places (``site_path``). A link to a page or a figure is led there, one
to a room of the package to its API page. A link to another file of the repository becomes its text, since the site has
no copy of the file. A link to nothing is left as it is, and fails the strict build.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent
BROUGHT = (
    "README.md",
    "CONTRIBUTING.md",
    "benchmarks/RESULTS.md",
    "recipes/*/README.md",
    "recipes/*/RESULTS.md",
    "recipes/*/figures/*.png",
)
CODE = r"^```.*?^```$|`[^`]+`"
# Code, in which nothing is a link, or an inline link or image: mark, text, target, anchor.
LINK = re.compile(rf"{CODE}|(!?)\[((?:`[^`]*`|[^\[\]`])*)\]\(([^)\s#]+)(#[^)\s]+)?\)", re.M | re.S)


def site_path(path: str) -> str:
    """Where the site has a file from outside ``docs/``.

    Args:
        path: The file's path in the repository; it matches one of ``BROUGHT``.
    """
    match PurePosixPath(path).parts:
        case ("recipes", recipe, "README.md"):
            return f"recipes/{recipe}.md"
        case ("recipes", recipe, "figures", figure):
            return f"results/{recipe}/{figure}"
        case (*_, folder, "RESULTS.md"):
            return f"results/{folder}.md"
        case _:
            return "overview.md" if path == "README.md" else path.lower()


def brought(root: Path) -> dict[str, str]:
    """The files from outside ``docs/``: path in the repository, path in the site."""
    paths = [path.relative_to(root).as_posix() for pattern in BROUGHT for path in sorted(root.glob(pattern))]
    return {path: site_path(path) for path in paths}


def relinked(markdown: str, source: str, places: Mapping[str, str], root: Path = ROOT) -> str:
    """A page with its links led to where the site has their targets.

    Args:
        markdown: The page's text. Links in code are not links.
        source: The page's path in the repository.
        places: The site's files: path in the repository, path in the site.
        root: The repository.
    """

    def led(link: re.Match[str]) -> str:
        mark, text, target, anchor = link.groups(default="")
        if not target or re.match(r"\w+:", target):
            return link[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        room = path.split("/")[1] if path.startswith("lhuc_asr/") else ""
        place = places.get(path) or places.get(f"docs/api/{room}.md")
        if place:
            return f"{mark}[{text}]({posixpath.relpath(place, posixpath.dirname(places[source]) or '.')}{anchor})"
        return text if (root / path).exists() else link[0]

    return LINK.sub(led, markdown)


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the files from outside ``docs/``."""
    for path, place in brought(ROOT).items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead a page's links."""
    outside = brought(ROOT)
    own = {f"docs/{file.src_uri}": file.src_uri for file in files if file.src_uri not in outside.values()}
    places = own | outside
    source = next(path for path, place in places.items() if place == page.file.src_uri)
    return relinked(markdown, source, places)
