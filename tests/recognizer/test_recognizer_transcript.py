"""What transcripts are written as, read back by readers that forgive nothing."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhuc_asr.base.errors import CorpusError
from lhuc_asr.recognizer.transcript import (
    Format,
    Span,
    Transcript,
    Word,
    is_written,
    read_transcripts,
    recording_name,
    write,
)

TALK = Transcript(
    "talk",
    Path("a/talk.wav"),
    9.0,
    (Word("GO", 0.5, 0.8004, 0.25), Word("ON", 0.8004, 1.1, 1.0), Word("NOW", 3.0, 3.5, 0.5)),
)
NOTHING = Transcript("nothing", Path("nothing.wav"), 2.0, ())


@st.composite
def transcripts(draw: st.DrawFn) -> Transcript:
    """Words one after the other, in 10 ms from an odd start, some pieces of the recording being cut anywhere."""
    start, words = draw(st.floats(0.0, 5000.0)), []
    for length, pause in draw(st.lists(st.tuples(st.integers(3, 900), st.integers(0, 300)), max_size=40)):
        words.append(Word(draw(st.sampled_from(["A", "DON'T", "É", "X" * 90])), start, start + length / 100, 0.5))
        start += (length + pause) / 100
    return Transcript("r", Path("r.wav"), start + 1.0, tuple(words))


def read_ctm(text: str) -> list[tuple[str, float, float, str, float]]:
    """NIST's: six fields by single spaces, ascending, no overlap."""
    rows = []
    for line in text.splitlines():
        fields = re.fullmatch(r"(\S+) 1 (\d+\.\d{3}) (\d+\.\d{3}) (\S+) ([01]\.\d{3})", line)
        assert fields, line
        name, start, length, word, confidence = fields.groups()
        rows.append((name, float(start), float(start) + float(length), word, float(confidence)))
    for before, after in pairwise(rows):
        assert before[0] != after[0] or after[1] >= before[2] - 1e-9
    return rows


def read_srt(text: str) -> list[tuple[float, float, str]]:
    """SubRip: numbers from 1, comma before milliseconds, blank lines between, no overlap, nothing of no length."""
    if not text:
        return []
    captions, last = [], 0.0
    for number, block in enumerate(text.removesuffix("\n").split("\n\n"), start=1):
        first, times, *lines = block.split("\n")
        assert first == str(number)
        match = re.fullmatch(r"(\d\d):([0-5]\d):([0-5]\d),(\d{3}) --> (\d\d):([0-5]\d):([0-5]\d),(\d{3})", times)
        assert match, times
        fields = list(map(int, match.groups()))
        start, end = (3600 * h + 60 * m + s + ms / 1000 for h, m, s, ms in (fields[:4], fields[4:]))
        assert last <= start < end
        assert len(lines) == 1
        assert lines[0].strip()
        last = end
        captions.append((start, end, lines[0]))
    return captions


def test_txt_is_a_line_a_recording_and_is_read_back(tmp_path: Path) -> None:
    text = write([NOTHING, TALK], "txt")
    assert text == "nothing\ntalk GO ON NOW\n"
    (tmp_path / "text").write_text(text)
    assert read_transcripts(tmp_path / "text") == {"nothing": (), "talk": ("GO", "ON", "NOW")}


