"""The formats of transcripts, read back by readers that forgive nothing."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhuc_asr.base.errors import CorpusError
from lhuc_asr.decode.lattice import best_path
from lhuc_asr.decode.lattice_file import read_lattices
from lhuc_asr.decode.word_lattice import WordLattice
from lhuc_asr.recognizer.transcript import Phone, PieceLattice, Span, Transcript, Word, read_transcripts
from lhuc_asr.recognizer.transcript_formats import (
    FORMATS,
    TSV_HEADER,
    Format,
    check_holds,
    is_written,
    pieces,
    recordings_in,
    write,
)

# A chain of three words of two frames each.
LATTICE = WordLattice(
    frame=np.array([0, 2, 4, 6], np.int32),
    final=np.array([np.inf, np.inf, np.inf, 0.5]),
    source=np.array([0, 1, 2], np.int32),
    target=np.array([1, 2, 3], np.int32),
    word=np.array([1, 2, 3], np.int32),
    begin=np.array([0, 2, 4], np.int32),
    graph_cost=np.array([1.0, 2.0, 3.0]),
    log_likelihood=np.array([-10.0, -20.0, -30.0]),
    pdf=np.array([0, 1, 2, 3, 4, 5], np.int32),
    offset=np.array([0, 2, 4, 6]),
    acoustic_scale=0.1,
    reached_final=True,
    beam=8.0,
)
NUMBERED = ("<eps>", "GO", "ON", "NOW")
TALK = Transcript(
    "talk",
    Path("a/talk.wav"),
    9.0,
    (Word("GO", 0.5, 0.8004, 0.25), Word("ON", 0.8004, 1.1, 1.0), Word("NOW", 3.0, 3.5, 0.5)),
    lattices=(PieceLattice(0.25, 3.5, LATTICE, NUMBERED),),
)
WITH_WORDS = [form for form in FORMATS if form != "phone-ctm"]
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


def read_vtt(text: str) -> list[tuple[float, float, str]]:
    """WebVTT: a head, then captions as in SubRip with a dot before milliseconds; & and < are escaped."""
    head, captions = text.removesuffix("\n").split("\n", 1) if "\n\n" in text else (text.removesuffix("\n"), "")
    assert head == "WEBVTT"
    assert "," not in captions
    assert not re.search(r"&(?!amp;|lt;|gt;)|<|(?<!--)>", captions)
    rows = read_srt(re.sub(r"(\d\d)\.(\d{3})", r"\1,\2", captions.removeprefix("\n")) + "\n" if captions else "")
    return [(s, e, line.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")) for s, e, line in rows]


def read_stm(text: str) -> list[tuple[str, str, float, float, str]]:
    """NIST's: recording, channel, speaker, start, end, label, words."""
    rows = []
    for line in text.splitlines():
        fields = re.fullmatch(r"(\S+) (\d+) (\S+) (\d+\.\d{3}) (\d+\.\d{3}) <O> (\S+(?: \S+)*)", line)
        assert fields, line
        name, _, speaker, start, end, words = fields.groups()
        assert float(start) < float(end)
        rows.append((name, speaker, float(start), float(end), words))
    return rows


