"""Transcripts that a user knows: how they are read, and the names of recordings."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhuc_asr.base.errors import CorpusError
from lhuc_asr.recognizer.transcript import read_transcripts, recording_name


def test_transcripts_are_normalised_and_name_a_recording_once(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("a  don\N{RIGHT SINGLE QUOTATION MARK}t go\n\nb yes\n")
    assert read_transcripts(path) == {"a": ("DON'T", "GO"), "b": ("YES",)}
    path.write_text("a yes\na no\n")
    with pytest.raises(CorpusError, match=r"text:2: 'a' already has an earlier line; delete one"):
        read_transcripts(path)


def test_names_are_the_same_in_transcripts_and_of_files(tmp_path: Path) -> None:
    """macOS decomposes the names of files, and editors do not."""
    (tmp_path / "text").write_text("caf\N{LATIN SMALL LETTER E WITH ACUTE} go\n", encoding="utf-8")
    assert list(read_transcripts(tmp_path / "text")) == [recording_name("cafe\N{COMBINING ACUTE ACCENT}")]


@given(st.text())
def test_a_name_is_one_word_and_stays(text: str) -> None:
    name = recording_name(text)
    assert name.split() == [name]
    assert name.isprintable()
    assert recording_name(name) == name


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_a_file_without_transcripts_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "text").write_text(text)
    with pytest.raises(CorpusError, match="text: no transcript in this file; expected lines"):
        read_transcripts(tmp_path / "text")


def test_transcripts_are_normalised_and_their_tags_mapped(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes("\ufeffzoe\u0308 don\u2019t [laughter] <door>\r\n".encode())
    assert read_transcripts(path, own_tags={"<DOOR>"}) == {"zo\u00eb": ("DON'T", "<NOISE>", "<DOOR>")}
    with pytest.raises(CorpusError, match=r"text:1: unknown tag '<DOOR>'"):
        read_transcripts(path)
