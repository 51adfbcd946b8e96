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
        (tmp_path / "tests" / name / f"test_{name}.py").write_text("def test() -> None: ...\n")
    (tmp_path / "tests" / "hmm" / "test_hmm_x.py").write_text(f"from x import f\n\n\ndef test() -> None:\n    {body}\n")
    mutant = next(each for each in mutants.mutants(Path("lhuc_asr/hmm/x.py"), SOURCE) if each.what == "operator")
    tests = mutants.tests_of(tmp_path, mutant.path)
    assert tests == ["tests/hmm/test_hmm_x.py", "tests/hmm", "tests/adapt", "tests/recognizer", "tests/pipeline"]
    (tmp_path / "x.py").write_text(SOURCE)
    assert mutants.first_failing(tmp_path, tests) is None
    (tmp_path / "x.py").write_text(mutant.text)
    assert mutants.first_failing(tmp_path, tests) == ("tests/hmm/test_hmm_x.py" if noticed else None)


def test_tests_that_fail_anyway_notice_nothing(
    mutants: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lhuc_asr" / "hmm").mkdir(parents=True)
    (tmp_path / "lhuc_asr" / "hmm" / "x.py").write_text(SOURCE)
    (tmp_path / "tests" / "hmm").mkdir(parents=True)
    (tmp_path / "tests" / "hmm" / "test_hmm_x.py").write_text("def test() -> None:\n    assert False\n")
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    monkeypatch.setattr("sys.argv", ["mutants.py", "--rooms", "hmm", "--count", "1"])
    with pytest.raises(SystemExit, match="tests/hmm: fails although no line is broken"):
        mutants.main()
