"""Figures of the code's structure, a column for each tree: for changes that are to make the code simpler.

    python benchmarks/structure.py [--places] [TREE...]        # this checkout unless given

A tree is a checkout of this repository at any commit. ``--places`` lists what each figure counts. Imports inside of
functions count as imports; a package's ``__init__`` is a module like any other.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE, TESTS = "lhuc_asr", "tests"
LONGEST_FILE, LONGEST_FUNCTION = 400, 80

# Names of an experiment's configuration, and of what holds the places of its files, in any tree.
CONFIGURATIONS = {"ExperimentConfig", "RecipeConfig", "Recipe"}
FOLDERS = {"Layout", "ExperimentFolder"}
TARGET_KINDS = {"best_path", "confidence", "lattice", "reference"}
# "There is no pass" is plain English; "it is no pass" is not.
IS_NO = re.compile(r"(?<![Tt]here )\b(?:is|are) no\b(?! longer)")
OF_DOC = re.compile(r"^\s*[A-Za-z_*][\w*, ]*: Of\b")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One file of a tree, parsed.

    Attributes:
        path: Path in the tree, with / between its parts.
        text: Content.
        tree: Parsed content.
    """

    path: str
    text: str
    tree: ast.Module

    @classmethod
    def of(cls, path: str, text: str) -> Source:
        """The file of a text."""
        return cls(path, text, ast.parse(text))

    @property
    def module(self) -> str:
        """Dotted name; of an ``__init__`` the package's."""
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    def at(self, node: ast.AST, what: str = "") -> str:
        """A place in the file, for a person."""
        return f"{self.path}:{getattr(node, 'lineno', 1)} {what}".rstrip()

    def functions(self) -> Iterator[Function]:
        """All functions and methods."""
        return (node for node in ast.walk(self.tree) if isinstance(node, Function))

    def texts(self) -> Iterator[tuple[int, str]]:
        """Lines of docstrings, messages and other strings, each with its number."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield from enumerate(node.value.splitlines(), start=node.lineno)


# A count: from files to the places that it counts.
Count = Callable[[Sequence[Source]], list[str]]


def in_package(sources: Sequence[Source], room: str = "") -> list[Source]:
    """The package's files, or those of one of its rooms."""
    folder = f"{PACKAGE}/{room}/" if room else f"{PACKAGE}/"
    return [source for source in sources if source.path.startswith(folder)]


def arguments(function: Function) -> list[ast.arg]:
    """All arguments that have a name."""
    listed = function.args
    return [*listed.posonlyargs, *listed.args, *listed.kwonlyargs]


def names(node: ast.AST | None) -> set[str]:
    """Names in an expression or in a file; of an import, those that it brings."""
    named = set()
    for part in () if node is None else ast.walk(node):
        match part:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(name=name) | ast.ClassDef(name=name):
                named.add(name)
            case ast.Constant(value=str(text)) if text.isidentifier():  # an annotation in quotes
                named.add(text)
    return named


def lines_of_pipeline(sources: Sequence[Source]) -> list[str]:
    """Every line of the files in pipeline/."""
    return [
        f"{source.path}:{number}"
        for source in in_package(sources, "pipeline")
        for number, _ in enumerate(source.text.splitlines(), start=1)
    ]


def carrying(first: set[str], second: set[str]) -> Count:
    """Signatures with an argument of one of the first types, and one of the second."""

    def count(sources: Sequence[Source]) -> list[str]:
        places = []
        for source in in_package(sources):
            for function in source.functions():
                types = [names(argument.annotation) for argument in arguments(function)]
                if any(first & each for each in types) and any(second & each for each in types):
                    places.append(source.at(function, function.name))
        return places

    return count


def alignment_names(sources: Sequence[Source]) -> list[str]:
    """Signatures with ``alignment: str``."""
    return [
        source.at(function, function.name)
        for source in in_package(sources)
        for function in source.functions()
        if any(argument.arg == "alignment" and "str" in names(argument.annotation) for argument in arguments(function))
    ]


def naming(name: str) -> Count:
    """Files that name a class: they define, import or use it."""

    def count(sources: Sequence[Source]) -> list[str]:
        return [source.path for source in in_package(sources) if name in names(source.tree)]

    return count


def dispatching_on_targets(sources: Sequence[Source]) -> list[str]:
    """Files that compare a ``kind`` with a kind of targets: ``==``, ``in``, ``match``, a table looked up by it."""
    return [source.path for source in in_package(sources) if any(map(_on_targets, ast.walk(source.tree)))]


def _on_targets(node: ast.AST) -> bool:
    match node:
        case ast.Compare(left=left, comparators=comparators):
            sides: list[ast.AST] = [left, *comparators]
        case ast.Match(subject=subject, cases=cases):
            sides = [subject, *(case.pattern for case in cases)]
        case ast.Subscript(value=table, slice=key):
            sides = [table, key]
        case _:
            return False
    has_kind = any(isinstance(side, ast.Attribute) and side.attr == "kind" for side in sides)
    constants = (part for side in sides for part in ast.walk(side) if isinstance(part, ast.Constant))
    return has_kind and any(constant.value in TARGET_KINDS for constant in constants)


