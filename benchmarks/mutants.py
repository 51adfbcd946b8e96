"""Whether the tests notice a broken line: lines drawn by a seed are broken one at a time, and each must fail a test.

    python benchmarks/mutants.py [--seed 1] [--count 10] [--rooms lhuc adapt decode hmm]

A line is broken by one small change of its meaning: a comparison, an arithmetic operator, a condition or a returned
value is changed. The tree is copied, so that the checkout stays as it is. All tests must pass on the copy
before any line is broken. A broken line is tried on the tests of its file first, then on those of its room and of the
rooms above it. A line that no test notices survives, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("lhuc", "adapt", "decode", "hmm")
# The tests that are run if those of the file and of the room notice nothing.
ABOVE = ("tests/adapt", "tests/recognizer", "tests/pipeline")
TIMEOUT_SECONDS = 400

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.GtE,
    ast.LtE: ast.Gt,
    ast.Gt: ast.LtE,
    ast.GtE: ast.Lt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.MatMult: ast.Add,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
}


@dataclass(frozen=True)
class Mutant:
    """A broken line.

    Attributes:
        path: The file, relative to the tree.
        line: Number of the line, from 1.
        what: The change, in words.
        text: The whole file with the line broken.
    """

    path: Path
    line: int
    what: str
    text: str


def mutants(path: Path, source: str) -> Iterator[Mutant]:
    """All broken versions of a file, one for each place that can be changed."""
    tree = ast.parse(source)
    for number, node in enumerate(ast.walk(tree)):
        for what in changes(node):
            broken = copy.deepcopy(tree)
            twin = next(each for place, each in enumerate(ast.walk(broken)) if place == number)
            apply(twin, what)
            yield Mutant(path, getattr(node, "lineno", 0), what, ast.unparse(ast.fix_missing_locations(broken)) + "\n")


def changes(node: ast.AST) -> list[str]:
    """Names of the changes that break a node; texts, types and docstrings have none."""
    match node:
        case ast.Compare(ops=[op]) if type(op) in COMPARISONS:
            return ["comparison"]
        case ast.BinOp(op=op, left=left) if type(op) in OPERATORS and not is_text(left):
            return ["operator"]
        case ast.AugAssign(op=op, value=value) if type(op) in OPERATORS and not is_text(value):
            return ["operator"]
        case ast.BoolOp():
            return ["and for or"]
        case ast.UnaryOp(op=ast.Not()):
            return ["condition"]
        case ast.If() | ast.While() | ast.IfExp():
            return ["condition"]
        case ast.Return(value=value) if value is not None and not is_text(value):
            return ["returned value"]
        case _:
            return []


def is_text(node: ast.AST) -> bool:
    """Whether a node is a string, or one that is put together."""
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def apply(node: ast.AST, what: str) -> None:
    """Break a node, in place."""
    match node:
        case ast.Compare():
            node.ops = [COMPARISONS[type(node.ops[0])]()]
        case ast.BinOp() | ast.AugAssign():
            node.op = OPERATORS[type(node.op)]()
        case ast.BoolOp():
            node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        case ast.UnaryOp():
            node.op, node.operand = ast.Not(), ast.UnaryOp(ast.Not(), node.operand)
        case ast.If() | ast.While() | ast.IfExp():
            node.test = ast.UnaryOp(ast.Not(), node.test)
        case ast.Return():
            node.value = ast.Constant(None)
        case _:
            raise ValueError(f"{what}: no such change of a {type(node).__name__}")


def drawn(tree: Path, rooms: tuple[str, ...], seed: int, count: int) -> list[Mutant]:
    """Broken lines, each on another line, drawn evenly from all lines of the rooms that can be broken."""
    by_line: dict[tuple[Path, int], list[Mutant]] = {}
    for room in rooms:
        for file in sorted((tree / "lhuc_asr" / room).glob("*.py")):
            path = file.relative_to(tree)
            for mutant in mutants(path, file.read_text(encoding="utf-8")):
                by_line.setdefault((path, mutant.line), []).append(mutant)
    generator = random.Random(seed)
    lines = generator.sample(sorted(by_line), count)
    return [generator.choice(by_line[line]) for line in lines]


def tests_of(tree: Path, path: Path) -> list[str]:
    """The tests that a broken line of a file is tried on, in their order."""
    room = path.parts[1]
    own = [each.relative_to(tree).as_posix() for each in tree.glob(f"tests/{room}/test_{room}_{path.stem}*.py")]
    return list(dict.fromkeys((*sorted(own), f"tests/{room}", *ABOVE)))


def first_failing(tree: Path, tests: Iterable[str]) -> str | None:
    """The first tests that do not pass; None if all pass."""
    for each in tests:
        environment = {**os.environ, "PYTHONPATH": str(tree)}
        command = [sys.executable, "-m", "pytest", each, "-x", "-q", "-p", "no:cacheprovider"]
        try:
            status = subprocess.run(
                command, cwd=tree, env=environment, capture_output=True, timeout=TIMEOUT_SECONDS, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            return f"{each} (no end within {TIMEOUT_SECONDS} s)"
        if status:
            return each
    return None


def main() -> int:
    """Draw lines; check the tests on the unbroken tree; break, test and restore each line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=1, help="seed of the lines")
    parser.add_argument("--count", type=int, default=10, help="number of lines")
    parser.add_argument("--rooms", nargs="+", default=ROOMS, help="rooms that lines are drawn from")
    arguments = parser.parse_args()
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".git", ".venv", "exp", "__pycache__", ".*_cache"))
        lines = drawn(tree, tuple(arguments.rooms), arguments.seed, arguments.count)
        folders = dict.fromkeys((*(f"tests/{mutant.path.parts[1]}" for mutant in lines), *ABOVE))
        if (tests := first_failing(tree, folders)) is not None:
            sys.exit(f"{tests}: fails although no line is broken; mend it first")
        for mutant in lines:
            file = tree / mutant.path
            whole = file.read_text(encoding="utf-8")
            line = whole.splitlines()[mutant.line - 1].strip()
            file.write_text(mutant.text, encoding="utf-8")
            tests = first_failing(tree, tests_of(tree, mutant.path))
            file.write_text(whole, encoding="utf-8")
            survivors += tests is None
            verdict = "SURVIVED" if tests is None else f"noticed by {tests}"
            sys.stdout.write(f"{mutant.path}:{mutant.line}: {mutant.what}: {line}\n    {verdict}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{arguments.count} lines broken, {survivors} survived\n")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
