"""The house rules that a machine can check: who imports whom, what is where, what is nowhere.

A function a rule, each from the package's parsed files to a list of breaches; test_architecture.py runs them on the
package, and on small bad snippets.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "lhuc_asr"

# What each room may import, besides itself: the rooms below it.
BELOW = {
    "base": set(),
    "lhuc": {"base"},
    "audio": {"base"},
    "lang": {"base"},
    # lang: a transcript is normalised like a lexicon and the language model's text.
    "corpus": {"lang", "audio", "base"},
    "features": {"audio", "base"},
    # Not corpus: a recording is an audio.Utterance, wherever it comes from.
    "hmm": {"features", "lang", "audio", "base"},
    # Not lhuc: amplitudes attach to our network exactly as to anyone's.
    "nnet": {"features", "base"},
    "decode": {"hmm", "lang", "base"},
    "score": {"audio", "base"},
    "adapt": {"decode", "hmm", "nnet", "features", "audio", "lhuc", "base"},
    "ppnet": {"score", "lhuc", "base"},
    # Not corpus, nor nnet's trainer: a trained recognizer knows nothing of training.
    "recognizer": {"adapt", "decode", "hmm", "nnet", "features", "lang", "audio", "lhuc", "base"},
}
BELOW["pipeline"] = set(BELOW) - {"ppnet"} | {"corpus"}
BELOW["study"] = BELOW["pipeline"] | {"pipeline"}
BELOW["cli"] = set(BELOW)

# A library that one place alone may import: a file, or a folder with a slash at its end.
KEPT_TO = {
    "espeakng_loader": ("base/espeak.py",),
    # Its import stalls for half a minute where it is cold.
    "librosa": ("audio/pitch.py",),
    "matplotlib": ("score/",),
    # What Windows does not have is in one place, beside what it has.
    **dict.fromkeys(("fcntl", "msvcrt", "resource", "pwd", "grp", "termios"), ("base/descriptor_lock.py",)),
    "praatio": ("recognizer/transcript_formats.py",),
    "silero_vad": ("audio/voice_activity.py",),
    "pysubs2": ("recognizer/transcript_formats.py",),
    # kaldilm aborts its process on a malformed file; git tells run.json the commit.
    "subprocess": ("decode/components.py", "base/experiment_folder.py"),
}
# A room that is usable without the others' libraries, with all that it imports from the rooms below.
LIBRARIES_OF = {"lhuc": {"torch", "safetensors"}}
# The libraries that the toolkit is built on: each of them is used.
PILLARS = {"torch", "torchaudio", "soxr", "soundfile", "numpy", "jiwer"}
# Import names that differ from the name of the distribution.
DISTRIBUTIONS = {"yaml": "pyyaml", "sklearn": "scikit-learn", "pydantic_core": "pydantic"}
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
FORBIDDEN_CALLS = {"eval", "exec", "os.system", "os.popen", "torch.load", "torch.save"}
NOUNLESS = {"utils", "util", "helpers", "helper", "common", "misc"}


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
    folder = ROOT / PACKAGE
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


def unknown_rooms(sources: list[Source]) -> list[str]:
    """Code in no room: a folder that BELOW doesn't know, or a file beside the rooms."""
    return [
        f"{source.path}: no room of the design"
        for source in sources
        if source.room not in BELOW and source.path not in ("__init__.py", "__main__.py")
    ]


def upward_imports(sources: list[Source]) -> list[str]:
    """Imports of a room above or beside; the package's own __init__ may re-export from any."""
    breaches = []
    for source in sources:
        for node, module in imports(source, module_names(sources)):
            room = module.split(".")[1] if is_own(module) and "." in module else ""
            if source.room and room and room not in BELOW.get(source.room, set()) | {source.room}:
                breaches.append(source.at(node, f"{source.room} may not import {room}"))
    return breaches


def package_imports(sources: list[Source]) -> list[str]:
    """Imports that are relative, or go through a package's __init__ instead of the defining module."""
    packages = {source.module for source in sources if source.is_package}
    modules = module_names(sources)
    breaches = []
    for source in sources:
        for node, module in imports(source, modules):
            if module.startswith("."):
                breaches.append(source.at(node, f"relative import {module}"))
            elif module in packages:
                breaches.append(source.at(node, f"imports the package {module}, not the defining module"))
            elif is_own(module) and module not in modules:
                breaches.append(source.at(node, f"{module} does not exist"))
    return breaches


def circles(sources: list[Source]) -> list[str]:
    """A circle of modules; imports inside functions count, and so do the re-exports of every __init__."""
    modules = module_names(sources)
    graph = {source.module: {module for _, module in imports(source, modules) if is_own(module)} for source in sources}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return ["circle: " + " -> ".join(error.args[1])]
    return []


