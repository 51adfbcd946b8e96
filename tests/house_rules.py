"""The house rules of what imports what: rooms, modules and libraries.

A function a rule, each from the package's parsed files to a list of breaches; test_architecture.py runs them on the
package, and on small bad snippets. The rules of what is written are in code_rules.py.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

from parsed_package import PACKAGE, Source, dotted, imports, is_own, module_names

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
BELOW["serving"] = BELOW["recognizer"] | {"recognizer"}
BELOW["pipeline"] = set(BELOW) - {"ppnet", "serving"} | {"corpus"}
BELOW["study"] = BELOW["pipeline"] | {"pipeline"}
BELOW["web"] = BELOW["study"] | {"study"}
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
    "tensorboard": ("base/event_files.py",),
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


def third_party(sources: list[Source]) -> Iterator[tuple[Source, ast.AST, str]]:
    """Imports of libraries that are neither ours nor Python's: file, place, top-level name."""
    for source in sources:
        for node, module in imports(source, set()):
            library = module.split(".")[0]
            if library and library != PACKAGE and library not in sys.stdlib_module_names:
                yield source, node, library


def declared_distributions(pyproject: str) -> dict[str, set[str]]:
    """Normalised names of the dependencies of each extra, and under "" of all; without those of development."""
    project = tomllib.loads(pyproject)["project"]
    groups = {"": project["dependencies"], **project.get("optional-dependencies", {})}
    return {
        name: {normalised(re.split(r"[\s<>=!~;\[]", line, maxsplit=1)[0]) for line in lines}
        for name, lines in groups.items()
        if name not in ("dev", "docs", "zoo")
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
