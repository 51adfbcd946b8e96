"""Broken lines: each changes the meaning of one line, and texts are left alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def mutants(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("mutants")


SOURCE = '''
def f(x, y):
    """A text with 1 + 1 in it."""
    if x < y and y != 0:
        return x * y
    name = "a" + str(x)
    return name
'''


def outcome(text: str, *arguments: int) -> object:
    scope: dict[str, object] = {}
    code = compile(text, "snippet", "exec")
    exec(code, scope)
    return scope["f"](*arguments)  # type: ignore[operator]


def test_each_mutant_changes_one_line_and_what_it_does(mutants: ModuleType) -> None:
    made = list(mutants.mutants(Path("f.py"), SOURCE))
    assert {(mutant.line, mutant.what) for mutant in made} == {
        (4, "condition"),
        (4, "and for or"),
        (4, "comparison"),
        (5, "returned value"),
        (5, "operator"),
        (7, "returned value"),
    }
    calls = [(1, 2), (2, 1), (-1, 0), (0, 5)]
    for mutant in made:
        before, after = ([outcome(text, *call) for call in calls] for text in (SOURCE, mutant.text))
        assert before != after, mutant


def test_lines_are_drawn_by_the_seed(mutants: ModuleType, tmp_path: Path) -> None:
    room = tmp_path / "lhuc_asr" / "hmm"
    room.mkdir(parents=True)
    (room / "x.py").write_text(SOURCE)
    first, again, other = (mutants.drawn(tmp_path, ("hmm",), seed, 3) for seed in (1, 1, 2))
    assert first == again != other
    assert len({(mutant.path, mutant.line) for mutant in first}) == 3


@pytest.mark.parametrize(("body", "noticed"), [("assert f(2, 3) == 6", True), ("assert True", False)])
def test_a_mutant_survives_where_no_test_notices(mutants: ModuleType, tmp_path: Path, body: str, noticed: bool) -> None:
    (tmp_path / "lhuc_asr" / "hmm").mkdir(parents=True)
    (tmp_path / "tests" / "hmm").mkdir(parents=True)
    for name in ("adapt", "recognizer", "pipeline"):
        (tmp_path / "tests" / name).mkdir()
    (tmp_path / "tests" / "hmm" / "test_hmm_x.py").write_text(f"from x import f\n\n\ndef test() -> None:\n    {body}\n")
    mutant = next(each for each in mutants.mutants(Path("lhuc_asr/hmm/x.py"), SOURCE) if each.what == "operator")
    (tmp_path / "x.py").write_text(mutant.text)
    assert (mutants.noticed_by(tmp_path, mutant) is not None) == noticed