def read_textgrid(text: str) -> dict[str, list[tuple[float, float, str]]]:
    """Praat's long text: tiers of numbered intervals that follow each other from the beginning to the end."""
    number = r"(\d+(?:\.\d+)?)"
    head = re.match(rf'File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0 \nxmax = {number} \n', text)
    assert head
    tiers: dict[str, list[tuple[float, float, str]]] = {}
    for place, tier in enumerate(re.split(r"    item \[\d+\]:\n", text)[1:], start=1):
        assert f"    item [{place}]:\n" in text
        fields = re.match(
            r'        class = "IntervalTier" \n        name = "(\w+)" \n        xmin = 0 \n'
            rf"        xmax = {number} \n        intervals: size = (\d+) \n",
            tier,
        )
        assert fields
        assert fields[2] == head[1]
        intervals = re.findall(
            rf'intervals \[(\d+)\]:\n +xmin = {number} \n +xmax = {number} \n +text = "((?:[^"]|"")*)" \n', tier
        )
        assert [int(interval[0]) for interval in intervals] == list(range(1, int(fields[3]) + 1))
        times = [(float(start), float(end)) for _, start, end, _ in intervals]
        assert times[0][0] == 0
        assert times[-1][1] == float(head[1])
        assert all(before[1] == after[0] for before, after in pairwise(times))
        assert all(start < end for start, end in times)
        labels = [interval[3].replace('""', '"') for interval in intervals]
        tiers[fields[1]] = [(*time, label) for time, label in zip(times, labels, strict=True)]
    assert f"size = {len(tiers)} \n" in text
    return tiers


def test_txt_is_a_line_a_recording_and_is_read_back(tmp_path: Path) -> None:
    text = write([NOTHING, TALK], "txt")
    assert text == "nothing\ntalk GO ON NOW\n"
    (tmp_path / "text").write_text(text)
    assert read_transcripts(tmp_path / "text") == {"nothing": (), "talk": ("GO", "ON", "NOW")}


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


def test_lattices_are_read_again_each_under_the_name_and_times_of_its_piece(tmp_path: Path) -> None:
    longer = replace(TALK, recording="a-b", lattices=(*TALK.lattices, PieceLattice(4000.0, 4003.2, LATTICE, NUMBERED)))
    path = tmp_path / "all.lattice"
    path.write_text(write([TALK, longer], "lattice"), encoding="utf-8")
    read = dict(read_lattices(path, NUMBERED, acoustic_scale=0.1))
    assert list(read) == ["talk-0000025-0000350", "a-b-0000025-0000350", "a-b-0400000-0400320"]
    for lattice in read.values():
        arcs, cost = best_path(lattice)
        assert lattice.words_of(arcs, NUMBERED) == ("GO", "ON", "NOW")
        assert cost == pytest.approx(best_path(LATTICE)[1])
    assert recordings_in(path.read_text(encoding="utf-8"), "lattice") == {"talk", "a-b"}


def test_ctm_names_the_channel_that_was_taken() -> None:
    assert write([replace(TALK, channel=2)], "ctm").startswith("talk 2 0.500")


def test_a_path_that_is_not_utf8_is_shown_in_json() -> None:
    odd = replace(TALK, path=Path(os.fsdecode(b"caf\xe9.wav")))
    (row,) = json.loads(write([odd], "json").encode())
    assert row["path"] == "caf\\xe9.wav"


# What is known again, before it is replaced.


@pytest.mark.parametrize("form", WITH_WORDS)
def test_what_was_written_is_known_again(form: Format) -> None:
    text = write([TALK], form)
    assert is_written(text, form, {"talk", "other"}, {"GO", "ON", "NOW"})
    assert not is_written(text, form, {"talk"}, {"GO", "ON"})
    assert is_written(text, form, {"other"}, {"GO", "ON", "NOW"}) == (not FORMATS[form].several)
    assert not is_written(text.replace("NOW", "now"), form, {"talk"}, {"GO", "ON", "NOW"})
    assert is_written(write([NOTHING], form), form, {"nothing"}, set())
    assert not is_written(text + "1\n", form, {"talk"}, {"GO", "ON", "NOW"})


@pytest.mark.parametrize("form", WITH_WORDS)
@pytest.mark.parametrize(
    "text", ["talk THE REFERENCE\n", "GO ON\n", "[]", "[1]", '[{"recording": []}]', "1\n", "\0", "[" * 9999]
)
def test_anything_else_is_not(form: Format, text: str) -> None:
    assert not is_written(text, form, {"talk"}, {"GO", "ON", "NOW"})


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


