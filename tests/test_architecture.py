"""The house rules run on the package, and on small bad snippets: a rule that cannot fail proves nothing."""

from __future__ import annotations

import pytest
from code_rules import (
    attributes_without_noun,
    busy_inits,
    dangerous_code,
    long_pieces,
    missing_docstrings,
    nounless_files,
    prints_and_asserts,
    vague_variables,
)
from house_rules import (
    circles,
    declared_distributions,
    foreign_libraries,
    misplaced_libraries,
    package_imports,
    undeclared_imports,
    unguarded_extras,
    unknown_rooms,
    unused_pillars,
    upward_imports,
)
from parsed_package import ROOT, Source, package_sources, parse, sources_below

from lhuc_asr.base.extras import EXTRAS

RULES = [
    unknown_rooms,
    upward_imports,
    package_imports,
    circles,
    prints_and_asserts,
    missing_docstrings,
    misplaced_libraries,
    foreign_libraries,
    dangerous_code,
    nounless_files,
    busy_inits,
    unused_pillars,
    long_pieces,
    attributes_without_noun,
    vague_variables,
]


@pytest.fixture(scope="module")
def package() -> list[Source]:
    return package_sources()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps(rule, package: list[Source]) -> None:
    breaches = rule(package)
    assert not breaches, "\n".join(["", *breaches])


def test_the_package_declares_what_it_imports(package: list[Source]) -> None:
    breaches = undeclared_imports(package, (ROOT / "pyproject.toml").read_text())
    assert not breaches, "\n".join(["", *breaches])


def test_a_missing_extra_is_named_wherever_it_is_imported(package: list[Source]) -> None:
    pyproject = (ROOT / "pyproject.toml").read_text()
    breaches = unguarded_extras(package, pyproject)
    assert not breaches, "\n".join(["", *breaches])
    assert EXTRAS.keys() == declared_distributions(pyproject).keys() - {""}


@pytest.mark.parametrize("folder", ["tests", "benchmarks"])
def test_tests_and_benchmarks_can_be_read_in_pieces_too(folder: str) -> None:
    breaches = long_pieces(sources_below(ROOT / folder))
    assert not breaches, "\n".join(["", *breaches])


def test_every_room_has_its_init(package: list[Source]) -> None:
    rooms = {source.room for source in package if source.room}
    assert {f"{room}/__init__.py" for room in rooms} <= {source.path for source in package}