def prints_and_asserts(sources: list[Source]) -> list[str]:
    """``print`` outside cli, ``assert`` anywhere."""
    breaches = []
    for source in sources:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Assert):
                breaches.append(source.at(node, "assert: raise an error of base/errors.py"))
            if isinstance(node, ast.Call) and dotted(node.func) == "print" and source.room != "cli":
                breaches.append(source.at(node, "print: return it, or log it"))
    return breaches


def missing_docstrings(sources: list[Source]) -> list[str]:
    """Public modules, classes, functions and methods without a docstring."""
    return [
        source.at(node, f"{name} has no docstring")
        for source in sources
        for name, node in public_names(source.tree, source.module)
        if not ast.get_docstring(node)
    ]


Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def public_names(node: Documented, name: str) -> Iterator[tuple[str, Documented]]:
    """The node and what is public in it; functions inside functions are nobody else's business.

    An overload's docstring is its implementation's, a setter's the property's.
    """
    yield name, node
    if isinstance(node, ast.Module | ast.ClassDef):
        for child in node.body:
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                second = any(dotted(d).split(".")[-1] in {"overload", "setter"} for d in child.decorator_list)
                if not child.name.startswith("_") and not second:
                    yield from public_names(child, f"{name}.{child.name}")


def misplaced_libraries(sources: list[Source]) -> list[str]:
    """Imports of a library outside the one place that it is kept to."""
    return [
        source.at(node, f"{library} is imported in {' and '.join(places)} only")
        for source in sources
        for node, module in imports(source, set())
        for library, places in KEPT_TO.items()
        if module.split(".")[0] == library and not source.path.startswith(places)
    ]


def foreign_libraries(sources: list[Source]) -> list[str]:
    """Libraries in a room that promises to do without them, or in a module below that it imports."""
    return [
        source.at(node, f"{room} does without {library}")
        for room, libraries in LIBRARIES_OF.items()
        for source, node, library in third_party(reached(sources, room))
        if library not in libraries
    ]


def reached(sources: list[Source], room: str) -> list[Source]:
    """The files of a room, and those that they import, directly or by others."""
    by_module = {source.module: source for source in sources}
    todo, seen = [source for source in sources if source.room == room], {}
    while todo:
        source = todo.pop()
        if source.module not in seen:
            seen[source.module] = source
            todo += [by_module[module] for _, module in imports(source, set(by_module)) if module in by_module]
    return list(seen.values())


def dangerous_code(sources: list[Source]) -> list[str]:
    """Pickles, shells, evaluated text: whoever gives us a file must not thereby run a program."""
    breaches = []
    for source in sources:
        for node, module in imports(source, set()):
            if module.split(".")[0] in FORBIDDEN_MODULES:
                breaches.append(source.at(node, f"import of {module}"))
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                breaches += [
                    source.at(node, f"import of {node.module}.{alias.name}")
                    for alias in node.names
                    if f"{node.module}.{alias.name}" in FORBIDDEN_CALLS
                ]
            if isinstance(node, ast.Call):
                if dotted(node.func) in FORBIDDEN_CALLS:
                    breaches.append(source.at(node, f"call of {dotted(node.func)}"))
                for keyword in node.keywords:
                    constant = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
                    if keyword.arg in {"shell", "allow_pickle"} and constant is not False:
                        breaches.append(source.at(node, f"{keyword.arg} is not False"))
    return breaches


def third_party(sources: list[Source]) -> Iterator[tuple[Source, ast.AST, str]]:
    """Imports of libraries that are neither ours nor Python's: file, place, top-level name."""
    for source in sources:
        for node, module in imports(source, set()):
            library = module.split(".")[0]
            if library and library != PACKAGE and library not in sys.stdlib_module_names:
                yield source, node, library


def declared_distributions(pyproject: str) -> dict[str, set[str]]:
    """Normalised names of the dependencies of each extra, and under "" of all; without tools of development."""
    project = tomllib.loads(pyproject)["project"]
    groups = {"": project["dependencies"], **project.get("optional-dependencies", {})}
    return {
        name: {normalised(re.split(r"[\s<>=!~;\[]", line, maxsplit=1)[0]) for line in lines}
        for name, lines in groups.items()
        if name not in ("dev", "docs")
    }


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def undeclared_imports(sources: list[Source], pyproject: str) -> list[str]:
    """Imports of libraries that pyproject.toml doesn't name."""
    declared = set().union(*declared_distributions(pyproject).values())
    return [
        source.at(node, f"{library} is not declared in pyproject.toml")
        for source, node, library in third_party(sources)
        if normalised(DISTRIBUTIONS.get(library, library)) not in declared
    ]