def test_captions_of_the_web_have_no_mark_up() -> None:
    talk = replace(TALK, words=(Word("<NOISE>", 0.5, 0.8, 0.25), Word("R&D", 0.8, 1.1, 1.0)))
    assert read_vtt(write([talk], "vtt")) == [(0.5, 1.1, "<NOISE> R&D")]
    assert is_written(write([talk], "vtt"), "vtt", (), {"<NOISE>", "R&D"})
    assert read_srt(write([talk], "srt")) == [(0.5, 1.1, "<NOISE> R&D")]


@given(transcripts())
def test_webvtt_has_the_captions_of_srt(transcript: Transcript) -> None:
    assert read_vtt(write([transcript], "vtt")) == read_srt(write([transcript], "srt"))


@given(transcripts())
def test_a_textgrid_passes_a_strict_reader(transcript: Transcript) -> None:
    (tier,) = read_textgrid(write([transcript], "TextGrid")).values()
    assert [label for *_, label in tier if label] == [word.word for word in transcript.words]
    for (start, end, _), word in zip((row for row in tier if row[2]), transcript.words, strict=True):
        assert (start, end) == pytest.approx((word.start, word.end), abs=6e-4)


def test_a_textgrid_has_a_tier_of_phones_where_they_are_known() -> None:
    phones = (Phone("G", 0.5, 0.6), Phone("OW", 0.6, 0.8004), Phone("AA", 0.8004, 1.0), Phone("N", 1.0, 1.1))
    aligned = replace(TALK, words=TALK.words[:2], phones=phones)
    tiers = read_textgrid(write([aligned], "TextGrid"))
    assert tiers["words"] == [(0.0, 0.5, ""), (0.5, 0.8, "GO"), (0.8, 1.1, "ON"), (1.1, 9.0, "")]
    assert [label for *_, label in tiers["phones"]] == ["", "G", "OW", "AA", "N", ""]
    assert write([aligned], "phone-ctm").splitlines()[:2] == ["talk 1 0.500 0.100 G", "talk 1 0.600 0.200 OW"]
    assert json.loads(write([aligned], "json"))[0]["phones"][0] == {"phone": "G", "start": 0.5, "end": 0.6}


@given(transcripts())
def test_stm_passes_a_strict_reader(transcript: Transcript) -> None:
    rows = read_stm(write([replace(transcript, speaker="al ice")], "stm"))
    assert " ".join(words for *_, words in rows) == transcript.text
    assert {row[:2] for row in rows} <= {("r", "al_ice")}


def test_stm_names_the_speaker_or_nobody() -> None:
    assert read_stm(write([TALK], "stm")) == [
        ("talk", "unknown", 0.5, 1.1, "GO ON"), ("talk", "unknown", 3.0, 3.5, "NOW"),
    ]  # fmt: skip


@given(transcripts())
def test_tsv_is_a_table(transcript: Transcript) -> None:
    header, *rows = csv.reader(write([transcript], "tsv").splitlines(), delimiter="\t")
    assert tuple(header) == TSV_HEADER
    assert [row[3] for row in rows] == [word.word for word in transcript.words]
    assert all(row[0] == "r" and float(row[1]) < float(row[2]) for row in rows)


@pytest.mark.parametrize("form", [form for form in WITH_WORDS if FORMATS[form].several])
def test_a_transcript_is_written_before_the_next_one_is_there(form: Format) -> None:
    given = []

    def finished() -> Iterator[Transcript]:
        for transcript in (TALK, TALK):
            given.append(transcript)
            yield transcript

    written = ""
    for piece in pieces(finished(), form):
        written += piece
        if len(given) == 1 and "NOW" in written:
            break
    else:
        pytest.fail("the first transcript was not written before the second was asked for")


@pytest.mark.parametrize(
    ("form", "text"), [*((form, "") for form in FORMATS if form not in ("json", "tsv")), ("json", "[]\n")]
)
def test_no_transcript_is_no_error(form: Format, text: str) -> None:
    check_holds(form, 0)
    assert write([], form) == text
