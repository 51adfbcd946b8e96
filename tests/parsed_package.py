"""The package as parsed files, for the rules that a machine can check."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "lhuc_asr"


@dataclass(frozen=True)
class Source:
    """One file of the package: its path below the package's folder, parsed."""

    path: str
    text: str
    tree: ast.Module

    @property
    def module(self) -> str:
        """Dotted name, a package's without ``__init__``."""
        parts = [PACKAGE, *self.path.removesuffix(".py").split("/")]
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def room(self) -> str:
        """The folder of the package that the file is in, "" for the package's own ``__init__``."""
        return self.path.split("/")[0] if "/" in self.path else ""

    @property
    def is_package(self) -> bool:
        """Whether it is an ``__init__.py``."""
        return self.path.split("/")[-1] == "__init__.py"

    def at(self, node: ast.AST, text: str) -> str:
        """A breach, with the place where it is."""
        return f"{self.path}:{getattr(node, 'lineno', 1)}: {text}"


def parse(files: dict[str, str]) -> list[Source]:
    return [Source(path, text, ast.parse(text)) for path, text in files.items()]


def package_sources() -> list[Source]:
    return sources_below(ROOT / PACKAGE)


def sources_below(folder: Path) -> list[Source]:
    return parse({file.relative_to(folder).as_posix(): file.read_text() for file in sorted(folder.rglob("*.py"))})


def is_own(module: str) -> bool:
    return module == PACKAGE or module.startswith(PACKAGE + ".")


def imports(source: Source, modules: set[str]) -> Iterator[tuple[ast.AST, str]]:
    """Every module that the file imports, wherever in the file; for own ``from`` imports the defining module.

    ``from lhuc_asr.base import errors`` is an import of lhuc_asr.base.errors where that is a module, and of
    the package lhuc_asr.base where it is not.
    """
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield node, "." * node.level + (node.module or "")
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield node, inner if is_own(node.module) and inner in modules else node.module


def dotted(node: ast.AST) -> str:
    """``a.b.c`` as text, "" for anything that is not a dotted name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and dotted(node.value):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def module_names(sources: list[Source]) -> set[str]:
    return {source.module for source in sources}