def unguarded_extras(sources: list[Source], pyproject: str) -> list[str]:
    """Imports of an extra's library outside ``with extra(...)`` of that extra: a missing one would not be named."""
    declared = declared_distributions(pyproject)
    breaches = []
    for source in sources:
        guards = dict(guarded_imports(source))
        for _, node, library in third_party([source]):
            distribution = normalised(DISTRIBUTIONS.get(library, library))
            owners = {name for name, group in declared.items() if distribution in group}
            if owners and "" not in owners and guards.get(node) not in owners:
                breaches.append(source.at(node, f"{library}: import it in with extra({' or '.join(sorted(owners))})"))
    return breaches


def guarded_imports(source: Source) -> Iterator[tuple[ast.AST, str]]:
    """The imports in ``with extra("name")``, each with the name."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.With):
            for call in (item.context_expr for item in node.items):
                if (
                    isinstance(call, ast.Call)
                    and dotted(call.func) == "extra"
                    and isinstance(call.args[0], ast.Constant)
                ):
                    yield from ((inner, call.args[0].value) for inner in node.body)


def unused_pillars(sources: list[Source]) -> list[str]:
    """Libraries of the design that nothing imports."""
    used = {library for _, _, library in third_party(sources)}
    return [f"{library} is imported nowhere" for library in sorted(PILLARS - used)]


def nounless_files(sources: list[Source]) -> list[str]:
    """Files and folders named after nothing."""
    return [
        f"{source.path}: name it after what it holds"
        for source in sources
        if NOUNLESS & set(source.path.removesuffix(".py").split("/"))
    ]


def busy_inits(sources: list[Source]) -> list[str]:
    """__init__.py files that do more than a docstring, imports, __all__ and __version__.

    The package's own may also have ``__getattr__`` and ``__dir__``: re-exports that load nothing until used.
    """
    breaches = []
    for source in sources:
        if not source.is_package:
            continue
        for position, node in enumerate(source.tree.body):
            docstring = position == 0 and ast.get_docstring(source.tree) is not None
            lazy = source.path == "__init__.py" and getattr(node, "name", "") in {"__getattr__", "__dir__"}
            if not (docstring or lazy or is_import(node) or is_name_list(node)):
                breaches.append(source.at(node, "an __init__.py holds a docstring, imports, __all__, __version__"))
    return breaches


def is_import(node: ast.stmt) -> bool:
    """An import without a star, or ``if TYPE_CHECKING:`` around such imports."""
    if isinstance(node, ast.If):
        return dotted(node.test).endswith("TYPE_CHECKING") and all(map(is_import, node.body)) and not node.orelse
    return isinstance(node, ast.Import | ast.ImportFrom) and all(alias.name != "*" for alias in node.names)


def is_name_list(node: ast.stmt) -> bool:
    """An assignment to __all__ or __version__."""
    if isinstance(node, ast.AnnAssign):
        return dotted(node.target) in {"__all__", "__version__"}
    return isinstance(node, ast.Assign) and all(dotted(target) in {"__all__", "__version__"} for target in node.targets)


# The longest file and function that are read in one piece.
LONGEST_FILE, LONGEST_FUNCTION = 400, 80


def long_pieces(sources: list[Source]) -> list[str]:
    """Files and functions that are too long to be read in one piece."""
    breaches = []
    for source in sources:
        lines = source.text.count("\n")
        if lines > LONGEST_FILE:
            breaches.append(f"{source.path}: {lines} lines, more than {LONGEST_FILE}; split it by noun")
        for node in ast.walk(source.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > LONGEST_FUNCTION:
                    breaches.append(source.at(node, f"{node.name} has {length} lines, more than {LONGEST_FUNCTION}"))
    return breaches


def attributes_without_noun(sources: list[Source]) -> list[str]:
    """Attribute docs that begin "Of": an attribute is described by what it is, "Number of utterances"."""
    return [
        source.at(node, f"an attribute's description begins with its noun, not with 'Of': {line.strip()}")
        for source in sources
        for node in ast.walk(source.tree)
        if isinstance(node, Documented)
        for line in (ast.get_docstring(node) or "").splitlines()
        if re.match(r"\s+[\w, ]+: Of ", line)
    ]


def vague_variables(sources: list[Source]) -> list[str]:
    """Variables called ``found``: a variable carries the name of what it holds."""
    return [
        source.at(node, "a variable called 'found': name it after what it holds")
        for source in sources
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Name) and node.id == "found" and isinstance(node.ctx, ast.Store)
    ]