def test_transcripts_are_normalised_and_name_a_recording_once(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("a  don\N{RIGHT SINGLE QUOTATION MARK}t go\n\nb yes\n")
    assert read_transcripts(path) == {"a": ("DON'T", "GO"), "b": ("YES",)}
    path.write_text("a yes\na no\n")
    with pytest.raises(CorpusError, match=r"text:2: 'a' already has an earlier line; delete one"):
        read_transcripts(path)


def test_json_has_everything() -> None:
    tree = json.loads(write([TALK, NOTHING], "json"))
    assert [row["text"] for row in tree] == ["GO ON NOW", ""]
    assert tree[0]["words"][0] == {"word": "GO", "start": 0.5, "end": 0.8, "confidence": 0.25}
    assert tree[0] | {"words": []} == {
        "recording": "talk", "path": "a/talk.wav", "seconds": 9.0, "text": "GO ON NOW", "left_out": [], "words": [],
    }  # fmt: skip
    silent = replace(NOTHING, left_out=(Span(0.0, 1.23456), Span(1.5, 2.0)), channel=2)
    (row,) = json.loads(write([silent], "json"))
    assert row["left_out"] == [{"start": 0.0, "end": 1.235}, {"start": 1.5, "end": 2.0}]
    assert row["channel"] == 2


def test_ctm_is_nists() -> None:
    assert write([TALK, NOTHING], "ctm") == (
        "talk 1 0.500 0.300 GO 0.250\ntalk 1 0.800 0.300 ON 1.000\ntalk 1 3.000 0.500 NOW 0.500\n"
    )


def test_ctm_names_the_channel_that_was_taken() -> None:
    assert write([replace(TALK, channel=2)], "ctm").startswith("talk 2 0.500")


def test_a_path_that_is_not_utf8_is_shown_in_json() -> None:
    odd = replace(TALK, path=Path(os.fsdecode(b"caf\xe9.wav")))
    (row,) = json.loads(write([odd], "json").encode())
    assert row["path"] == "caf\\xe9.wav"


# What is known again, before it is replaced.


@pytest.mark.parametrize("form", ["txt", "json", "ctm", "srt"])
def test_what_was_written_is_known_again(form: Format) -> None:
    text = write([TALK], form)
    assert is_written(text, form, {"talk", "other"}, {"GO", "ON", "NOW"})
    assert not is_written(text, form, {"talk"}, {"GO", "ON"})
    assert form == "srt" or not is_written(text, form, {"other"}, {"GO", "ON", "NOW"})
    assert not is_written(text.replace("NOW", "now"), form, {"talk"}, {"GO", "ON", "NOW"})


@pytest.mark.parametrize("form", ["txt", "json", "ctm", "srt"])
@pytest.mark.parametrize(
    "text", ["talk THE REFERENCE\n", "GO ON\n", "[]", "[1]", '[{"recording": []}]', "1\n", "\0", "[" * 9999]
)
def test_anything_else_is_not(form: Format, text: str) -> None:
    assert not is_written(text, form, {"talk"}, {"GO", "ON", "NOW"})


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


@given(transcripts())
def test_ctm_passes_a_strict_reader(transcript: Transcript) -> None:
    rows = read_ctm(write([transcript], "ctm"))
    assert [row[3] for row in rows] == [word.word for word in transcript.words]
    for row, word in zip(rows, transcript.words, strict=True):
        assert row[1:3] == pytest.approx((word.start, word.end), abs=6e-4)


@given(transcripts())
def test_srt_passes_a_strict_reader(transcript: Transcript) -> None:
    captions = read_srt(write([transcript], "srt"))
    assert " ".join(line for _, _, line in captions) == transcript.text
    for start, end, line in captions:
        assert len(line) <= 80 or " " not in line
        assert end - start <= 6.001 or " " not in line


def test_a_pause_ends_a_caption() -> None:
    assert read_srt(write([TALK], "srt")) == [(0.5, 1.1, "GO ON"), (3.0, 3.5, "NOW")]
    assert write([NOTHING], "srt") == ""


def test_srt_holds_one_recording() -> None:
    with pytest.raises(CorpusError, match="SRT holds one recording, found 2; write them to a folder"):
        write([TALK, NOTHING], "srt")


def test_transcripts_are_normalised_and_their_tags_mapped(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes("\ufeffzoe\u0308 don\u2019t [laughter] <door>\r\n".encode())
    assert read_transcripts(path, own_tags={"<DOOR>"}) == {"zo\u00eb": ("DON'T", "<NOISE>", "<DOOR>")}
    with pytest.raises(CorpusError, match=r"text:1: unknown tag '<DOOR>'"):
        read_transcripts(path)
