import gzip
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhuc_asr.base.errors import CorpusError, LexiconError
from lhuc_asr.lang.text import is_reserved, normalise, numbered_lines, read_sentences, word_counts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hello  world\t\n", "HELLO WORLD"),
        ("don\N{RIGHT SINGLE QUOTATION MARK}t 'bout", "DON'T 'BOUT"),
        ("cafe\N{COMBINING ACUTE ACCENT}", "CAF\N{LATIN CAPITAL LETTER E WITH ACUTE}"),
        ("stra\N{LATIN SMALL LETTER SHARP S}e", "STRASSE"),
        ("a-b, c.", "A-B, C."),
        (" \u00a0\u2003 ", ""),
    ],
)
def test_normalise(text, expected):
    assert normalise(text) == expected


@given(st.text())
def test_normalise_is_idempotent_composed_and_single_spaced(text):
    once = normalise(text)
    assert normalise(once) == once
    assert unicodedata.is_normalized("NFC", once)
    assert once.split() == [word for word in once.split(" ") if word]


def test_reserved_words():
    assert all(is_reserved(word) for word in ("<eps>", "<s>", "</s>", "#0", "#12"))
    assert not any(is_reserved(word) for word in ("<unk>", "#HASH", "S", ""))


def test_word_counts():
    assert word_counts([("A", "B"), ("A",)]) == {"A": 2, "B": 1}


def test_read_plain_compressed_and_kaldi_text(tmp_path):
    text = "a b\r\n\n  c \n"
    plain, compressed, kaldi = (tmp_path / name for name in ("text", "text.gz", "kaldi"))
    plain.write_text("\ufeff" + text, encoding="utf-8")
    compressed.write_bytes(gzip.compress(text.encode()))
    kaldi.write_text("utt-1 a b\nutt-2\nutt-3 c\n")
    assert list(read_sentences(plain)) == [("A", "B"), ("C",)]
    assert list(read_sentences(compressed)) == [("A", "B"), ("C",)]
    assert list(read_sentences(kaldi, utterance_ids=True)) == [("A", "B"), ("C",)]


def test_errors_name_the_file_and_the_line(tmp_path):
    path = tmp_path / "text"
    with pytest.raises(CorpusError, match=r"text: no such file"):
        list(read_sentences(path))
    path.write_bytes(b"fine\nca\xe9\n")
    with pytest.raises(LexiconError, match=r"text:2: expected UTF-8 text, found byte 0xe9"):
        list(numbered_lines(path, LexiconError))
    damaged = tmp_path / "text.gz"
    damaged.write_bytes(gzip.compress(b"line\n" * 1000)[:-12])
    with pytest.raises(CorpusError, match=r"text\.gz:\d+: cannot be read further \(.*\); the file is damaged"):
        list(read_sentences(damaged))
    damaged.write_bytes(b"not compressed")
    with pytest.raises(CorpusError, match=r"text\.gz:1: cannot be read further \(.*\); the file is damaged"):
        list(read_sentences(damaged))


def test_a_folder_in_place_of_a_file_is_not_called_damaged(tmp_path):
    with pytest.raises(CorpusError, match=r": cannot be read \(Is a directory\)$"):
        list(read_sentences(tmp_path))