# A package that keeps every rule; each snippet below adds one file to it, or takes one's place.
GOOD = {
    "__init__.py": (
        '"""Package."""\nfrom lhuc_asr.base.version import __version__\nif TYPE_CHECKING:\n'
        "    from lhuc_asr.lhuc.bank import Bank\n__all__ = ['Bank', '__version__']\n"
        "def __getattr__(name):\n    from lhuc_asr.lhuc.bank import Bank\n    return Bank\n"
    ),
    "base/__init__.py": '"""Room."""\n',
    "base/version.py": '"""Version."""\n__version__ = "1"\n',
    "base/errors.py": '"""Errors."""\nclass LhucError(Exception):\n    """Base."""\n',
    "base/units.py": '"""Units."""\nimport torch, torchaudio, soxr, soundfile, numpy, jiwer\n',
    "lhuc/__init__.py": '"""Room."""\nfrom lhuc_asr.lhuc.bank import Bank\n__all__ = ["Bank"]\n',
    "lhuc/bank.py": '"""Bank."""\nfrom lhuc_asr.base.errors import LhucError\nclass Bank:\n    """Bank."""\n',
    "cli/main.py": '"""Verbs."""\nfrom lhuc_asr.base.version import __version__\nprint(__version__)\n',
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_good_package_keeps(rule) -> None:
    assert rule(parse(GOOD)) == []


BAD = [
    (long_pieces, "lhuc/x.py", "'x'\n" * 401, "401 lines"),
    (long_pieces, "lhuc/x.py", "def f():\n" + "    1\n" * 80, "f has 81 lines"),
    (attributes_without_noun, "lhuc/x.py", "'X\\n\\nAttributes:\\n    seed: Of the order.'", "begins with its noun"),
    (vague_variables, "lhuc/x.py", "def f():\n    found = 1", "2: a variable called"),
    (unknown_rooms, "attic/old.py", "", "attic/old.py: no room"),
    (unknown_rooms, "loose.py", "", "loose.py: no room"),
    (upward_imports, "lhuc/x.py", "from lhuc_asr.cli.main import run", "1: lhuc may not import cli"),
    (upward_imports, "decode/x.py", "import lhuc_asr.score.wer", "1: decode may not import score"),
    (upward_imports, "nnet/x.py", "from lhuc_asr.hmm.gmm import Gmm", "1: nnet may not import hmm"),
    (upward_imports, "lang/x.py", "def f():\n    from lhuc_asr.hmm.gmm import Gmm", "2: lang may not import hmm"),
    (upward_imports, "base/x.py", "if TYPE_CHECKING:\n    import lhuc_asr.lhuc.bank", "2: base may not"),
    (upward_imports, "base/x.py", "from lhuc_asr import lhuc", "1: base may not import lhuc"),
    (package_imports, "cli/x.py", "from lhuc_asr.lhuc import Bank", "the package lhuc_asr.lhuc, not the defining"),
    (package_imports, "cli/x.py", "import lhuc_asr.base", "the package lhuc_asr.base, not the defining"),
    (package_imports, "cli/x.py", "from lhuc_asr import lhuc", "the package lhuc_asr.lhuc, not the defining"),
    (package_imports, "cli/x.py", "from lhuc_asr import __version__", "the package lhuc_asr, not the defining"),
    (package_imports, "lhuc/x.py", "from .bank import Bank", "relative import .bank"),
    (package_imports, "lhuc/x.py", "from . import bank", "relative import ."),
    (package_imports, "lhuc/x.py", "from lhuc_asr.lhuc.gone import X", "lhuc_asr.lhuc.gone does not exist"),
    (circles, "base/errors.py", "import lhuc_asr.lhuc.bank", "circle: "),
    (circles, "base/errors.py", "def f():\n    from lhuc_asr.lhuc import bank", "circle: "),
    (circles, "lhuc/bank.py", "from lhuc_asr import __version__", "circle: "),
    (circles, "base/errors.py", "def f():\n    from lhuc_asr import Bank", "circle: "),
    (prints_and_asserts, "lhuc/x.py", "def f():\n    print(1)", "2: print"),
    (prints_and_asserts, "cli/x.py", "assert 1", "1: assert"),
    (missing_docstrings, "lhuc/x.py", "", "lhuc_asr.lhuc.x has no docstring"),
    (missing_docstrings, "lhuc/x.py", "'x'\nclass A:\n    'A'\n    def f(self): ...", "x.A.f has no docstring"),
    (missing_docstrings, "lhuc/x.py", "'x'\nasync def f(): ...", "x.f has no docstring"),
    (misplaced_libraries, "corpus/x.py", "import espeakng_loader", "is imported in base/espeak.py only"),
    (misplaced_libraries, "cli/x.py", "from matplotlib.figure import Figure", "is imported in score/ only"),
    (misplaced_libraries, "base/x.py", "import fcntl", "fcntl is imported in base/descriptor_lock.py only"),
    (foreign_libraries, "lhuc/x.py", "import numpy", "lhuc does without numpy"),
    (foreign_libraries, "base/errors.py", "def f():\n    import yaml", "2: lhuc does without yaml"),
    (dangerous_code, "lhuc/x.py", "import pickle", "import of pickle"),
    (misplaced_libraries, "lhuc/x.py", "def f():\n    from subprocess import run", "2: subprocess is imported in"),
    (dangerous_code, "lhuc/x.py", "torch.load(p)", "call of torch.load"),
    (dangerous_code, "lhuc/x.py", "from torch import load", "import of torch.load"),
    (dangerous_code, "lhuc/x.py", "os.system('ls')", "call of os.system"),
    (dangerous_code, "lhuc/x.py", "eval('1')", "call of eval"),
    (dangerous_code, "lhuc/x.py", "exec('1')", "call of exec"),
    (dangerous_code, "lhuc/x.py", "run('ls', shell=True)", "shell is not False"),
    (dangerous_code, "lhuc/x.py", "run('ls', shell=flag)", "shell is not False"),
    (dangerous_code, "lhuc/x.py", "np.load(p, allow_pickle=True)", "allow_pickle is not False"),
    (nounless_files, "lhuc/utils.py", "", "lhuc/utils.py: name it"),
    (nounless_files, "common/x.py", "", "common/x.py: name it"),
    (busy_inits, "lhuc/__init__.py", "'x'\nREGISTRY = {}", "2: an __init__.py holds"),
    (busy_inits, "lhuc/__init__.py", "'x'\ndef __getattr__(name): ...", "2: an __init__.py holds"),
    (busy_inits, "lhuc/__init__.py", "from lhuc_asr.lhuc.bank import *", "1: an __init__.py holds"),
    (busy_inits, "lhuc/__init__.py", "'x'\n'y'", "2: an __init__.py holds"),
    (unused_pillars, "base/units.py", "import torch, torchaudio, soxr, soundfile, numpy", "jiwer is imported"),
]


@pytest.mark.parametrize(("rule", "path", "text", "breach"), BAD)
def test_a_breach_is_found(rule, path: str, text: str, breach: str) -> None:
    breaches = rule(parse({**GOOD, path: text}))
    assert len(breaches) == 1
    assert breach in breaches[0]


ALLOWED = [
    (package_imports, "lhuc/x.py", "from lhuc_asr.base import errors"),
    (busy_inits, "__init__.py", "'x'\n__version__ = '1'\n__all__ = ['load']\ndef __getattr__(name): ..."),
    (busy_inits, "lhuc/__init__.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch"),
    (missing_docstrings, "lhuc/x.py", "'x'\ndef _f(): ...\nclass _A:\n    def g(self): ..."),
    (misplaced_libraries, "base/espeak.py", "import espeakng_loader"),
    (misplaced_libraries, "score/figures.py", "import matplotlib"),
    (dangerous_code, "lhuc/x.py", "model.eval(); re.compile('x'); np.load(p, allow_pickle=False)"),
]


@pytest.mark.parametrize(("rule", "path", "text"), ALLOWED)
def test_what_is_allowed_is_no_breach(rule, path: str, text: str) -> None:
    assert rule(parse({**GOOD, path: text})) == []


def test_an_undeclared_import_is_found() -> None:
    pyproject = """
    [project]
    dependencies = ["PyYAML>=6", "kaldi-native-fbank==1 ; python_version > '3'"]
    optional-dependencies = { voices = ["espeakng-loader[x]"], dev = ["pytest"] }
    """
    text = "import yaml, kaldi_native_fbank.x, os.path, espeakng_loader\ndef f():\n    import pytest"
    breaches = undeclared_imports(parse({"base/x.py": text}), pyproject)
    assert breaches == ["base/x.py:3: pytest is not declared in pyproject.toml"]


@pytest.mark.parametrize(
    ("text", "breaches"),
    [
        ("import yaml\nwith extra('rank'):\n    import pyarrow.csv, sklearn\nimport numpy", []),
        ("def f():\n    with extra('figures'):\n        from sklearn import manifold", []),
        ("import pyarrow", ["base/x.py:1: pyarrow: import it in with extra(rank)"]),
        ("with extra('figures'):\n    import pyarrow", ["base/x.py:2: pyarrow: import it in with extra(rank)"]),
        ("with open('rank'):\n    import sklearn", ["base/x.py:2: sklearn: import it in with extra(figures or rank)"]),
    ],
)
def test_an_unguarded_extra_is_found(text: str, breaches: list[str]) -> None:
    pyproject = """
    [project]
    dependencies = ["PyYAML>=6", "numpy"]
    optional-dependencies = { rank = ["pyarrow>=17", "scikit-learn"], figures = ["scikit-learn"], dev = ["pyarrow"] }
    """
    assert unguarded_extras(parse({"base/x.py": text}), pyproject) == breaches
