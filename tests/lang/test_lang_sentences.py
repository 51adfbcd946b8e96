import gzip
from pathlib import Path

import pytest

from lhuc_asr.base.errors import CorpusError
from lhuc_asr.lang.arpa import write_arpa
from lhuc_asr.lang.kneser_ney import estimate
from lhuc_asr.lang.sentences import check_sentences, read_sentences, word_counts


def test_word_counts() -> None:
    assert word_counts([("A", "B"), ("A",)]) == {"A": 2, "B": 1}


def test_plain_and_compressed_text(tmp_path: Path) -> None:
    text = "a b\r\n\n <s> c </s> \n[pause]\n"
    plain, compressed = tmp_path / "text", tmp_path / "text.gz"
    plain.write_text("\ufeff" + text, encoding="utf-8")
    compressed.write_bytes(gzip.compress(text.encode()))
    assert list(read_sentences(plain)) == [("A", "B"), ("C",)]
    assert list(read_sentences(compressed)) == [("A", "B"), ("C",)]


def test_a_language_model_is_not_a_text(tmp_path: Path) -> None:
    path = tmp_path / "lm.arpa"
    write_arpa(path, estimate([("A", "B")], 2))
    path.write_text("a comment\n" + path.read_text())
    for read in (check_sentences, lambda path: list(read_sentences(path))):
        with pytest.raises(CorpusError, match=r"lm\.arpa:2: a language model in the ARPA format, expected sentences"):
            read(path)


def test_an_unknown_tag_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("fine\n<b>bold</b>\n")
    with pytest.raises(CorpusError, match=r"text:2: unknown tag '<B>'"):
        check_sentences(path)
    path.write_text("fine\n[laughter]\n")
    assert list(read_sentences(path, own_tags={"[LAUGHTER]"})) == [("FINE",), ("[LAUGHTER]",)]
