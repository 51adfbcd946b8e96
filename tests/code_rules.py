"""The house rules of what is written: docstrings, lengths and names, and what is nowhere.

A function a rule, each from the package's parsed files to a list of breaches; test_architecture.py runs them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from parsed_package import Source, dotted, imports

FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
FORBIDDEN_CALLS = {"eval", "exec", "os.system", "os.popen", "torch.load", "torch.save"}
NOUNLESS = {"utils", "util", "helpers", "helper", "common", "misc"}
# The longest file and function that are read in one piece.
LONGEST_FILE, LONGEST_FUNCTION = 400, 80

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


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