def of_docs(sources: Sequence[Source]) -> list[str]:
    """Lines of docstrings in which an attribute or an argument is described by "Of ..."."""
    return [
        f"{source.path}:{number} {line.strip()}"
        for source in in_package(sources)
        for number, line in source.texts()
        if OF_DOC.match(line)
    ]


def found_variables(folder: str) -> Count:
    """Bindings of the name ``found``."""

    def count(sources: Sequence[Source]) -> list[str]:
        return [
            source.at(node)
            for source in sources
            if source.path.startswith(f"{folder}/")
            for node in ast.walk(source.tree)
            if (isinstance(node, ast.Name) and node.id == "found" and isinstance(node.ctx, ast.Store))
            or (isinstance(node, ast.arg) and node.arg == "found")
        ]

    return count


def is_no_lines(sources: Sequence[Source]) -> list[str]:
    """Lines of docstrings and messages with "is no" or "are no"."""
    return [
        f"{source.path}:{number} {line.strip()}"
        for source in in_package(sources)
        for number, line in source.texts()
        if IS_NO.search(line)
    ]


def circles(sources: Sequence[Source]) -> list[str]:
    """Groups of modules that import each other, directly or through others."""
    modules = {source.module: source for source in in_package(sources)}
    imported = {name: sorted(imports(source, set(modules))) for name, source in modules.items()}
    reached = {name: _reached(name, imported) for name in modules}
    groups = {
        frozenset(other for other in reached[name] if name in reached[other])
        for name in modules
        if name in reached[name]
    }
    return sorted(", ".join(sorted(group)) for group in groups)


def imports(source: Source, modules: set[str]) -> set[str]:
    """The package's modules that a file imports."""
    imported = set()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            imported |= inner & modules
            if inner - modules:
                imported.add(node.module)
    return imported & modules


def _reached(start: str, imported: dict[str, list[str]]) -> set[str]:
    """Modules that are imported from one, through any number of others."""
    reached: set[str] = set()
    waiting = list(imported[start])
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += imported[name]
    return reached


def long_files(sources: Sequence[Source]) -> list[str]:
    """Files with too many lines, tests too."""
    lengths = {source.path: len(source.text.splitlines()) for source in sources}
    return [f"{path} {lines} lines" for path, lines in lengths.items() if lines > LONGEST_FILE]


def long_functions(sources: Sequence[Source]) -> list[str]:
    """Functions with too many lines, tests too; decorators do not count."""
    lengths = [
        (source, each, (each.end_lineno or 0) - each.lineno + 1) for source in sources for each in source.functions()
    ]
    return [
        source.at(each, f"{each.name} {lines} lines") for source, each, lines in lengths if lines > LONGEST_FUNCTION
    ]


COUNTS: dict[str, Count] = {
    "lines of pipeline/": lines_of_pipeline,
    "signatures with a configuration and a folder": carrying(CONFIGURATIONS, FOLDERS),
    "signatures with a configuration and an Experiment": carrying(CONFIGURATIONS, {"Experiment"}),
    "signatures with alignment: str": alignment_names,
    "files that name Dnn": naming("Dnn"),
    "files that name MonophoneTopology": naming("MonophoneTopology"),
    "files that dispatch on the kind of targets": dispatching_on_targets,
    'docs of attributes and arguments that begin "Of"': of_docs,
    "variables called found: package": found_variables(PACKAGE),
    "variables called found: tests": found_variables(TESTS),
    'lines of text with "is no", "are no"': is_no_lines,
    "import circles": circles,
    f"files over {LONGEST_FILE} lines, tests too": long_files,
    f"functions over {LONGEST_FUNCTION} lines, tests too": long_functions,
}


def read_tree(folder: Path) -> list[Source]:
    """The Python files of a tree's package and tests."""
    paths = [path for part in (PACKAGE, TESTS) for path in sorted((folder / part).rglob("*.py"))]
    return [Source.of(path.relative_to(folder).as_posix(), path.read_text(encoding="utf-8")) for path in paths]


def main() -> None:
    """Print the figures of some trees, or their places."""
    from timing import show

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("trees", nargs="*", type=Path, default=[ROOT], metavar="TREE", help="a checkout")
    parser.add_argument("--places", action="store_true", help="list what each figure counts")
    options = parser.parse_args()
    trees = {tree.resolve().name: read_tree(tree.resolve()) for tree in options.trees}
    if empty := [name for name, sources in trees.items() if not in_package(sources)]:
        sys.exit(f"{', '.join(empty)}: no {PACKAGE}/ in this folder; give a checkout of the repository")
    counted = {figure: {tree: count(sources) for tree, sources in trees.items()} for figure, count in COUNTS.items()}
    rows = [[figure, *(len(places) for places in by_tree.values())] for figure, by_tree in counted.items()]
    show("Structure", ["", *trees], rows)
    for figure, by_tree in counted.items() if options.places else ():
        for tree, places in by_tree.items():
            if figure != "lines of pipeline/":
                sys.stdout.write("\n".join([f"\n{figure}, {tree}:", *(f"  {place}" for place in places)]) + "\n")


if __name__ == "__main__":
    main()
