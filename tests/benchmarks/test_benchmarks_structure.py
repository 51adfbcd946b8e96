"""Each figure of benchmarks/structure.py on small files that are known to have it, and on some that do not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]

# Figure, a file, and how often the figure counts something in it.
SNIPPETS = [
    ("lines of pipeline/", "lhuc_asr/pipeline/run.py", "x = 1\n\ny = 2\n", 3),
    ("lines of pipeline/", "lhuc_asr/adapt/run.py", "x = 1\n", 0),
    (
        "signatures with a configuration and a folder",
        "lhuc_asr/pipeline/run.py",
        "def f(config: ExperimentConfig, layout: Layout): ...\n"
        "class A:\n    def g(self, config: ExperimentConfig, *, folder: ExperimentFolder | None): ...\n"
        "def h(config: 'ExperimentConfig', folder: 'list[ExperimentFolder]'): ...\n"
        "def i(config: ExperimentConfig, folder: Path): ...\n"
        "def j(config: LhucConfig, folder: ExperimentFolder): ...\n",
        2,
    ),
    (
        "signatures with a configuration and an Experiment",
        "lhuc_asr/pipeline/run.py",
        "def f(config: ExperimentConfig, experiment: Experiment): ...\ndef g(experiment: Experiment): ...\n",
        1,
    ),
    (
        "signatures with alignment: str",
        "lhuc_asr/pipeline/run.py",
        "def f(alignment: str): ...\ndef g(*, alignment: str | None = None): ...\ndef h(alignment: Alignment): ...\n",
        2,
    ),
    ("files that name Dnn", "lhuc_asr/adapt/sat.py", "from lhuc_asr.nnet.dnn import Dnn\n", 1),
    ("files that name Dnn", "lhuc_asr/adapt/sat.py", "from lhuc_asr.nnet import dnn\nmodel = dnn.Dnn()\n", 1),
    ("files that name Dnn", "lhuc_asr/adapt/sat.py", "def f(model: 'Dnn'): ...\n", 1),
    ("files that name Dnn", "lhuc_asr/adapt/sat.py", "from lhuc_asr.nnet.dnn import DnnConfig  # not Dnn\n", 0),
    ("files that name MonophoneTopology", "lhuc_asr/hmm/topology.py", "class MonophoneTopology: ...\n", 1),
    ("files that name MonophoneTopology", "lhuc_asr/hmm/topology.py", '"""A MonophoneTopology is one."""\n', 0),
    (
        "files that dispatch on the kind of targets",
        "lhuc_asr/adapt/targets.py",
        "if targets.kind == 'best_path': ...\nif targets.kind == 'lattice': ...\n",
        1,
    ),
    ("files that dispatch on the kind of targets", "lhuc_asr/a.py", "x = o.kind in ('confidence', 'lattice')\n", 1),
    ("files that dispatch on the kind of targets", "lhuc_asr/a.py", "x = {'reference': 1}[config.kind]\n", 1),
    ("files that dispatch on the kind of targets", "lhuc_asr/a.py", "match o.kind:\n    case 'lattice': ...\n", 1),
    ("files that dispatch on the kind of targets", "lhuc_asr/a.py", "x = o.kind == 'fbank'\ny = 'lattice'\n", 0),
    ("files that dispatch on the kind of targets", "tests/a.py", "x = o.kind == 'lattice'\n", 0),
    (
        'docs of attributes and arguments that begin "Of"',
        "lhuc_asr/a.py",
        'def f():\n    """F.\n\n    Args:\n        seed: Of the order.\n        low, high: Of it.\n'
        "        offset: Offset of it.\n        x: Often.\n"
        '    """\n',
        2,
    ),
    ("variables called found: package", "lhuc_asr/a.py", "found = 1\nfor found in x: ...\nprint(found)\n", 2),
    ("variables called found: package", "lhuc_asr/a.py", "def f(found): return x.found\n", 1),
    ("variables called found: package", "tests/a.py", "found = 1\n", 0),
    ("variables called found: tests", "tests/adapt/a.py", "(found,) = x\n", 1),
    ('lines of text with "is no", "are no"', "lhuc_asr/a.py", "'''This is no pass.\n\nThey are no\npasses.'''\n", 2),
    ('lines of text with "is no", "are no"', "lhuc_asr/a.py", "x = f'{name} is no folder'\n", 1),
    (
        'lines of text with "is no", "are no"',
        "lhuc_asr/a.py",
        "'There is no pass. It is not one, it is no longer one.'  # this is no text\n",
        0,
    ),
    ("files over 400 lines, tests too", "tests/adapt/a.py", "\n" * 401, 1),
    ("files over 400 lines, tests too", "lhuc_asr/a.py", "\n" * 400, 0),
    ("functions over 80 lines, tests too", "tests/a.py", "def f():\n" + "    x = 1\n" * 80, 1),
    ("functions over 80 lines, tests too", "lhuc_asr/a.py", "def f():\n" + "    x = 1\n" * 79, 0),
]


@pytest.fixture
def structure(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("structure")


@pytest.mark.parametrize(("figure", "path", "text", "expected"), SNIPPETS)
def test_a_snippet_is_counted(structure: ModuleType, figure: str, path: str, text: str, expected: int) -> None:
    assert len(structure.COUNTS[figure]([structure.Source.of(path, text)])) == expected


def circles(structure: ModuleType, files: dict[str, str]) -> list[str]:
    sources = [structure.Source.of(f"lhuc_asr/{path}", text) for path, text in files.items()]
    places: list[str] = structure.COUNTS["import circles"](sources)
    return places


def test_circles_are_found_through_others_and_in_functions(structure: ModuleType) -> None:
    files = {
        "__init__.py": "",
        "a.py": "import lhuc_asr.b\n",
        "b.py": "def f():\n    from lhuc_asr import c\n",
        "c.py": "from lhuc_asr.a import x\n",
        "d.py": "from lhuc_asr.a import x\n",
    }
    assert circles(structure, files) == ["lhuc_asr.a, lhuc_asr.b, lhuc_asr.c"]
    assert circles(structure, {**files, "c.py": ""}) == []


def test_a_circle_through_the_packages_own_init_counts(structure: ModuleType) -> None:
    files = {"__init__.py": "def load():\n    from lhuc_asr.a import load\n", "a.py": "from lhuc_asr import version\n"}
    assert circles(structure, files) == ["lhuc_asr, lhuc_asr.a"]
    assert circles(structure, {**files, "a.py": "from lhuc_asr.version import version\n"}) == []


def test_every_figure_has_a_snippet_that_it_counts(structure: ModuleType) -> None:
    shown = {figure for figure, _, _, expected in SNIPPETS if expected} | {"import circles"}
    assert shown == set(structure.COUNTS)


def test_a_tree_is_read_and_shown(
    structure: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lhuc_asr" / "pipeline").mkdir(parents=True)
    (tmp_path / "lhuc_asr" / "pipeline" / "run.py").write_text("found = 1\n")
    monkeypatch.setattr("sys.argv", ["structure.py", "--places", str(tmp_path), str(ROOT)])
    structure.main()
    shown = capsys.readouterr().out
    assert tmp_path.name in shown
    assert f"variables called found: package, {tmp_path.name}:\n  lhuc_asr/pipeline/run.py:1\n" in shown
    monkeypatch.setattr("sys.argv", ["structure.py", str(tmp_path / "lhuc_asr")])
    with pytest.raises(SystemExit, match="no lhuc_asr/ in this folder; give a checkout"):
        structure.main()
